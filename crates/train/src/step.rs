//! What every recipe does alike: how a run is carried out, and the end of an optimiser step.

use crate::{Error, OptimizerConfig, Result};
use ragduet_torch::grad;
use ragduet_torch::optim::Optimizer;
use std::path::PathBuf;

/// How a run is carried out, beside its config.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The run folder.
    pub out: PathBuf,
    /// Whether to go on with the run that is there.
    pub resume: bool,
    /// No progress on standard error.
    pub quiet: bool,
    /// Stop (with a checkpoint) after this many steps of this call, as if interrupted. For tests.
    pub stop_after: Option<u64>,
}

/// Clips and steps with the gradients that are there; their norm before clipping. `step` is counted from 1.
///
/// # Errors
/// A loss or norm that is no number; the parameters are then as before.
pub fn update(
    config: &OptimizerConfig,
    optimizer: &mut Optimizer,
    loss: f64,
    lr: f64,
    step: u64,
) -> Result<f64> {
    let grads = optimizer.grads();
    let norm = if config.max_grad_norm > 0.0 {
        grad::clip_norm(&grads, config.max_grad_norm)?
    } else {
        grad::norm(&grads)?
    };
    if !norm.is_finite() || !loss.is_finite() {
        let (what, value) = if loss.is_finite() { ("the gradient norm", norm) } else { ("the loss", loss) };
        return Err(Error::NotFinite { what, value, step, lr });
    }
    optimizer.step(lr)?;
    Ok(norm)
}
