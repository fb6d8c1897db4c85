//! Distillation of a teacher's distribution over a query's own candidates:
//! T^2 * KL(softmax(t / T) || softmax(s / T)), averaged over queries; s = scale * similarity. The
//! teacher may have a temperature of its own.

use super::{LossBatch, Relations, RetrievalLoss, bad, candidates, own_candidates, teacher};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// KL distillation over a query's own candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KlDistillation {
    /// Temperature T of the student's scores, and of the teacher's unless `teacher_temperature` is set.
    pub temperature: f64,
    /// Temperature of the teacher's scores (1 / ColBERTv2's alpha); absent: `temperature`.
    pub teacher_temperature: Option<f64>,
    /// Min-max normalization of each query's scores before the softmax, as PyLate's `normalize_scores`.
    pub normalize: bool,
}

impl Default for KlDistillation {
    fn default() -> Self {
        Self { temperature: 1.0, teacher_temperature: None, normalize: false }
    }
}

impl KlDistillation {
    pub(super) fn check(&self) -> Result<Self> {
        if self.temperature > 0.0 && self.teacher_temperature.is_none_or(|t| t > 0.0) {
            Ok(self.clone())
        } else {
            Err(bad("loss.kl.temperature", "temperatures must be above 0"))
        }
    }
}

/// (s - min) / (max - min) over each row's real candidates.
fn min_max(scores: &Tensor, absent: &Tensor) -> Tensor {
    let most = scores.masked_fill(absent, f64::NEG_INFINITY).amax([1i64].as_slice(), true);
    let least = scores.masked_fill(absent, f64::INFINITY).amin([1i64].as_slice(), true);
    (scores - &least) / (most - &least + 1e-8)
}

impl RetrievalLoss for KlDistillation {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (columns, real) = candidates(b.relations, b.device());
        let absent = real.logical_not();
        let mut scores = b.similarities().gather(1, &columns, false);
        if self.normalize {
            scores = min_max(&scores, &absent);
        }
        let scores = scores * b.scale;
        let log = |t: &Tensor, by: f64| {
            (t / by).masked_fill(&absent, f64::NEG_INFINITY).log_softmax(1, scores.kind())
        };
        let student = log(&scores, self.temperature);
        let wanted =
            log(&teacher(b.relations, &scores), self.teacher_temperature.unwrap_or(self.temperature));
        // Absent candidates have log-probability -inf on both sides: they contribute nothing, not NaN.
        let gap = (&wanted - &student).masked_fill(&absent, 0.0);
        let kl = (wanted.exp() * gap).sum_dim_intlist([1i64].as_slice(), false, scores.kind());
        kl.mean(scores.kind()) * self.temperature.powi(2)
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
