//! Odds-ratio preference optimisation (Hong et al., 2024, arXiv 2403.07691): the likelihood of the chosen sequence plus
//! -beta log sigmoid(log odds(chosen) - log odds(rejected)), odds = p / (1 - p) of the mean log-probability per token.

use super::preference::{
    Likelihood, LikelihoodScope, PreferenceBatch, PreferenceLoss, RowLosses, check_beta,
};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of ORPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Orpo {
    /// Weight of the odds-ratio term (the paper's lambda).
    pub beta: f64,
    /// Whether the likelihood term covers the completion only. TRL and the paper's code include the prompt.
    pub completion_only: bool,
}

impl Default for Orpo {
    fn default() -> Self {
        Self { beta: 0.1, completion_only: false }
    }
}

impl Orpo {
    pub(super) fn check(&self) -> Result<Self> {
        check_beta(self.beta)?;
        Ok(self.clone())
    }
}

/// log(1 - e^x) for x <= 0, exact at both ends: by expm1 near 0, by log1p far from it. The branch not taken is fed a
/// harmless value, or its infinite derivative would make the gradient NaN.
fn log1mexp(x: &Tensor) -> Tensor {
    // At x = 0 the odds are infinite; a probability of 1 - 1e-7 is as sure as f32 can say.
    let x = x.clamp_max(-1e-7);
    let near = x.gt(-std::f64::consts::LN_2);
    let harmless = Tensor::full_like(&x, -std::f64::consts::LN_2);
    let by_expm1 = (-x.where_self(&near, &harmless).expm1()).log();
    let by_log1p = (-x.where_self(&near.logical_not(), &harmless).exp()).log1p();
    by_expm1.where_self(&near, &by_log1p)
}

impl PreferenceLoss for Orpo {
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses> {
        let (chosen, rejected) = batch.averages();
        let log_odds = (&chosen - &rejected) - (log1mexp(&chosen) - log1mexp(&rejected));
        Ok(RowLosses {
            losses: log_odds.log_sigmoid() * -self.beta,
            chosen_rewards: chosen.detach() * self.beta,
            rejected_rewards: rejected.detach() * self.beta,
        })
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn likelihood(&self) -> Option<Likelihood> {
        let scope = if self.completion_only {
            LikelihoodScope::Completion
        } else {
            LikelihoodScope::PromptAndCompletion
        };
        Some(Likelihood { weight: 1.0, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_torch::Kind;

    #[test]
    fn log1mexp_is_accurate_at_both_ends_and_its_gradient_finite() {
        let x = Tensor::from_slice(&[-1e-6f32, -0.5, -0.7, -30.0, 0.0]).set_requires_grad(true);
        let y = log1mexp(&x);
        y.sum(Kind::Float).backward();
        let y = Vec::<f32>::try_from(y.detach()).unwrap();
        for (v, x) in y.iter().zip([-1e-6f32, -0.5, -0.7, -30.0]) {
            let want = (-(f64::from(x).exp_m1())).ln();
            assert!((f64::from(*v) - want).abs() < 1e-6 * (1.0 + want.abs()), "{v} {want}");
        }
        assert!(y[4].is_finite());
        assert!(Vec::<f32>::try_from(x.grad()).unwrap().iter().all(|g| g.is_finite()));
    }
}
