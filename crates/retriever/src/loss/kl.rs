//! Distillation of a teacher's distribution over a query's own candidates:
//! T^2 * KL(softmax(t / T) || softmax(s / T)), averaged over queries; s = scale * similarity.

use super::{LossBatch, RetrievalLoss, bad, candidates, teacher};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of KL distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KlDistillation {
    /// T: divides both the teacher's and the student's scores.
    pub temperature: f64,
}

impl Default for KlDistillation {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

impl KlDistillation {
    pub(super) fn check(&self) -> Result<Self> {
        if self.temperature > 0.0 {
            Ok(self.clone())
        } else {
            Err(bad("loss.kl.temperature", "must be above 0"))
        }
    }
}

impl RetrievalLoss for KlDistillation {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (columns, real) = candidates(b.relations, b.queries.device());
        let absent = real.logical_not();
        let scores = b.queries.matmul(&b.passages.transpose(0, 1)).gather(1, &columns, false) * b.scale;
        let log = |t: &Tensor| {
            (t / self.temperature).masked_fill(&absent, f64::NEG_INFINITY).log_softmax(1, scores.kind())
        };
        let (student, wanted) = (log(&scores), log(&teacher(b.relations, &scores)));
        // Absent candidates have log-probability -inf on both sides: they contribute nothing, not NaN.
        let gap = (&wanted - &student).masked_fill(&absent, 0.0);
        let kl = (wanted.exp() * gap).sum_dim_intlist([1i64].as_slice(), false, scores.kind());
        kl.mean(scores.kind()) * self.temperature.powi(2)
    }

    fn needs_negatives(&self) -> bool {
        true
    }

    fn needs_teacher(&self) -> bool {
        true
    }
}
