//! The crate's error type.

use std::path::PathBuf;

/// What can go wrong between Rust and libtorch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch threw; its message, without the C++ backtrace.
    #[error("libtorch: {0}")]
    Torch(String),
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
    /// tch reported an error.
    #[error("libtorch: {}", first_line(&.0.to_string()))]
    Tch(#[from] tch::TchError),
    /// A file could not be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A safetensors file that is truncated, or not one at all.
    #[error(
        "{path}: not a complete safetensors file ({reason}); download or copy it again ({bytes} bytes are here)"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the parser objected to.
        reason: String,
        /// Its size.
        bytes: u64,
    },
    /// A tensor of a file that is not safetensors could not be made; the message names the file.
    #[error(transparent)]
    Made(Box<dyn std::error::Error + Send + Sync>),
    /// A JSON file (a shard index, optimiser state) that does not parse.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Weights that hold NaN or infinity.
    #[error("{reason}")]
    NotFinite {
        /// The tensor and its file.
        reason: String,
    },
    /// The weights do not fit the model.
    #[error("{0}")]
    Weights(Box<crate::params::LoadReport>),
    /// A directory without weights that can be read.
    #[error("{path}: no model.safetensors (nor model.safetensors.index.json) here{hint}")]
    NoWeights {
        /// The directory.
        path: PathBuf,
        /// What else was found, and what to do about it.
        hint: String,
    },
    /// A tensor of a kind that cannot be used here.
    #[error("{path}: tensor `{name}` has dtype {dtype}, expected a floating-point dtype")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its dtype as the file says.
        dtype: String,
    },
    /// A model whose weights were given up for codes.
    #[error(
        "`{name}` and {others} other weights are kept as {bits} alone: a model cannot be saved of what is left of them. \
         Save the adapter, and merge it into the base as it is on disk (`ragduet merge`)"
    )]
    Quantised {
        /// One of them.
        name: String,
        /// How many more.
        others: usize,
        /// What they are kept as.
        bits: &'static str,
    },
    /// Optimiser state that does not belong to these parameters.
    #[error("optimizer state: {0}")]
    OptimState(String),
    /// A device that is not there.
    #[error("device `{wanted}`: {reason}")]
    Device {
        /// What was asked for.
        wanted: String,
        /// Why not, and what to do.
        reason: String,
    },
}

/// A message of libtorch without its C++ frames.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("Torch(\"").to_string()
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the device ran out of memory (the caller can name the remedy: smaller batches, gradient caching).
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Error::OutOfMemory { .. } => true,
            Error::Torch(m) => is_oom(m),
            Error::Tch(e) => is_oom(&e.to_string()),
            _ => false,
        }
    }
}

/// Whether a message of libtorch (also a panic's) reports exhausted memory.
pub fn is_oom(message: &str) -> bool {
    ["out of memory", "can't allocate memory", "not enough memory"].iter().any(|s| message.contains(s))
}
