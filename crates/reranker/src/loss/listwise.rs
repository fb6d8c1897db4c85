//! Cross-entropy over a list: towards the positive (localized contrastive estimation, Gao et al., 2021, arXiv 2101.08751),
//! or towards the labels' softmax (ListNet, Cao et al., 2007; sentence-transformers' `ListNetLoss`).

use super::{ABSENT, Candidates, RankingLoss, positive};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// -log softmax(s / T) of the candidates with a label above 0, each counting by its label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Softmax {
    /// Temperature T: scores are divided by it.
    pub temperature: f64,
}

/// - sum softmax(y) log softmax(s).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListNet {}

impl Default for Softmax {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

impl Softmax {
    pub(super) fn check(&self) -> Result<Self> {
        positive("loss.softmax.temperature", self.temperature)?;
        Ok(self.clone())
    }
}

fn log_softmax(x: &Tensor, real: &Tensor) -> Tensor {
    x.masked_fill(&real.logical_not(), ABSENT).log_softmax(-1, x.kind())
}

/// Mean over lists of - sum of target * log p.
fn towards(target: &Tensor, log_p: &Tensor, real: &Tensor) -> Tensor {
    let each = (target * log_p).masked_fill(&real.logical_not(), 0.0);
    -each.sum(log_p.kind()) / log_p.size()[0].max(1) as f64
}

impl RankingLoss for Softmax {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        let kind = c.scores.kind();
        let gains = c.labels.clamp_min(0.0).masked_fill(&c.real.logical_not(), 0.0);
        let all = gains.sum_dim_intlist([-1i64].as_slice(), true, kind).clamp_min(1e-12);
        towards(&(gains / all), &log_softmax(&(c.scores / self.temperature), c.real), c.real)
    }
}

impl RankingLoss for ListNet {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        let target = log_softmax(c.labels, c.real).exp();
        towards(&target, &log_softmax(c.scores, c.real), c.real)
    }
}
