//! Binary cross-entropy with logits over all pairs, as sentence-transformers' `BinaryCrossEntropyLoss`.

use super::{Candidates, RankingLoss, positive};
use crate::Result;
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// -w y log sigmoid(s) - (1 - y) log sigmoid(-s), the mean over pairs. Labels in [0, 1], a teacher's probabilities too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bce {
    /// Weight w of positives; the number of negatives per positive balances the classes.
    pub pos_weight: f64,
}

impl Default for Bce {
    fn default() -> Self {
        Self { pos_weight: 1.0 }
    }
}

impl Bce {
    pub(super) fn check(&self) -> Result<Self> {
        positive("loss.bce.pos_weight", self.pos_weight)?;
        Ok(self.clone())
    }
}

impl RankingLoss for Bce {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        let kind = c.scores.kind();
        let (y, real) = (c.labels, c.real.to_kind(kind));
        let each = y * c.scores.log_sigmoid() * -self.pos_weight - (1.0 - y) * (-c.scores).log_sigmoid();
        let each: Tensor = each * &real;
        each.sum(kind) / real.sum(Kind::Float).clamp_min(1.0)
    }
}
