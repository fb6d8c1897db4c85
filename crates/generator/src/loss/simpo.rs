//! Simple preference optimisation (Meng et al., 2024, arXiv 2405.14734): DPO's form on the mean log-probability per
//! token, with a target margin and no reference: -log sigmoid(beta (avg log p(chosen) - avg log p(rejected)) - gamma).

use super::preference::{
    Likelihood, LikelihoodScope, PreferenceBatch, PreferenceLoss, RowLosses, check_beta, check_smoothing,
};
use crate::error::{Result, bad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of SimPO. The paper has beta 2 to 2.5 and gamma / beta 0.3 to 0.6; the defaults are within.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SimPo {
    /// Beta: scale of the rewards.
    pub beta: f64,
    /// Gamma: target reward margin.
    pub gamma: f64,
    /// Label smoothing: assumed rate of flipped preferences, in [0, 0.5).
    pub label_smoothing: f64,
    /// Weight of the supervised loss on chosen completions (CPO-SimPO); 0: SimPO.
    pub cpo_alpha: f64,
}

impl Default for SimPo {
    fn default() -> Self {
        Self { beta: 2.0, gamma: 1.0, label_smoothing: 0.0, cpo_alpha: 0.0 }
    }
}

impl SimPo {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        check_smoothing(self.label_smoothing)?;
        if !(self.gamma >= 0.0 && self.gamma.is_finite()) {
            return Err(bad("loss.gamma", "must be 0 or more"));
        }
        if !(self.cpo_alpha >= 0.0 && self.cpo_alpha.is_finite()) {
            return Err(bad("loss.cpo_alpha", "must be 0 or more"));
        }
        Ok(self.clone())
    }
}

impl PreferenceLoss for SimPo {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        let (chosen, rejected) = batch.averages();
        let (m, e) = ((&chosen - &rejected) * self.beta - self.gamma, self.label_smoothing);
        let losses =
            if e == 0.0 { -m.log_sigmoid() } else { -m.log_sigmoid() * (1.0 - e) - (-&m).log_sigmoid() * e };
        Ok(RowLosses {
            losses,
            chosen_rewards: chosen.detach() * self.beta,
            rejected_rewards: rejected.detach() * self.beta,
        })
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn likelihood(&self) -> Option<Likelihood> {
        (self.cpo_alpha > 0.0)
            .then_some(Likelihood { weight: self.cpo_alpha, scope: LikelihoodScope::Completion })
    }
}
