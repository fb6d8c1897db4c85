//! The places of a model into which adapters go.
//!
//! `bias = "all"` gives norms slots of their own. peft saves a pooler's bias as well, which nothing here reads; it is
//! dropped.

use super::{BottleneckSlot, SoftSlot};
use crate::{Embedding, LayerNorm, Linear};
use ragduet_torch::ParamBuilder;

/// Slots by the dotted path of their module.
#[derive(Debug, Clone)]
pub struct Sites {
    /// Linear layers, the output projection among them.
    pub(super) linears: Vec<(String, Linear)>,
    /// Lookup tables.
    pub(super) embeddings: Vec<(String, Embedding)>,
    /// Norms whose bias can learn.
    pub(super) norms: Vec<(String, LayerNorm)>,
    /// Where prompts and prefixes go.
    pub(super) soft: Vec<(String, SoftSlot)>,
    /// Behind sub-layers.
    pub(super) bottlenecks: Vec<(String, BottleneckSlot)>,
}

impl Sites {
    /// What was built with `b`.
    pub(crate) fn of(b: &ParamBuilder) -> Self {
        Self {
            linears: b.attached(),
            embeddings: b.attached(),
            norms: b.attached(),
            soft: b.attached(),
            bottlenecks: b.attached(),
        }
    }

    /// The paths of the linear layers.
    pub(crate) fn linear_paths(&self) -> impl Iterator<Item = &str> {
        self.linears.iter().map(|(n, _)| n.as_str())
    }
}
