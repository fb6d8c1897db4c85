//! The supervised loss: -sum log p(answer token) / (answer tokens of the whole accumulation window), as TRL 1.16's
//! with `num_items_in_batch`. Averages of averages weigh a short micro-batch like a long one; this does not.

use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Token loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SftLoss {
    /// Negative log-likelihood.
    #[default]
    Nll,
    /// Dynamic fine-tuning: negative log-likelihood times the detached token probability (arXiv 2508.05629).
    Dft,
}

impl SftLoss {
    /// The share of these tokens in the loss of a window, a scalar: add it up (or call backward on each) over the
    /// window's micro-batches.
    ///
    /// `nll`: -log p of answer tokens, any shape, f32; 0 where a position is no answer token. `window_tokens`: how many
    /// answer tokens the whole window has; below 1 it is 1, so that a window without any gives 0 and not 0 / 0.
    pub fn share(self, nll: &Tensor, window_tokens: u64) -> Tensor {
        let total = match self {
            Self::Nll => nll.sum(nll.kind()),
            Self::Dft => (nll * (-nll).detach().exp()).sum(nll.kind()),
        };
        total / window_tokens.max(1) as f64
    }

    /// Whether the sum of the negative log-likelihoods is all that [`Self::share`] needs, so that a fused
    /// cross-entropy which returns nothing but the sum will do.
    pub fn needs_only_the_sum(self) -> bool {
        self == Self::Nll
    }
}
