//! Direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290) and its relatives that differ in the
//! function of the same margin beta * D, D = (log p - log p_ref)(chosen) - (log p - log p_ref)(rejected).

use super::preference::{PreferenceBatch, PreferenceLoss, RowLosses, check_beta, check_smoothing};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// -(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// Beta: strength of the implicit KL constraint to the reference.
    pub beta: f64,
    /// Label smoothing: assumed rate of flipped preferences, in [0, 0.5) (conservative DPO: Mitchell, 2023).
    pub label_smoothing: f64,
}

/// [-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1 - 2e) (Chowdhury et al., 2024, arXiv 2403.00409).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Robust {
    /// Beta: strength of the implicit KL constraint to the reference.
    pub beta: f64,
    /// Rate of flipped preferences, in [0, 0.5).
    pub label_smoothing: f64,
}

/// max(0, 1 - beta D) (Liu et al., 2023, arXiv 2309.06657).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hinge {
    /// Beta: reciprocal of the margin.
    pub beta: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

impl Default for Robust {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.1 }
    }
}

impl Default for Hinge {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// Rows from a function of beta D; the rewards are beta times the log-ratios.
fn of_margin(batch: &PreferenceBatch<'_>, beta: f64, f: impl Fn(&Tensor) -> Tensor) -> Result<RowLosses> {
    let (chosen, rejected) = batch.log_ratios()?;
    Ok(RowLosses {
        losses: f(&((&chosen - &rejected) * beta)),
        chosen_rewards: chosen.detach() * beta,
        rejected_rewards: rejected.detach() * beta,
    })
}

impl Dpo {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        check_smoothing(self.label_smoothing)?;
        Ok(self.clone())
    }
}

impl PreferenceLoss for Dpo {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        let e = self.label_smoothing;
        of_margin(batch, self.beta, |m| {
            if e == 0.0 { -m.log_sigmoid() } else { -m.log_sigmoid() * (1.0 - e) - (-m).log_sigmoid() * e }
        })
    }

    fn needs_reference(&self) -> bool {
        true
    }
}

impl Robust {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        check_smoothing(self.label_smoothing)?;
        Ok(self.clone())
    }
}

impl PreferenceLoss for Robust {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        let e = self.label_smoothing;
        of_margin(batch, self.beta, |m| {
            ((-m).log_sigmoid() * e - m.log_sigmoid() * (1.0 - e)) / (1.0 - 2.0 * e)
        })
    }

    fn needs_reference(&self) -> bool {
        true
    }
}

impl Hinge {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        Ok(self.clone())
    }
}

impl PreferenceLoss for Hinge {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        of_margin(batch, self.beta, |m| (m.neg() + 1.0).relu())
    }

    fn needs_reference(&self) -> bool {
        true
    }
}
