//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong with a model directory or the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Weights, devices, libtorch.
    #[error(transparent)]
    Torch(#[from] ragduet_torch::Error),
    /// A GGUF file that cannot be read or written.
    #[error(transparent)]
    Gguf(#[from] ragduet_gguf::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A JSON file that does not parse as what it should be.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// An architecture without an implementation here.
    #[error("{path}: model_type `{model_type}` is not supported; {kind}: {supported}")]
    UnknownArchitecture {
        /// The config.json.
        path: PathBuf,
        /// What it says.
        model_type: String,
        /// What was looked for: encoders, language models.
        kind: &'static str,
        /// What there is.
        supported: String,
    },
    /// A setting of a known architecture that is not implemented; guessing would give wrong numbers.
    #[error("{path}: {key} = {value} is not supported ({supported})")]
    UnsupportedSetting {
        /// The config.json.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is supported.
        supported: String,
    },
    /// PEFT settings that do not fit the model, and adapter folders that do not fit their settings.
    #[error("{key}: {why}")]
    Peft {
        /// The setting.
        key: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A model that is neither a directory nor can be fetched.
    #[error("model `{id}`: {reason}")]
    Hub {
        /// What was asked for.
        id: String,
        /// What happened and what to do.
        reason: String,
    },
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;
