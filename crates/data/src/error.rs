//! What can go wrong with data, with the place and the remedy.

use std::path::PathBuf;

use crate::bad_rows::BadRow;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of reading, writing or arranging data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A row cannot be used.
    #[error("{0}; mend the row")]
    BadRow(Box<BadRow>),

    /// A label of which the data does not say what it means.
    #[error("{}:{}: {}", .0.path.display(), .0.line, .0.detail)]
    Graded(Box<BadRow>),

    /// A compressed or binary file is cut off or corrupt as a whole.
    #[error("{}: {reason}; copy or download the file again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },

    /// The path does not show which format it holds.
    #[error("{}: {reason}; name the format ({known})", path.display())]
    UnknownFormat {
        /// The path.
        path: PathBuf,
        /// What was looked at.
        reason: String,
        /// The names of the formats.
        known: String,
    },

    /// A format name that does not exist.
    #[error("no format is named {name:?}; the formats are {known}")]
    UnknownFormatName {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },

    /// The format cannot do what was asked of it.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The path.
        path: PathBuf,
        /// What was asked, and what to do instead.
        reason: String,
    },

    /// A part of a data set is not where its layout puts it.
    #[error("{}: not found; {remedy}", path.display())]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// What to do, with what was found.
        remedy: String,
    },

    /// Nothing usable came out of the input.
    #[error("{what}: no usable example{}", hint(hint_text))]
    Empty {
        /// What was read.
        what: String,
        /// Why that may be, empty if unknown.
        hint_text: String,
    },

    /// A setting of the batcher or the mixer is impossible.
    #[error("{key}: {reason}")]
    Config {
        /// The key.
        key: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },

    /// More than 2^32 records of a kind, which the pooled form cannot number.
    #[error("more than {} {what}: split the data set", u32::MAX)]
    TooMany {
        /// What there is too much of.
        what: &'static str,
    },

    /// A file could not be read or written; the message of `fs-err` names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn hint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// Whether a decoder's error means that the file is cut off or corrupt, not that the disk failed.
pub(crate) fn is_corrupt(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput | Other)
}
