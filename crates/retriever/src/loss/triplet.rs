//! Triplet margin loss: max(0, margin - s(q, p) + s(q, n)), averaged over all (query, own negative) pairs; with
//! Euclidean distance max(0, margin + |q - p| - |q - n|), as FaceNet (Schroff et al., 2015) without the square.

use super::{Compared, LossBatch, Relations, RetrievalLoss, candidates, own_candidates};
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Triplet margin loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Triplet {
    /// Margin between the positive and the negative.
    pub margin: f64,
    /// Distance: negated similarity or Euclidean distance.
    pub distance: TripletDistance,
}

/// Distance of the triplet loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TripletDistance {
    /// Negated similarity (cosine or dot product) of the model.
    Similarity,
    /// Euclidean distance.
    Euclidean,
}

impl Default for Triplet {
    fn default() -> Self {
        Self { margin: 0.2, distance: TripletDistance::Similarity }
    }
}

impl RetrievalLoss for Triplet {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (columns, real) = candidates(b.relations, b.device());
        let far = match (self.distance, b.compared) {
            (TripletDistance::Euclidean, Compared::Vectors { queries, passages }) => {
                let own = passages.index_select(0, &columns.view(-1)).view([
                    columns.size()[0],
                    columns.size()[1],
                    passages.size()[1],
                ]);
                let gap = (queries.unsqueeze(1) - own).square();
                // The small constant keeps the root differentiable at 0.
                (gap.sum_dim_intlist([2i64].as_slice(), false, gap.kind()) + 1e-12).sqrt()
            }
            _ => -b.similarities().gather(1, &columns, false),
        };
        let hinge = (far.narrow(1, 0, 1) - far.narrow(1, 1, far.size()[1] - 1) + self.margin).relu();
        let real = real.narrow(1, 1, real.size()[1] - 1).to_kind(hinge.kind());
        let kind = real.kind();
        (hinge * &real).sum(kind) / real.sum(kind).clamp_min(1.0)
    }

    fn takes_similarities(&self) -> bool {
        self.distance == TripletDistance::Similarity
    }

    fn wanted(&self, relations: &Relations, passages: usize) -> Option<Vec<bool>> {
        Some(own_candidates(relations, passages))
    }

    fn needs_negatives(&self) -> bool {
        true
    }

    fn needs_teacher(&self) -> bool {
        false
    }
}
