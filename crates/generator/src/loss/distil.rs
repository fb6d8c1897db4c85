//! What a teacher's distribution over the next token teaches a student, mixed with the likelihood of the answer.
//!
//! [`Divergence`] is the formula over two distributions; [`distil`] goes from hidden states to its value and gradients
//! chunk by chunk, so that two whole matrices of logits never exist at once; [`top_k`] makes of a teacher's logits what is
//! worth keeping of them.

mod divergence;
mod rows;

pub use divergence::{Divergence, JsdConfig, KlConfig};
pub use rows::{CHUNK, Distilled, Projection, Taught, TopK, distil, top_k};

use crate::error::{Result, bad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Distillation loss: `weight` * divergence + (1 - `weight`) * -log p(answer token), mean over answer tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistilLoss {
    /// Divergence between teacher and student.
    pub divergence: Divergence,
    /// Weight of the divergence, in (0, 1]; the rest is the supervised loss.
    pub weight: f64,
}

impl Default for DistilLoss {
    fn default() -> Self {
        Self { divergence: Divergence::default(), weight: 0.5 }
    }
}

impl DistilLoss {
    /// Checks the settings. `key`: where they stand.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for what is out of range.
    pub fn check(&self, key: &str) -> Result<()> {
        if !(self.weight > 0.0 && self.weight <= 1.0) {
            return Err(bad(
                &format!("{key}.weight"),
                "must be above 0 (`train generator` learns without a teacher) and at most 1",
            ));
        }
        self.divergence.check(&format!("{key}.divergence"))
    }
}
