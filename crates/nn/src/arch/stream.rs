//! The residual stream of a pre-norm model, and the norms that continue it.

use crate::Mode;
use crate::layers::{LayerNorm, RmsNorm, lower};
use crate::peft::{BottleneckSlot, SubLayer};
use ragduet_torch::{Kind, ParamBuilder, Tensor};

/// The residual stream between two sub-layers: its value is `carry + dropout(pending)`. The sum is left to the next
/// norm, which makes it in the same pass over memory.
#[derive(Debug)]
pub(super) struct Stream {
    /// f32.
    pub carry: Tensor,
    /// Compute dtype.
    pub pending: Option<Tensor>,
}

impl Stream {
    /// Its value, f32.
    pub fn settled(&self, dropout: f64) -> Tensor {
        match &self.pending {
            None => self.carry.shallow_clone(),
            Some(x) => {
                let x = x.to_kind(Kind::Float);
                &self.carry + if dropout > 0.0 { x.dropout(dropout, true) } else { x }
            }
        }
    }

    /// The stream behind a sub-layer that gave `x` (compute dtype).
    pub fn behind(slot: &BottleneckSlot, carry: Tensor, x: Tensor, dropout: f64, m: Mode) -> Self {
        match slot.apply(&x, &carry, None, dropout, m) {
            // Its dropout is done: the next norm must not do it again.
            Some(y) => Self { carry: carry + y.to_kind(Kind::Float), pending: None },
            None => Self { carry, pending: Some(x) },
        }
    }
}

/// A norm of the stream.
#[derive(Debug)]
pub(super) enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    /// (carry + dropout(pending) in f32, its norm in the compute dtype).
    pub fn add_then_norm(&self, stream: &Stream, dropout: f64, m: Mode) -> (Tensor, Tensor) {
        match (&stream.pending, self) {
            (Some(x), Norm::Layer(n)) => n.add_then_norm(x, &stream.carry, dropout, m),
            (Some(x), Norm::Rms(n)) => n.add_then_norm(x, &stream.carry, dropout),
            (None, Norm::Layer(n)) => (stream.carry.shallow_clone(), lower(&n.forward(&stream.carry, m), m)),
            (None, Norm::Rms(n)) => (stream.carry.shallow_clone(), lower(&n.forward(&stream.carry), m)),
        }
    }

    /// The norm of f32 rows.
    pub fn forward(&self, x: &Tensor, m: Mode) -> Tensor {
        match self {
            Norm::Layer(n) => n.forward(x, m),
            Norm::Rms(n) => n.forward(x),
        }
    }
}

/// The places behind a layer's two sub-layers.
pub(super) fn behind(b: &ParamBuilder, hidden: i64) -> [BottleneckSlot; 2] {
    [("attention_adapters", SubLayer::Attention), ("output_adapters", SubLayer::FeedForward)]
        .map(|(name, sub)| BottleneckSlot::build(&b.at(name), hidden, sub))
}
