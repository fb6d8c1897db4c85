//! A larger bi-encoder's distribution over all passages of the batch, for each query: KL(softmax(t / T) || softmax(s)),
//! averaged over queries; t = teacher's similarity, s = scale * student's. Sizes of the vectors may differ, and no list
//! of candidates is needed (in-batch distillation: Lin et al., 2021, arXiv 2010.11386, with the teacher's vectors).

use super::{LossBatch, RetrievalLoss, bad};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In-batch KL distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchKl {
    /// Teacher temperature T: the teacher's similarities are divided by it.
    pub teacher_temperature: f64,
}

impl Default for BatchKl {
    fn default() -> Self {
        Self { teacher_temperature: 0.05 }
    }
}

impl BatchKl {
    pub(super) fn check(&self) -> Result<Self> {
        if self.teacher_temperature > 0.0 {
            Ok(self.clone())
        } else {
            Err(bad("loss.batch_kl.teacher_temperature", "must be above 0"))
        }
    }
}

impl RetrievalLoss for BatchKl {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let Some((q, p)) = b.teacher else {
            // The recipe asks `needs_teacher_vectors` before.
            panic!("in-batch distillation needs a teacher's vectors");
        };
        let scores = b.similarities() * b.scale;
        let kind = scores.kind();
        let theirs = q.matmul(&p.transpose(0, 1)).to_kind(kind) / self.teacher_temperature;
        let (wanted, ours) = (theirs.log_softmax(1, kind), scores.log_softmax(1, kind));
        (wanted.exp() * (wanted - ours)).sum_dim_intlist([1i64].as_slice(), false, kind).mean(kind)
    }

    fn needs_negatives(&self) -> bool {
        false
    }

    fn needs_teacher(&self) -> bool {
        false
    }

    fn needs_teacher_vectors(&self) -> bool {
        true
    }
}
