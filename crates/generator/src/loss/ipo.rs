//! Identity preference optimisation (Azar et al., 2023, arXiv 2310.12036): (D - 1 / (2 beta))^2 with D the difference of
//! the log-ratios per completion token, as TRL has it with the authors' confirmation. Summed log-ratios would make the
//! target depend on the length.

use super::preference::{PreferenceBatch, PreferenceLoss, RowLosses, check_beta, per_token};
use crate::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of IPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ipo {
    /// Beta (the paper's tau): the target margin per token is 1 / (2 beta).
    pub beta: f64,
}

impl Default for Ipo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Ipo {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        Ok(self.clone())
    }
}

impl PreferenceLoss for Ipo {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        let (chosen, rejected) = batch.log_ratios()?;
        let margin = per_token(&chosen, batch.chosen_tokens) - per_token(&rejected, batch.rejected_tokens);
        Ok(RowLosses {
            losses: (margin - 0.5 / self.beta).square(),
            chosen_rewards: chosen.detach() * self.beta,
            rejected_rewards: rejected.detach() * self.beta,
        })
    }

    fn needs_reference(&self) -> bool {
        true
    }
}
