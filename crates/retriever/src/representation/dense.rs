//! One vector a text: pooled token states, through the modules that follow, of unit length where the model says so.

use super::{Pooling, Similarity};
use crate::loss::normalize;
use crate::tower::Tower;
use ragduet_nn::{Mode, PackedTokens};
use ragduet_torch::Tensor;

/// What makes a vector of token states.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseSettings {
    /// Token states to vector; of several poolings the vectors stand one behind the other.
    pub pooling: Vec<Pooling>,
    /// Whether a prompt's tokens count in pooling, but for the first and the last token.
    pub include_prompt: bool,
    /// Whether vectors have unit length.
    pub normalize: bool,
    /// How vectors are compared.
    pub similarity: Similarity,
    /// How many leading numbers of a vector are kept (Matryoshka models), as sentence-transformers' `truncate_dim`: behind
    /// everything else, without scaling to unit length again. In training vectors are whole.
    pub truncate: Option<i64>,
}

impl Default for DenseSettings {
    fn default() -> Self {
        Self {
            pooling: vec![Pooling::Mean],
            include_prompt: true,
            normalize: true,
            similarity: Similarity::Cosine,
            truncate: None,
        }
    }
}

impl DenseSettings {
    /// [texts, dim]. The first `skip` tokens of each text are left out of the mean.
    pub(super) fn encode(&self, tower: &Tower, batch: &PackedTokens, skip: usize, mode: Mode) -> Tensor {
        let states = tower.states(batch, mode);
        let pooled: Vec<Tensor> =
            self.pooling.iter().map(|p| p.apply(&states, &batch.segments, skip)).collect();
        let pooled = if pooled.len() == 1 { pooled[0].shallow_clone() } else { Tensor::cat(&pooled, 1) };
        let vectors = tower.project(pooled);
        let vectors = if self.normalize { normalize(&vectors) } else { vectors };
        match self.truncate {
            Some(_) if !mode.train => vectors.narrow(1, 0, self.kept(vectors.size()[1])),
            _ => vectors,
        }
    }

    /// How many numbers of a vector are kept.
    pub(super) fn kept(&self, whole: i64) -> i64 {
        self.truncate.map_or(whole, |n| n.min(whole))
    }

    /// Unit vectors under cosine.
    pub(super) fn comparable(&self, vectors: &Tensor) -> Tensor {
        if self.similarity == Similarity::Cosine && (!self.normalize || self.truncate.is_some()) {
            normalize(vectors)
        } else {
            vectors.shallow_clone()
        }
    }
}
