//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong in training a classifier or asking it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch, weights, devices.
    #[error(transparent)]
    Torch(#[from] ragduet_torch::Error),
    /// Model directories, the hub.
    #[error(transparent)]
    Nn(#[from] ragduet_nn::Error),
    /// Tokenizers.
    #[error(transparent)]
    Text(#[from] ragduet_text::Error),
    /// Reading and writing data.
    #[error(transparent)]
    Data(#[from] ragduet_data::Error),
    /// Measures.
    #[error(transparent)]
    Metrics(#[from] ragduet_metrics::Error),
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
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A setting that cannot work.
pub(crate) fn bad(key: &str, why: impl Into<String>) -> Error {
    Error::Config { key: key.into(), why: why.into() }
}
