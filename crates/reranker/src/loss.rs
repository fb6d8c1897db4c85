//! Losses over lists of candidates: a file each, a variant each. All of them see the same thing, a [`Candidates`]: scores,
//! labels and which of them are real, ragged lists being the normal case. Labels are gains (1 for the passage that
//! answers, 0 for the others) or a teacher's scores.

mod bce;
mod lambda;
mod list_mle;
mod listwise;
mod margin_mse;

pub use bce::Bce;
pub use lambda::{Lambda, RankNet, Scheme};
pub use list_mle::ListMle;
pub use listwise::{ListNet, Softmax};
pub use margin_mse::MarginMse;

use crate::error::bad;
use crate::{Activation, Result};
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a loss is computed from.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a> {
    /// Logits [questions, candidates], f32; the first is the positive's.
    pub scores: &'a Tensor,
    /// Gains or a teacher's scores, likewise.
    pub labels: &'a Tensor,
    /// bool, likewise: false where a list is shorter.
    pub real: &'a Tensor,
}

/// A loss over one batch of lists.
pub trait RankingLoss: std::fmt::Debug {
    /// The mean loss, a scalar.
    fn loss(&self, c: &Candidates<'_>) -> Tensor;

    /// Whether labels are a teacher's scores.
    fn needs_teacher(&self) -> bool {
        false
    }
}

/// Ranking loss and its settings, written as `[loss.bce]`, `[loss.softmax]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RankingLossConfig {
    /// Binary cross-entropy of each pair (pointwise).
    Bce(Bce),
    /// Softmax cross-entropy of the positive among its candidates (LCE, listwise).
    Softmax(Softmax),
    /// ListNet: cross-entropy between the softmax of the labels and of the scores.
    ListNet(ListNet),
    /// Margin-MSE: mean squared error to a teacher's score margins.
    MarginMse(MarginMse),
    /// RankNet: pairwise logistic loss.
    RankNet(RankNet),
    /// ListMLE: Plackett-Luce likelihood of the label order.
    ListMle(ListMle),
    /// LambdaLoss: pairwise logistic loss weighted by the change in nDCG.
    Lambda(Lambda),
}

impl Default for RankingLossConfig {
    fn default() -> Self {
        Self::Bce(Bce::default())
    }
}

impl RankingLossConfig {
    /// The loss of these settings.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn build(&self) -> Result<Box<dyn RankingLoss>> {
        Ok(match self {
            Self::Bce(c) => Box::new(c.check()?),
            Self::Softmax(c) => Box::new(c.check()?),
            Self::ListNet(c) => Box::new(c.clone()),
            Self::MarginMse(c) => Box::new(c.clone()),
            Self::RankNet(c) => Box::new(c.check()?),
            Self::ListMle(c) => Box::new(c.clone()),
            Self::Lambda(c) => Box::new(c.check()?),
        })
    }

    /// What sentence-transformers should make of the trained model's logits.
    pub fn activation(&self) -> Activation {
        match self {
            Self::Bce(_) => Activation::Sigmoid,
            _ => Activation::Identity,
        }
    }
}

/// Where the list is shorter: less than any score, yet a number.
const ABSENT: f64 = -1e16;

fn positive(key: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(bad(key, "must be above 0")) }
}
