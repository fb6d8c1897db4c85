//! ListMLE (Xia et al., 2008): the Plackett-Luce likelihood of the candidates in the order of their labels; with weights by
//! place it is p-ListMLE (Lan et al., 2014). As sentence-transformers' `ListMLELoss` and `PListMLELoss` with
//! `respect_input_order = False`, but for lists of different lengths: there each place that is not filled counts as a
//! candidate of logit 0.

use super::{ABSENT, Candidates, RankingLoss};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// - sum over places i of w_i (s_i - log sum over j >= i of exp s_j), the mean over lists.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListMle {
    /// p-ListMLE: position weights 2^(n - i) - 1, normalized, so that the top ranks count more; false: equal weights.
    pub position_weights: bool,
}

impl RankingLoss for ListMle {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        let kind = c.scores.kind();
        let absent = c.real.logical_not();
        let (_, order) = c.labels.masked_fill(&absent, f64::NEG_INFINITY).sort_stable(true, -1, true);
        let scores = c.scores.masked_fill(&absent, ABSENT).gather(1, &order, false);
        let real = c.real.gather(1, &order, false);
        let behind = scores.flip([1]).logcumsumexp(1).flip([1]);
        let mut log_p = (scores - behind).masked_fill(&real.logical_not(), 0.0);
        if self.position_weights {
            let filled = real.to_kind(kind);
            let n = filled.sum_dim_intlist([-1i64].as_slice(), true, kind);
            let place = Tensor::arange(filled.size()[1], (Kind::Float, filled.device())).to_kind(kind);
            let weights = (((n - place) * std::f64::consts::LN_2).exp() - 1.0) * &filled;
            let all = weights.sum_dim_intlist([-1i64].as_slice(), true, kind).clamp_min(1e-10);
            log_p *= weights / all;
        }
        -log_p.sum(kind) / c.scores.size()[0].max(1) as f64
    }
}
