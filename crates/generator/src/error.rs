//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong in training a generator or decoding with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch, weights, devices.
    #[error(transparent)]
    Torch(#[from] ragduet_torch::Error),
    /// Model directories, the hub.
    #[error(transparent)]
    Nn(#[from] ragduet_nn::Error),
    /// Tokenizers, templates.
    #[error(transparent)]
    Text(#[from] ragduet_text::Error),
    /// Reading and writing data.
    #[error(transparent)]
    Data(#[from] ragduet_data::Error),
    /// Indexes.
    #[error(transparent)]
    Index(#[from] ragduet_index::Error),
    /// Measures.
    #[error(transparent)]
    Metrics(#[from] ragduet_metrics::Error),
    /// Classifiers that judge answers.
    #[error(transparent)]
    Classifier(#[from] ragduet_classifier::Error),
    /// Run directories, checkpoints, configs.
    #[error(transparent)]
    Train(#[from] ragduet_train::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A JSON file that does not parse.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A setting that cannot work.
    #[error("config: {key}: {why}")]
    Config {
        /// The key, dotted.
        key: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// Data that cannot be used with these settings.
    #[error("data: {0}")]
    Unusable(String),
    /// The model gave something that no token can be chosen from.
    #[error("decoding: {0}")]
    Decoding(String),
    /// libtorch ran out of memory.
    #[error("out of memory in {during} ({message}); {remedy}")]
    OutOfMemory {
        /// What was being done.
        during: String,
        /// libtorch's message.
        message: String,
        /// What to change.
        remedy: String,
    },
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A setting that cannot work.
pub(crate) fn bad(key: &str, why: impl Into<String>) -> Error {
    Error::Config { key: key.into(), why: why.into() }
}

/// Runs tensor code, turning a libtorch panic (tch's operators panic) into an error.
pub(crate) fn catch<T>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    let message = match caught {
        Ok(Err(Error::Torch(e))) if e.is_out_of_memory() => e.to_string(),
        Ok(result) => return result,
        Err(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
            .unwrap_or_else(|| "unknown panic".into()),
    };
    let first = message.lines().next().unwrap_or_default().chars().take(400).collect::<String>();
    if ragduet_torch::is_oom(&message) {
        Err(Error::OutOfMemory { during: during.into(), message: first, remedy: remedy.into() })
    } else {
        Err(ragduet_torch::Error::Torch(format!("in {during}: {first}")).into())
    }
}
