//! Margin-MSE (Hofstaetter et al., 2020, arXiv 2010.02666) for a cross-encoder that learns from another.

use super::{Candidates, RankingLoss};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ([s(positive) - s(negative)] - [t(positive) - t(negative)])^2, the mean over negatives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MarginMse {}

impl RankingLoss for MarginMse {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        let width = c.scores.size()[1];
        let margin = |t: &Tensor| t.narrow(1, 0, 1) - t.narrow(1, 1, width - 1);
        let real = c.real.narrow(1, 1, width - 1);
        let off = (margin(c.scores) - margin(c.labels)).square().masked_fill(&real.logical_not(), 0.0);
        off.sum(c.scores.kind()) / real.to_kind(Kind::Float).sum(Kind::Float).clamp_min(1.0)
    }

    fn needs_teacher(&self) -> bool {
        true
    }
}
