//! The gated feed-forward of decoder-only models (Shazeer, 2020, arXiv 2002.05202): down(act(gate(x)) * up(x)).

use crate::{Activation, Linear, Mode, Result, kernels};
use ragduet_torch::{ParamBuilder, Tensor};

#[derive(Debug)]
pub(super) struct GatedMlp {
    /// Gate and up; or one for both.
    into: Vec<Linear>,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// Under the builder's path: `gate_proj`, `up_proj`, `down_proj`. `std` of new weights.
    pub fn build(
        b: &ParamBuilder,
        [hidden, inner]: [i64; 2],
        bias: bool,
        activation: Activation,
        std: f64,
    ) -> Result<Self> {
        let linear = |name: &str, inputs, outputs| Linear::build(&b.at(name), inputs, outputs, bias, std);
        Ok(Self {
            into: vec![linear("gate_proj", hidden, inner)?, linear("up_proj", hidden, inner)?],
            down: linear("down_proj", inner, hidden)?,
            activation,
        })
    }

    /// With one projection for both, `gate_up_proj`, and no biases.
    pub fn build_fused(
        b: &ParamBuilder,
        [hidden, inner]: [i64; 2],
        activation: Activation,
        std: f64,
    ) -> Result<Self> {
        let linear = |name: &str, inputs, outputs| Linear::build(&b.at(name), inputs, outputs, false, std);
        Ok(Self {
            into: vec![linear("gate_up_proj", hidden, 2 * inner)?],
            down: linear("down_proj", inner, hidden)?,
            activation,
        })
    }

    /// [rows, hidden] -> the same, compute dtype.
    pub fn forward(&self, x: &Tensor, m: Mode) -> Tensor {
        let up = Linear::forward_joined(&self.into.iter().collect::<Vec<_>>(), x, m);
        let gated = if self.activation == Activation::Silu {
            kernels::swiglu(&up)
        } else {
            let parts = up.chunk(2, -1);
            self.activation.apply(&parts[0]) * &parts[1]
        };
        self.down.forward(&gated, m)
    }
}
