//! How a forward pass runs: with dropout or without, in which dtype, with which adapter.

use crate::adapter_id::AdapterId;
use ragduet_torch::Compute;

/// How a forward pass runs.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    /// Whether dropout is on.
    pub train: bool,
    /// The dtype of matrix products.
    pub compute: Compute,
    /// The adapter that acts; none: the base alone.
    pub adapter: Option<AdapterId>,
}

impl Mode {
    /// Dropout off.
    pub fn eval(compute: Compute) -> Self {
        Self { train: false, compute, adapter: None }
    }

    /// Dropout as the model's config says.
    pub fn train(compute: Compute) -> Self {
        Self { train: true, compute, adapter: None }
    }

    /// With this adapter.
    #[must_use]
    pub fn with(self, adapter: Option<AdapterId>) -> Self {
        Self { adapter, ..self }
    }

    /// `p` in training, else 0.
    pub(crate) fn dropout(self, p: f64) -> f64 {
        if self.train { p } else { 0.0 }
    }
}
