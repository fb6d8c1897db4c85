//! (IA)^3: learned scales.

use super::slot::LinearAdapter;
use crate::{Linear, Mode, Result};
use ragduet_torch::{Init, ParamBuilder, Tensor};

/// Scales what goes into a layer, or what comes out of it.
#[derive(Debug)]
pub(super) struct Ia3 {
    /// [1, in] or [out, 1], as peft keeps it.
    scale: Tensor,
    feedforward: bool,
}

impl Ia3 {
    /// `b` is at the module's path.
    pub fn build(b: &ParamBuilder, layer: &Linear, feedforward: bool) -> Result<Self> {
        let size = layer.size();
        let shape = if feedforward { [1, size[1]] } else { [size[0], 1] };
        Ok(Self { scale: b.get("ia3_l", &shape, Init::Ones)?, feedforward })
    }
}

impl LinearAdapter for Ia3 {
    fn input(&self, x: &Tensor) -> Option<Tensor> {
        self.feedforward.then(|| x * self.scale.view(-1).to_kind(x.kind()))
    }

    fn output(&self, _: &Linear, _: &Tensor, y: Tensor, _: Mode) -> Tensor {
        if self.feedforward { y } else { &y * self.scale.view(-1).to_kind(y.kind()) }
    }

    fn merged(&self, rows: &Tensor, bias: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
        let scaled = |b: &Tensor| if self.feedforward { b.shallow_clone() } else { b * self.scale.view(-1) };
        (rows * &self.scale, bias.map(scaled))
    }
}
