//! FLOPS regularisation of sparse vectors (Paria et al., 2020, arXiv 2004.05665): the expected number of products that a
//! search costs, so that few words weigh anything. As sentence-transformers' `FlopsLoss` within its `SpladeLoss`.

use super::{Compared, LossBatch, RetrievalLoss, bad};
use crate::Result;
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// FLOPS regularization: a term of a [`Sum`](super::Sum) beside the main loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Flops {
    /// Weight of the regularization of queries.
    pub queries: f64,
    /// Weight of the regularization of passages.
    pub passages: f64,
    /// Warm-up as a share of training: both weights rise quadratically from 0; 0: no warm-up.
    pub warmup: f64,
    /// Texts with at most this many non-zero weights are not regularized; absent: all are.
    pub threshold: Option<u64>,
}

impl Default for Flops {
    fn default() -> Self {
        Self { queries: 5e-5, passages: 3e-5, warmup: 1.0 / 3.0, threshold: None }
    }
}

impl Flops {
    pub(super) fn check(&self) -> Result<Self> {
        let fine = |v: f64| v.is_finite() && v >= 0.0;
        if !fine(self.queries) || !fine(self.passages) {
            return Err(bad("loss.flops", "queries and passages must be at least 0"));
        }
        if !(0.0..=1.0).contains(&self.warmup) {
            return Err(bad("loss.flops.warmup", "must lie between 0 and 1: a share of training"));
        }
        Ok(self.clone())
    }

    /// Σ over words of (mean weight over texts)².
    fn of(&self, weights: &Tensor) -> Tensor {
        let counted = match self.threshold {
            None => weights.shallow_clone(),
            Some(least) => {
                let active = weights.ne(0.0).sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
                weights * active.gt(least as i64).to_kind(weights.kind())
            }
        };
        counted.mean_dim([0i64].as_slice(), false, weights.kind()).square().sum(weights.kind())
    }
}

impl RetrievalLoss for Flops {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let Compared::Vectors { queries, passages } = b.compared else {
            return Tensor::zeros([], (Kind::Float, b.device()));
        };
        let grown = if self.warmup == 0.0 { 1.0 } else { (b.progress / self.warmup).min(1.0).powi(2) };
        self.of(queries) * (self.queries * grown) + self.of(passages) * (self.passages * grown)
    }

    fn takes_similarities(&self) -> bool {
        false
    }

    fn takes_scored_pairs(&self) -> bool {
        true
    }

    fn needs_negatives(&self) -> bool {
        false
    }

    fn needs_teacher(&self) -> bool {
        false
    }
}
