//! How a run is carried out, beside its config.

use std::path::PathBuf;

/// How a run is carried out, beside its config.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The run folder.
    pub out: PathBuf,
    /// Whether to go on with the run that is there.
    pub resume: bool,
    /// No progress on standard error.
    pub quiet: bool,
    /// Stop (with a checkpoint) after this many steps of this call, as if interrupted. For tests.
    pub stop_after: Option<u64>,
    /// Settings that may be others than when the run was started (`--allow`).
    pub allow: Vec<String>,
}

impl RunOptions {
    /// A new run in this folder.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }
}
