//! Bottleneck adapters: Houlsby et al., 2019 (arXiv 1902.00751), Pfeiffer et al., 2020 (arXiv 2005.00247), parallel ones
//! (He et al., 2021, arXiv 2110.04366). Placement and names as AdapterHub's `adapters` 1.3 has them.
//!
//! With s what a sub-layer gives and r the residual, s becomes s + a Up(f(Down(x))), where x is s (Houlsby), the norm of
//! s + r (Pfeiffer; the bare sum in pre-norm models), or r (parallel).

use super::config::{BottleneckConfig, BottleneckKind};
use super::slot::Slot;
use crate::layers::lower;
use crate::{Activation, LayerNorm, Mode, Result};
use ragduet_torch::{Init, Kind, ParamBuilder, Tensor};
use std::rc::Rc;

/// The sub-layers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubLayer {
    Attention,
    FeedForward,
}

/// The place behind a sub-layer. A clone is the same place.
#[derive(Debug, Clone)]
pub(crate) struct BottleneckSlot {
    pub hidden: i64,
    pub behind: SubLayer,
    slot: Rc<Slot<Bottleneck>>,
}

impl BottleneckSlot {
    /// A slot at the builder's path.
    pub fn build(b: &ParamBuilder, hidden: i64, behind: SubLayer) -> Self {
        let slot = Self { hidden, behind, slot: Rc::default() };
        b.attach(slot.clone());
        slot
    }

    pub(super) fn slot(&self) -> &Slot<Bottleneck> {
        &self.slot
    }

    /// What the sub-layer's result `s` (compute dtype) becomes, after its dropout; `None` without an adapter in this
    /// pass. `residual` in f32, `norm` that of a post-norm block.
    pub fn apply(
        &self,
        s: &Tensor,
        residual: &Tensor,
        norm: Option<&LayerNorm>,
        dropout: f64,
        m: Mode,
    ) -> Option<Tensor> {
        let adapter = self.slot.get(m.adapter)?;
        let s = if dropout > 0.0 { s.dropout(dropout, true) } else { s.shallow_clone() };
        let x = match adapter.kind {
            BottleneckKind::Houlsby => s.shallow_clone(),
            BottleneckKind::Parallel => lower(residual, m),
            BottleneckKind::Pfeiffer => {
                let sum = s.to_kind(Kind::Float) + residual;
                lower(&norm.map_or(sum.shallow_clone(), |n| n.forward(&sum, m)), m)
            }
        };
        Some(s + adapter.change(&x))
    }
}

/// Down, activation, up.
#[derive(Debug)]
pub(super) struct Bottleneck {
    down: (Tensor, Tensor),
    up: (Tensor, Tensor),
    kind: BottleneckKind,
    activation: Activation,
    scaling: f64,
}

/// The name under which adapters stand in parameter names (AdapterHub has it there).
pub(super) const NAME: &str = "ragduet";

impl Bottleneck {
    /// `b` is at the slot's path; `reduction` that of the layer.
    pub fn build(b: &ParamBuilder, hidden: i64, reduction: f64, c: &BottleneckConfig) -> Result<Self> {
        let inner = ((hidden as f64 / reduction) as i64).max(1);
        let at = b.at("adapters").at(NAME);
        // The starts of `adapters`: "mam_adapter" for parallel ones, which change nothing at first, else "bert".
        let (first, last) = if c.kind == BottleneckKind::Parallel {
            (Init::Uniform((hidden as f64).powf(-0.5)), Init::Zeros)
        } else {
            (Init::Normal(0.02), Init::Normal(0.02))
        };
        let linear = |b: &ParamBuilder, inputs: i64, outputs: i64, start| -> Result<_> {
            Ok((b.get("weight", &[outputs, inputs], start)?, b.get("bias", &[outputs], Init::Zeros)?))
        };
        Ok(Self {
            down: linear(&at.at("adapter_down").at(0), hidden, inner, first)?,
            up: linear(&at.at("adapter_up"), inner, hidden, last)?,
            kind: c.kind,
            activation: c.activation(),
            scaling: c.scaling(),
        })
    }

    fn change(&self, x: &Tensor) -> Tensor {
        let linear = |x: &Tensor, (w, b): &(Tensor, Tensor)| {
            x.linear(&w.to_kind(x.kind()), Some(&b.to_kind(x.kind())))
        };
        let up = linear(&self.activation.apply(&linear(x, &self.down)), &self.up);
        if self.scaling == 1.0 { up } else { up * self.scaling }
    }
}
