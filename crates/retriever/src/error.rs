//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong in training, mining, encoding or evaluating a retriever.
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
    /// Indexes.
    #[error(transparent)]
    Index(#[from] ragduet_index::Error),
    /// Measures, run files.
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
    /// A model directory with a part that is not implemented; guessing would give wrong embeddings.
    #[error("{path}: {what}")]
    UnsupportedModel {
        /// The file.
        path: PathBuf,
        /// What is not understood, and what is.
        what: String,
    },
    /// What a teacher that was handed in says.
    #[error("the teacher: {0}")]
    Teacher(Box<dyn std::error::Error + Send + Sync>),
    /// A late-interaction model where embeddings are wanted.
    #[error("this needs one vector a text, and a late-interaction model has one for each token")]
    SeveralVectors,
    /// Data that cannot be trained on with these settings.
    #[error("data: {0}")]
    Unusable(String),
    /// A saved model does not give the embeddings of the one in memory.
    #[error("{path}: the saved model embeds `{text}` differently (largest difference {difference:.2e})")]
    Verify {
        /// The directory.
        path: PathBuf,
        /// The text.
        text: String,
        /// How far off.
        difference: f64,
    },
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// [`ragduet_torch::catch`] with this crate's errors.
pub(crate) fn catch<T>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    ragduet_torch::catch(during, remedy, f)
}
