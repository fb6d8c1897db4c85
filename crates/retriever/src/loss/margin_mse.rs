//! Margin-MSE (Hofstaetter et al., 2020, arXiv 2010.02666): the student's score margins between positive and
//! negatives follow the teacher's: mean (([s(q,p) - s(q,n)] - [t(q,p) - t(q,n)])^2).

use super::{LossBatch, Relations, RetrievalLoss, candidates, own_candidates, teacher};
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Margin-MSE; no settings. Scores are similarity / temperature; the paper uses dot products at temperature 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MarginMse {}

impl RetrievalLoss for MarginMse {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (columns, real) = candidates(b.relations, b.device());
        let scores = b.similarities().gather(1, &columns, false) * b.scale;
        let wanted = teacher(b.relations, &scores);
        let margin = |t: &Tensor| t.narrow(1, 0, 1) - t.narrow(1, 1, t.size()[1] - 1);
        let real = real.narrow(1, 1, real.size()[1] - 1).to_kind(scores.kind());
        let off = (margin(&scores) - margin(&wanted)).square() * &real;
        off.sum(scores.kind()) / real.sum(scores.kind()).clamp_min(1.0)
    }

    fn wanted(&self, relations: &Relations, passages: usize) -> Option<Vec<bool>> {
        Some(own_candidates(relations, passages))
    }

    fn takes_scored_pairs(&self) -> bool {
        true
    }

    fn needs_negatives(&self) -> bool {
        true
    }

    fn needs_teacher(&self) -> bool {
        true
    }
}
