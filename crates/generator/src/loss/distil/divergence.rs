//! Divergences between a teacher's distribution p and a student's q over the same tokens, with their gradients.

use crate::error::{Result, bad};
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Divergence between the teacher's distribution p and the student's q, softmax at temperature T.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// Forward KL, T^2 KL(p || q): mass-covering (Hinton et al., 2015, arXiv 1503.02531; DistilBERT, arXiv 1910.01108).
    /// T^2 keeps the gradients' scale as T rises.
    ForwardKl(KlConfig),
    /// Reverse KL, T^2 KL(q || p): mode-seeking (MiniLLM, arXiv 2306.08543, whose T is 1), per token of the data's
    /// answers.
    ReverseKl(KlConfig),
    /// Generalized Jensen-Shannon divergence, beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q
    /// (GKD, Agarwal et al., 2024, arXiv 2306.13649), as TRL 1.16's `generalized_jsd_loss`: KL(p || q) at beta = 0,
    /// KL(q || p) at 1, without T^2.
    GeneralizedJsd(JsdConfig),
}

/// Kullback-Leibler divergence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KlConfig {
    /// Temperature of both distributions, above 0.
    pub temperature: f64,
}

impl Default for KlConfig {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

/// Generalized Jensen-Shannon divergence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsdConfig {
    /// Mixture weight of the teacher, in [0, 1].
    pub beta: f64,
    /// Temperature of both distributions, above 0.
    pub temperature: f64,
}

impl Default for JsdConfig {
    fn default() -> Self {
        Self { beta: 0.5, temperature: 1.0 }
    }
}

impl Default for Divergence {
    fn default() -> Self {
        Self::ForwardKl(KlConfig::default())
    }
}

impl Divergence {
    /// What logits are divided by.
    pub fn temperature(self) -> f64 {
        match self {
            Self::ForwardKl(c) | Self::ReverseKl(c) => c.temperature,
            Self::GeneralizedJsd(c) => c.temperature,
        }
    }

    /// What [`Divergence::rows`] is multiplied by.
    pub fn factor(self) -> f64 {
        match self {
            Self::ForwardKl(c) | Self::ReverseKl(c) => c.temperature * c.temperature,
            Self::GeneralizedJsd(_) => 1.0,
        }
    }

    /// Checks the settings. `key`: where they stand.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for what is out of range.
    pub fn check(self, key: &str) -> Result<()> {
        if !(self.temperature() > 0.0 && self.temperature().is_finite()) {
            return Err(bad(&format!("{key}.temperature"), "must be above 0"));
        }
        match self {
            Self::GeneralizedJsd(c) if !(0.0..=1.0).contains(&c.beta) => {
                Err(bad(&format!("{key}.generalized_jsd.beta"), "must be in [0, 1]"))
            }
            _ => Ok(()),
        }
    }

    /// Row by row the divergence, [n], without [`Divergence::factor`], and its gradient at the logits (over T) that q is the
    /// softmax of, [n, m].
    ///
    /// `log_q`, `log_p`: log-probabilities of student and teacher, [n, m], each row a whole distribution.
    pub fn rows(self, log_q: &Tensor, log_p: &Tensor) -> (Tensor, Tensor) {
        match self {
            Self::GeneralizedJsd(c) if c.beta > 0.0 && c.beta < 1.0 => jensen_shannon(log_q, log_p, c.beta),
            Self::ReverseKl(_) => reverse(log_q, log_p),
            Self::GeneralizedJsd(c) if c.beta >= 1.0 => reverse(log_q, log_p),
            Self::ForwardKl(_) | Self::GeneralizedJsd(_) => forward(log_q, log_p),
        }
    }
}

/// The sum of each row of a product, as a column.
fn sums(weights: &Tensor, values: &Tensor) -> Tensor {
    (weights * values).sum_dim_intlist(-1, true, values.kind())
}

fn forward(log_q: &Tensor, log_p: &Tensor) -> (Tensor, Tensor) {
    let p = log_p.exp();
    let value = sums(&p, &(log_p - log_q)).squeeze_dim(-1);
    (value, log_q.exp().g_sub_(&p))
}

fn reverse(log_q: &Tensor, log_p: &Tensor) -> (Tensor, Tensor) {
    let q = log_q.exp();
    let mut apart = log_q - log_p;
    let value = sums(&q, &apart);
    let gradient = apart.g_sub_(&value).g_mul_(&q);
    (value.squeeze_dim(-1), gradient)
}

/// d/da of (1 - beta) q (log(q / m) - KL(q || m)) holds for the whole: what m owes to q cancels out.
fn jensen_shannon(log_q: &Tensor, log_p: &Tensor, beta: f64) -> (Tensor, Tensor) {
    let log_m = (log_p + beta.ln()).logaddexp(&(log_q + (1.0 - beta).ln()));
    let q = log_q.exp();
    let of_teacher = sums(&log_p.exp(), &(log_p - &log_m));
    let mut apart = log_q - log_m;
    let of_student = sums(&q, &apart);
    let gradient = apart.g_sub_(&of_student).g_mul_(&q).g_mul_scalar_(1.0 - beta);
    ((of_teacher * beta + of_student * (1.0 - beta)).squeeze_dim(-1), gradient)
}
