//! The crate's error type.

use crate::TensorType;
use std::path::PathBuf;

/// What can go wrong with a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another kind of file.
    #[error("{}: not a GGUF file: it does not begin with GGUF (an interrupted download, or a pointer of Git LFS?)", .0.display())]
    NotGguf(PathBuf),
    /// A version that is not read.
    #[error(
        "{}: version {version} of GGUF is not read; versions 2 and 3 are: convert the model again with a llama.cpp of today",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// Made for a machine with the other order of bytes.
    #[error("{}: a big-endian file; make a little-endian one (`gguf-convert-endian FILE little` of the gguf package)", .0.display())]
    BigEndian(PathBuf),
    /// The bytes contradict each other, or the file ends too early.
    #[error("{}: at byte {at}: {reason}; download or convert the file again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A part of a model that is split over files.
    #[error(
        "{}: one of {parts} parts of a model; make one file of them (`llama-gguf-split --merge FIRST-PART OUT.gguf`)",
        path.display()
    )]
    Split {
        /// The file.
        path: PathBuf,
        /// Of how many.
        parts: u64,
    },
    /// A quantization that is not read.
    #[error(
        "{}: tensor `{tensor}` is of type {found}, which is not read; {} are: take a file in one of them (Q8_0, Q6_K or \
         Q4_K_M of the same model)",
        path.display(),
        TensorType::names()
    )]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type, by name where it has one.
        found: String,
    },
    /// A value that is missing or is not what its key means.
    #[error("{}: {key}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key of the metadata.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that is not in the file.
    #[error("{}: no tensor `{tensor}`", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        tensor: String,
    },
    /// Numbers that the type asked for does not hold.
    #[error("tensor `{tensor}` cannot be written as {kind}: {reason}")]
    Unwritable {
        /// The tensor.
        tensor: String,
        /// The type asked for.
        kind: TensorType,
        /// Why, and what would do.
        reason: String,
    },
}

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
