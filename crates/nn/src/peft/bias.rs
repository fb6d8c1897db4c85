//! Biases that learn in layers that get no other update: `bias = "all"`.

use super::replaced::copy;
use super::slot::LinearAdapter;
use crate::{Linear, Mode, Result};
use ragduet_torch::{ParamBuilder, Tensor};

/// A bias in place of the layer's, [out].
#[derive(Debug)]
pub(crate) struct OwnBias(pub Tensor);

impl OwnBias {
    /// `b` is at the layer's path; `bias` the layer's own.
    pub fn build(b: &ParamBuilder, bias: &Tensor) -> Result<Self> {
        Ok(Self(copy(b, "bias", bias)?))
    }
}

impl LinearAdapter for OwnBias {
    fn input(&self, _: &Tensor) -> Option<Tensor> {
        None
    }

    fn output(&self, layer: &Linear, _: &Tensor, y: Tensor, _: Mode) -> Tensor {
        match layer.bias() {
            Some(of_base) => {
                let change = (&self.0 - of_base).to_kind(y.kind());
                y + change
            }
            None => y,
        }
    }

    fn merged(&self, rows: &Tensor, _: Option<&Tensor>) -> (Tensor, Option<Tensor>) {
        (rows.shallow_clone(), Some(self.0.shallow_clone()))
    }

    fn is_bias_alone(&self) -> bool {
        true
    }
}
