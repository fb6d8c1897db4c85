//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong around a training loop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A JSON file that does not parse.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// libtorch, weights.
    #[error(transparent)]
    Torch(#[from] ragduet_torch::Error),
    /// A config that does not parse; the message points at the place.
    #[error("{origin}: {message}")]
    Config {
        /// The file or the `--set`.
        origin: String,
        /// The parser's message.
        message: String,
    },
    /// A run folder that is taken.
    #[error("{path}: {why}")]
    RunDir {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// A checkpoint that is not what its manifest says.
    #[error("{path}: damaged checkpoint ({why})")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// A checkpoint of another model or run.
    #[error(
        "{path}: this checkpoint does not fit ({why}); resume with the settings the run was started with"
    )]
    State {
        /// The file.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// A loss that was NaN or infinite when it was read from the device.
    #[error(
        "the loss is {value} at step {step} (learning rate {lr:.3e}{batch}); {}", remedy(*step, *lr)
    )]
    Diverged {
        /// The loss.
        value: f64,
        /// The optimiser step.
        step: u64,
        /// The learning rate then.
        lr: f64,
        /// Ids of the batch's first examples.
        batch: Batch,
    },
    /// NaN or infinity where a number is needed.
    #[error(
        "{what} is {value} at step {step} (learning rate {lr:.3e}{batch}); {}", remedy(*step, *lr)
    )]
    NotFinite {
        /// The loss or the gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The optimiser step.
        step: u64,
        /// The learning rate then.
        lr: f64,
        /// Ids of the batch's first examples.
        batch: Batch,
    },
}

/// What to do where numbers end, in words that can be followed: with or without a checkpoint.
fn remedy(step: u64, lr: f64) -> &'static str {
    if step <= 1 || lr == 0.0 {
        return "nothing was learned by then, so the base model's weights, the data or the precision are at fault: look \
                at the model with `ragduet info`, at the data with `ragduet data stats`, and train with run.precision = \
                \"fp32\"";
    }
    "lower the learning rate (`--resume --set optim.lr=... --allow optim.lr`), clip gradients harder (optim.max_grad_norm), \
     or train with run.precision = \"fp32\": from the last complete checkpoint on, or from the beginning where there is \
     none; in joint training the keys are those of the model at fault (retriever.optim.lr, generator.optim.lr)"
}

/// The ids of a batch's first examples, as a part of a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch(String);

impl Batch {
    /// `ids`: a list with commas; empty where none are known.
    pub fn of(ids: &str) -> Self {
        Self(ids.into())
    }
}

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; the batch begins with {}", self.0) }
    }
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
