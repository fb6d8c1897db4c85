//! What all preference losses share: the batch, the enum of them, the likelihood term, metrics.

use super::{Dpo, Hinge, Ipo, Kto, Orpo, Robust, SimPo};
use crate::error::{Error, Result, bad};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reference model's log-probabilities of the same completions, without gradient.
#[derive(Debug)]
pub struct Reference<'a> {
    /// `[chosen]`, f32, summed over completion tokens.
    pub chosen: &'a Tensor,
    /// `[rejected]`, f32.
    pub rejected: &'a Tensor,
}

/// What a preference loss is computed from. Row i of chosen and row i of rejected are a pair, save for losses that are
/// not paired ([`PreferenceLoss::paired`]), where either may be longer, or empty.
#[derive(Debug)]
pub struct PreferenceBatch<'a> {
    /// The policy's log-probability of each chosen completion, summed over its tokens. `[chosen]`, f32.
    pub chosen: &'a Tensor,
    /// The same of the rejected ones. `[rejected]`, f32.
    pub rejected: &'a Tensor,
    /// Tokens of each chosen completion. `[chosen]`, any kind of number.
    pub chosen_tokens: &'a Tensor,
    /// `[rejected]`.
    pub rejected_tokens: &'a Tensor,
    /// The reference's, where [`PreferenceLoss::needs_reference`].
    pub reference: Option<Reference<'a>>,
    /// Log-ratios log p - log p_ref of completions under prompts they do not belong to (in practice each prompt with
    /// the next one's completion), `[rows]`, detached or not; where [`PreferenceLoss::needs_mismatched`].
    pub mismatched: Option<&'a Tensor>,
}

impl PreferenceBatch<'_> {
    /// (log p - log p_ref) of the chosen and of the rejected completions.
    pub(super) fn log_ratios(&self) -> Result<(Tensor, Tensor)> {
        let Some(r) = &self.reference else {
            return Err(Error::Unusable(
                "this preference loss needs the reference's log-probabilities".into(),
            ));
        };
        Ok((self.chosen - r.chosen, self.rejected - r.rejected))
    }

    /// The policy's mean log-probability per token, chosen and rejected.
    pub(super) fn averages(&self) -> (Tensor, Tensor) {
        (per_token(self.chosen, self.chosen_tokens), per_token(self.rejected, self.rejected_tokens))
    }
}

/// Losses of the rows of a batch.
#[derive(Debug)]
pub struct RowLosses {
    /// One per pair, or per completion for losses that are not paired. `[rows]`, f32, with gradient.
    pub losses: Tensor,
    /// Implicit rewards of the chosen completions, `[chosen]`, detached.
    pub chosen_rewards: Tensor,
    /// `[rejected]`, detached.
    pub rejected_rewards: Tensor,
}

/// Means over a batch, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RewardMetrics {
    /// Mean implicit reward of chosen completions.
    pub chosen: f64,
    /// Mean implicit reward of rejected completions.
    pub rejected: f64,
    /// The difference of the two.
    pub margin: f64,
    /// Share of pairs whose chosen completion has the greater reward; none where rows are no pairs.
    pub accuracy: Option<f64>,
}

/// Means over a batch that are left on the device: f64, scalars.
#[derive(Debug)]
pub struct RewardMeans {
    /// Mean implicit reward of chosen completions.
    pub chosen: Tensor,
    /// Of rejected ones.
    pub rejected: Tensor,
    /// Share of pairs whose chosen completion has the greater reward; none where rows are no pairs.
    pub accuracy: Option<Tensor>,
}

impl RowLosses {
    /// The means of this batch. `paired`: whether rows are pairs.
    pub fn means(&self, paired: bool) -> RewardMeans {
        let (c, r) = (&self.chosen_rewards, &self.rejected_rewards);
        let mean = |t: &Tensor| t.sum(Kind::Double) / t.numel().max(1) as f64;
        let paired = paired && c.size() == r.size() && c.numel() > 0;
        let accuracy = paired.then(|| mean(&c.gt_tensor(r).to_kind(Kind::Double)));
        RewardMeans { chosen: mean(c), rejected: mean(r), accuracy }
    }

    /// The metrics of this batch; one read from the device.
    pub fn metrics(&self, paired: bool) -> Result<RewardMetrics> {
        let RewardMeans { chosen, rejected, accuracy } = self.means(paired);
        let all = [Some(&chosen), Some(&rejected), accuracy.as_ref()];
        let read: Vec<f64> = Tensor::stack(&all.into_iter().flatten().collect::<Vec<_>>(), 0)
            .to_device(ragduet_torch::Device::Cpu)
            .try_into()
            .map_err(ragduet_torch::Error::from)?;
        let (chosen, rejected) = (read[0], read[1]);
        Ok(RewardMetrics { chosen, rejected, margin: chosen - rejected, accuracy: read.get(2).copied() })
    }
}

/// A likelihood term beside the preference: `weight` * mean -log p over tokens of the chosen sequences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Weight of the term.
    pub weight: f64,
    /// Over which tokens.
    pub scope: LikelihoodScope,
}

/// Tokens of a likelihood term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LikelihoodScope {
    /// The chosen completions'.
    Completion,
    /// Prompt and chosen completion, as TRL has it for ORPO.
    PromptAndCompletion,
}

/// A loss over preferences.
pub trait PreferenceLoss: std::fmt::Debug {
    /// Losses and rewards of a batch.
    ///
    /// # Errors
    /// Reference or mismatched log-probabilities are missing where the loss needs them.
    fn rows(&self, batch: &PreferenceBatch<'_>) -> Result<RowLosses>;

    /// Whether the reference's log-probabilities are needed.
    fn needs_reference(&self) -> bool;

    /// Whether log-ratios of mismatched completions are needed.
    fn needs_mismatched(&self) -> bool {
        false
    }

    /// Whether a chosen and a rejected completion make a row together.
    fn paired(&self) -> bool {
        true
    }

    /// The likelihood term that belongs to the loss.
    fn likelihood(&self) -> Option<Likelihood> {
        None
    }
}

/// Preference loss and its settings, written as `[preference.loss.dpo]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreferenceLossKind {
    /// Direct preference optimization (DPO); with label smoothing conservative DPO.
    Dpo(Dpo),
    /// Robust DPO: unbiased under a known rate of flipped preferences.
    Robust(Robust),
    /// Hinge loss on the scaled log-ratio difference (SLiC-HF).
    Hinge(Hinge),
    /// Identity preference optimization (IPO), per token.
    Ipo(Ipo),
    /// Kahneman-Tversky optimization (KTO): unpaired, labelled completions.
    Kto(Kto),
    /// Odds-ratio preference optimization (ORPO), without a reference model.
    Orpo(Orpo),
    /// Simple preference optimization (SimPO), per token, without a reference model.
    Simpo(SimPo),
}

impl Default for PreferenceLossKind {
    fn default() -> Self {
        Self::Dpo(Dpo::default())
    }
}

impl PreferenceLossKind {
    /// The loss of these settings.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range.
    pub fn build(&self) -> Result<Box<dyn PreferenceLoss>> {
        Ok(match self {
            Self::Dpo(c) => Box::new(c.check()?),
            Self::Robust(c) => Box::new(c.check()?),
            Self::Hinge(c) => Box::new(c.check()?),
            Self::Ipo(c) => Box::new(c.check()?),
            Self::Kto(c) => Box::new(c.check()?),
            Self::Orpo(c) => Box::new(c.check()?),
            Self::Simpo(c) => Box::new(c.check()?),
        })
    }
}

/// Preference loss and an optional supervised term.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceLossConfig {
    /// Preference loss.
    pub loss: PreferenceLossKind,
    /// Weight of the supervised loss on chosen completions (RPO's alpha, arXiv 2404.19733); 0: none. Not with losses
    /// that have a likelihood term of their own.
    pub sft_weight: f64,
}

/// Totals of an accumulation window, by which its micro-batches' sums are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Rows: pairs, or completions for losses that are not paired.
    pub rows: u64,
    /// Tokens of the likelihood term; 0 without one.
    pub likelihood_tokens: u64,
}

/// A built [`PreferenceLossConfig`].
#[derive(Debug)]
pub struct Preference {
    /// The loss.
    pub loss: Box<dyn PreferenceLoss>,
    /// The likelihood term, its own or the configured one.
    pub likelihood: Option<Likelihood>,
}

impl PreferenceLossConfig {
    /// Checks and builds.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range, or two likelihood terms.
    pub fn build(&self) -> Result<Preference> {
        let loss = self.loss.build()?;
        if !(self.sft_weight >= 0.0 && self.sft_weight.is_finite()) {
            return Err(bad("sft_weight", "must be 0 or more"));
        }
        let own = loss.likelihood();
        if self.sft_weight > 0.0 && own.is_some() {
            return Err(bad("sft_weight", "this loss has a likelihood term of its own; leave it at 0"));
        }
        let added = (self.sft_weight > 0.0)
            .then_some(Likelihood { weight: self.sft_weight, scope: LikelihoodScope::Completion });
        Ok(Preference { loss, likelihood: own.or(added) })
    }
}

impl Preference {
    /// The share of a micro-batch in the loss of its window, a scalar. With a window of this batch alone it is the mean
    /// over rows plus the weighted mean over tokens.
    ///
    /// `nll_sum`: summed -log p of the chosen sequences over [`Likelihood::scope`], where there is such a term.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the term is due and `nll_sum` is missing.
    pub fn share(&self, rows: &RowLosses, nll_sum: Option<&Tensor>, window: Window) -> Result<Tensor> {
        let kind = rows.losses.kind();
        let loss = rows.losses.sum(kind) / window.rows.max(1) as f64;
        match (self.likelihood, nll_sum) {
            (None, _) => Ok(loss),
            (Some(l), Some(nll)) => Ok(loss + nll * (l.weight / window.likelihood_tokens.max(1) as f64)),
            (Some(_), None) => {
                Err(Error::Unusable("this loss needs the chosen sequences' likelihood".into()))
            }
        }
    }
}

/// A positive beta.
pub(super) fn check_beta(beta: f64) -> Result<()> {
    if beta > 0.0 && beta.is_finite() { Ok(()) } else { Err(bad("loss.beta", "must be above 0")) }
}

/// A smoothing in [0, 0.5): from a half on, labels say nothing.
pub(super) fn check_smoothing(e: f64) -> Result<()> {
    if (0.0..0.5).contains(&e) { Ok(()) } else { Err(bad("loss.label_smoothing", "must be in [0, 0.5)")) }
}

/// Mean per token of rows: sum / max(tokens, 1).
pub(super) fn per_token(sum: &Tensor, tokens: &Tensor) -> Tensor {
    sum / tokens.to_kind(sum.kind()).clamp_min(1.0)
}
