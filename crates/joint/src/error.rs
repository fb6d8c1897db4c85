//! The crate's error type.

/// What can go wrong in joint training.
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
    /// The retriever.
    #[error(transparent)]
    Retriever(#[from] ragduet_retriever::Error),
    /// The cross-encoder.
    #[error(transparent)]
    Reranker(#[from] ragduet_reranker::Error),
    /// The generator.
    #[error(transparent)]
    Generator(#[from] ragduet_generator::Error),
    /// Run directories, checkpoints, configs.
    #[error(transparent)]
    Train(#[from] ragduet_train::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
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

/// [`ragduet_torch::catch`] with this crate's errors.
pub(crate) fn catch<T>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    ragduet_torch::catch(during, remedy, f)
}
