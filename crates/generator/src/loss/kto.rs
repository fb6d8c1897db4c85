//! Kahneman-Tversky optimisation (Ethayarajh et al., 2024, arXiv 2402.01306), the batch form: a completion is desirable
//! or not, and is judged against z, the batch's estimate of KL(policy || reference) from mismatched completions.
//! Desirable: w_d (1 - sigmoid(beta (r - z))); undesirable: w_u (1 - sigmoid(beta (z - r))); r = log p - log p_ref,
//! z = max(0, mean r of the mismatched ones), without gradient.

use super::preference::{PreferenceBatch, PreferenceLoss, RowLosses, check_beta};
use crate::error::{Error, Result, bad};
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of KTO. The paper wants (w_d * desirable examples) / (w_u * undesirable ones) in [1, 4/3].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kto {
    /// Beta: strength of the implicit KL constraint to the reference.
    pub beta: f64,
    /// Weight of desirable (chosen) completions.
    pub desirable_weight: f64,
    /// Weight of undesirable (rejected) completions.
    pub undesirable_weight: f64,
}

impl Default for Kto {
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

impl Kto {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        for (key, w) in [
            ("loss.desirable_weight", self.desirable_weight),
            ("loss.undesirable_weight", self.undesirable_weight),
        ] {
            if !(w >= 0.0 && w.is_finite()) {
                return Err(bad(key, "must be 0 or more"));
            }
        }
        Ok(self.clone())
    }
}

impl PreferenceLoss for Kto {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        let (chosen, rejected) = batch.log_ratios()?;
        let Some(mismatched) = batch.mismatched.filter(|m| m.numel() > 0) else {
            return Err(Error::Unusable("KTO needs mismatched completions: batches of two or more".into()));
        };
        let z = mismatched.detach().mean(chosen.kind()).clamp_min(0.0);
        // 1 - sigmoid(x) is sigmoid(-x).
        let desirable = ((&z - &chosen) * self.beta).sigmoid() * self.desirable_weight;
        let undesirable = ((&rejected - &z) * self.beta).sigmoid() * self.undesirable_weight;
        Ok(RowLosses {
            losses: Tensor::cat(&[desirable, undesirable], 0),
            chosen_rewards: chosen.detach() * self.beta,
            rejected_rewards: rejected.detach() * self.beta,
        })
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn needs_mismatched(&self) -> bool {
        true
    }

    fn paired(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_one_sort_alone_has_finite_losses() {
        let (some, none) = (Tensor::from_slice(&[-3.0f32, -4.0]), Tensor::from_slice(&[0f32; 0]));
        let ratios = Tensor::from_slice(&[-1.0f32]);
        let tokens = Tensor::from_slice(&[3i64, 4]);
        let batch = PreferenceBatch {
            chosen: &some,
            rejected: &none,
            chosen_tokens: &tokens,
            rejected_tokens: &none,
            reference: Some(super::super::Reference { chosen: &some, rejected: &none }),
            mismatched: Some(&ratios),
        };
        let rows = Kto::default().rows(&batch).unwrap();
        // r = z = 0 (the mean is below 0), so every loss is a half.
        assert_eq!(Vec::<f32>::try_from(&rows.losses).unwrap(), [0.5, 0.5]);
        let m = rows.metrics(false).unwrap();
        assert_eq!((m.chosen, m.rejected, m.accuracy), (0.0, 0.0, None));
        assert!(Kto::default().rows(&PreferenceBatch { mismatched: None, ..batch }).is_err());
    }
}
