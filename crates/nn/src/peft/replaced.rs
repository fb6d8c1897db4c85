//! `modules_to_save`: a module trained whole, in a copy that the adapter owns.

use super::slot::{EmbeddingAdapter, LinearAdapter};
use crate::{Embedding, Linear, Mode, Result};
use ragduet_torch::{Init, ParamBuilder, Tensor, no_grad};

/// Another weight and bias.
#[derive(Debug)]
pub(super) struct Replaced {
    /// As the checkpoint holds it.
    weight: Tensor,
    bias: Option<Tensor>,
    transposed: bool,
}

/// A parameter that starts as the base's.
pub(super) fn copy(b: &ParamBuilder, name: &str, of: &Tensor) -> Result<Tensor> {
    let given = b.has(name);
    let copy = b.get(name, &of.size(), Init::Zeros)?;
    if !given {
        let _guard = no_grad();
        copy.shallow_clone().copy_(of);
    }
    Ok(copy)
}

impl Replaced {
    /// `b` is at the module's path.
    pub fn build(b: &ParamBuilder, layer: &Linear) -> Result<Self> {
        let rows = layer.rows();
        let weight = if layer.is_transposed() { rows.tr() } else { rows };
        Ok(Self {
            weight: copy(b, "weight", &weight)?,
            bias: layer.bias().map(|t| copy(b, "bias", t)).transpose()?,
            transposed: layer.is_transposed(),
        })
    }

    /// `b` is at the module's path.
    pub fn table(b: &ParamBuilder, table: &Embedding) -> Result<Self> {
        Ok(Self { weight: copy(b, "weight", table.weight())?, bias: None, transposed: false })
    }
}

impl LinearAdapter for Replaced {
    fn input(&self, _: &Tensor) -> Option<Tensor> {
        None
    }

    fn output(&self, _: &Linear, x: &Tensor, _: Tensor, _: Mode) -> Tensor {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        x.linear(&weight.to_kind(x.kind()), self.bias.as_ref().map(|b| b.to_kind(x.kind())).as_ref())
    }

    fn merged(&self, _: &Tensor, _: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
        let weight = if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() };
        (weight, self.bias.as_ref().map(Tensor::shallow_clone))
    }
}

impl EmbeddingAdapter for Replaced {
    fn output(&self, ids: &Tensor, _: Tensor, _: Mode) -> Tensor {
        Tensor::embedding(&self.weight, ids, -1, false, false)
    }

    fn merged(&self, _: &Tensor) -> Tensor {
        self.weight.shallow_clone()
    }
}
