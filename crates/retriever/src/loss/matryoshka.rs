//! Matryoshka representation learning (Kusupati et al., 2022, arXiv 2205.13147): another loss on the first d
//! components, for several d, so that embeddings can be cut afterwards.

use super::{Compared, LossBatch, LossConfig, RetrievalLoss, bad, normalize};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Matryoshka wrapper around another loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matryoshka {
    /// Embedding dimensions, each at most the model's.
    pub dims: Vec<i64>,
    /// Weight of each dimension; absent: 1. The loss is the weighted sum, as in sentence-transformers.
    #[serde(default)]
    pub weights: Vec<f64>,
    /// Whether truncated embeddings are normalized to unit length again (cosine models).
    #[serde(default = "yes")]
    pub normalize: bool,
    /// Loss at each dimension.
    pub inner: Box<LossConfig>,
}

fn yes() -> bool {
    true
}

impl Matryoshka {
    pub(super) fn build(&self) -> Result<Built> {
        if self.dims.is_empty() || self.dims.iter().any(|&d| d < 1) {
            return Err(bad("loss.matryoshka.dims", "give at least one size of 1 or more"));
        }
        if !self.weights.is_empty() && self.weights.len() != self.dims.len() {
            let why = format!("{} weights for {} dims", self.weights.len(), self.dims.len());
            return Err(bad("loss.matryoshka.weights", why));
        }
        if matches!(*self.inner, LossConfig::Matryoshka(_)) {
            return Err(bad("loss.matryoshka.inner", "cannot be another matryoshka"));
        }
        let weights = if self.weights.is_empty() { vec![1.0; self.dims.len()] } else { self.weights.clone() };
        let sizes = self.dims.iter().copied().zip(weights).collect();
        Ok(Built { sizes, normalize: self.normalize, inner: self.inner.build()? })
    }

    pub(super) fn check_dim(&self, dim: i64) -> Result<()> {
        match self.dims.iter().find(|&&d| d > dim) {
            Some(d) => Err(bad("loss.matryoshka.dims", format!("{d} exceeds the embedding size {dim}"))),
            None => self.inner.check_dim(dim),
        }
    }
}

#[derive(Debug)]
pub(super) struct Built {
    sizes: Vec<(i64, f64)>,
    normalize: bool,
    inner: Box<dyn RetrievalLoss>,
}

impl RetrievalLoss for Built {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let Compared::Vectors { queries, passages } = b.compared else {
            // The recipe asks `takes_similarities` before.
            panic!("a matryoshka loss cuts vectors; similarities cannot be cut");
        };
        let mut total = Tensor::zeros([], (queries.kind(), queries.device()));
        for &(dim, weight) in &self.sizes {
            let cut = |t: &Tensor| {
                let t = t.narrow(1, 0, dim);
                if self.normalize { normalize(&t) } else { t }
            };
            let (queries, passages) = (cut(queries), cut(passages));
            let compared = Compared::Vectors { queries: &queries, passages: &passages };
            let part = LossBatch { compared, ..*b };
            total = &total + self.inner.loss(&part) * weight;
        }
        total
    }

    fn takes_similarities(&self) -> bool {
        false
    }

    fn needs_negatives(&self) -> bool {
        self.inner.needs_negatives()
    }

    fn needs_teacher(&self) -> bool {
        self.inner.needs_teacher()
    }

    fn takes_scored_pairs(&self) -> bool {
        self.inner.takes_scored_pairs()
    }

    fn max_score(&self) -> Option<f64> {
        self.inner.max_score()
    }

    fn needs_teacher_vectors(&self) -> bool {
        self.inner.needs_teacher_vectors()
    }
}
