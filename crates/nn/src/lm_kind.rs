//! The kinds of language models, and what they have in common.

use crate::{CausalLm, LmHead, Mode, Seq2SeqLm};
use ragduet_torch::Tensor;

/// The kinds of language models.
#[derive(Debug)]
pub enum LmKind {
    /// Decoder-only.
    Causal(Box<dyn CausalLm>),
    /// An encoder for the prompt and a decoder for the answer.
    Seq2Seq(Box<dyn Seq2SeqLm>),
}

impl LmKind {
    /// The output projection.
    pub fn head(&self, mode: Mode) -> LmHead {
        match self {
            Self::Causal(lm) => lm.head(mode),
            Self::Seq2Seq(lm) => lm.head(mode),
        }
    }

    /// Logits of rows of hidden states: [rows, hidden] -> [rows, vocab], f32.
    pub fn logits(&self, hidden: &Tensor, mode: Mode) -> Tensor {
        match self {
            Self::Causal(lm) => lm.logits(hidden, mode),
            Self::Seq2Seq(lm) => lm.logits(hidden, mode),
        }
    }

    /// Rows of the token embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Causal(lm) => lm.vocab_size(),
            Self::Seq2Seq(lm) => lm.vocab_size(),
        }
    }

    /// The longest text that can be computed, where there is one.
    pub fn max_tokens(&self) -> Option<usize> {
        match self {
            Self::Causal(lm) => lm.max_tokens(),
            Self::Seq2Seq(lm) => lm.max_tokens(),
        }
    }

    /// Number of transformer layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Causal(lm) => lm.layers(),
            Self::Seq2Seq(lm) => lm.layers(),
        }
    }

    /// For layer-wise learning rates and freezing: 0 for embeddings, 1.. for layers, None for the rest.
    pub fn depth_of(&self, parameter: &str) -> Option<usize> {
        match self {
            Self::Causal(lm) => lm.depth_of(parameter),
            Self::Seq2Seq(lm) => lm.depth_of(parameter),
        }
    }

    /// Replaces the config's dropout: in the hidden layers (and on embeddings), and on attention probabilities.
    pub fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        match self {
            Self::Causal(lm) => lm.set_dropout(hidden, attention),
            Self::Seq2Seq(lm) => lm.set_dropout(hidden, attention),
        }
    }
}
