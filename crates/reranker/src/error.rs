//! The crate's error type.

/// What can go wrong in training a cross-encoder or asking it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch, weights, devices.
    #[error(transparent)]
    Torch(#[from] ragduet_torch::Error),
    /// Model directories, the hub.
    #[error(transparent)]
    Nn(#[from] ragduet_nn::Error),
    /// The model as a classifier.
    #[error(transparent)]
    Classifier(#[from] ragduet_classifier::Error),
    /// The first stage, its mining, sets to measure on.
    #[error(transparent)]
    Retriever(#[from] ragduet_retriever::Error),
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
    /// A setting that cannot work.
    #[error("config: {key}: {why}")]
    Config {
        /// The key, dotted.
        key: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A model or data that cannot be used with these settings.
    #[error("{0}")]
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
