//! One vector a text: pooled token states, projected, of unit length where the model says so.

use super::{Pooling, Similarity};
use crate::loss::normalize;
use crate::tower::Tower;
use ragduet_nn::{Mode, PackedTokens};
use ragduet_torch::Tensor;

/// What makes a vector of token states.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseSettings {
    /// Token states to vector.
    pub pooling: Pooling,
    /// Whether a prompt's tokens count in mean pooling.
    pub include_prompt: bool,
    /// Whether vectors have unit length.
    pub normalize: bool,
    /// How vectors are compared.
    pub similarity: Similarity,
}

impl Default for DenseSettings {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, include_prompt: true, normalize: true, similarity: Similarity::Cosine }
    }
}

impl DenseSettings {
    /// [texts, dim]. The first `skip` tokens of each text are left out of the mean.
    pub(super) fn encode(&self, tower: &Tower, batch: &PackedTokens, skip: usize, mode: Mode) -> Tensor {
        let states = tower.states(batch, mode);
        let vectors = tower.project(self.pooling.apply(&states, &batch.segments, skip));
        if self.normalize { normalize(&vectors) } else { vectors }
    }

    /// Unit vectors under cosine.
    pub(super) fn comparable(&self, vectors: &Tensor) -> Tensor {
        if self.similarity == Similarity::Cosine && !self.normalize {
            normalize(vectors)
        } else {
            vectors.shallow_clone()
        }
    }
}
