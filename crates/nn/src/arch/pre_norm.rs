//! A layer with norms before attention and feed-forward: Llama's, Phi-3's, and with something behind both Granite's and
//! Gemma's.

use super::attention::Attention;
use super::gated_mlp::GatedMlp;
use super::pass::{Block, Pass};
use super::stream::{Norm, Stream};
use crate::RmsNorm;
use crate::peft::BottleneckSlot;
use ragduet_torch::Tensor;

/// What becomes of a part's output before it is added.
#[derive(Debug)]
pub(super) enum After {
    /// Nothing.
    Added,
    /// It is multiplied (Granite).
    Scaled(f64),
    /// It is normed (Gemma 2 and 3).
    Normed(RmsNorm),
}

impl After {
    fn apply(&self, x: Tensor) -> Tensor {
        match self {
            Self::Added => x,
            Self::Scaled(by) => x * *by,
            Self::Normed(norm) => norm.forward(&x),
        }
    }
}

#[derive(Debug)]
pub(super) struct PreNorm {
    pub attention_norm: Norm,
    pub attention: Attention,
    pub after_attention: After,
    pub mlp_norm: Norm,
    pub mlp: GatedMlp,
    pub after_mlp: After,
    pub bottlenecks: [BottleneckSlot; 2],
}

impl Block for PreNorm {
    fn forward(&self, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream {
        let (carry, x) = self.attention_norm.add_then_norm(&stream, pass.hidden_dropout, pass.mode);
        let x = self.after_attention.apply(self.attention.forward(index, &x, pass));
        let stream = pass.behind(&self.bottlenecks[0], carry, x);
        let (carry, x) = self.mlp_norm.add_then_norm(&stream, pass.hidden_dropout, pass.mode);
        let x = self.after_mlp.apply(self.mlp.forward(&x, pass.mode));
        pass.behind(&self.bottlenecks[1], carry, x)
    }
}
