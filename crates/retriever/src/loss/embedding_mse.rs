//! A larger bi-encoder's vectors, learned by mean squared error (as sentence-transformers' `MSELoss`; Kim et al., 2023,
//! EmbedDistill, arXiv 2301.12005, for queries and passages): mean over all numbers of (student - teacher)^2.

use super::{Compared, LossBatch, RetrievalLoss};
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Embedding distillation; no settings. The student's embedding dimension must be the teacher's (`model.projection`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingMse {}

impl RetrievalLoss for EmbeddingMse {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (Compared::Vectors { queries, passages }, Some((q, p))) = (b.compared, b.teacher) else {
            // The recipe asks `takes_similarities` and `needs_teacher_vectors` before.
            panic!("embedding distillation compares vectors with a teacher's");
        };
        let kind = queries.kind();
        let ours = Tensor::cat(&[queries, passages], 0);
        let theirs = Tensor::cat(&[q, p], 0).to_kind(kind);
        (ours - theirs).square().mean(kind)
    }

    fn takes_similarities(&self) -> bool {
        false
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
