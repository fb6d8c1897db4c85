//! What can go wrong with vectors, indexes and their files.

use std::path::PathBuf;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate. Messages name the place and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A setting has a value without meaning.
    #[error("`{key}` is {got}; {remedy}")]
    BadConfig {
        /// The key as it is written in a config.
        key: &'static str,
        /// Its value.
        got: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// A flat slice is no whole number of rows.
    #[error("{len} numbers are no whole number of rows of {dim}")]
    NotRows {
        /// Numbers in the slice.
        len: usize,
        /// Numbers per row.
        dim: usize,
    },
    /// Vectors of another width than the index has.
    #[error("the index holds vectors of dimension {expected}, got {got}; were they made by another model?")]
    Dimension {
        /// The index's dimension.
        expected: usize,
        /// The vectors'.
        got: usize,
    },
    /// NaN or infinity in a vector.
    #[error("vector {row} has {value} at position {column}; the model that made it has diverged")]
    NotFinite {
        /// The row among the vectors given.
        row: usize,
        /// The position in the row.
        column: usize,
        /// What is there.
        value: f32,
    },
    /// The cosine of a zero vector is not defined.
    #[error("vector {row} is all zeros, so it has no cosine with anything; is its text empty?")]
    ZeroVector {
        /// The row among the vectors given.
        row: usize,
    },
    /// A number of a vector does not fit the precision the vectors are computed or stored in.
    #[error(
        "vector {row} is too large for {precision}: its greatest number is {value}; scale the vectors down"
    )]
    TooLarge {
        /// The row among the vectors given.
        row: usize,
        /// `f32` or `f16`.
        precision: &'static str,
        /// The number of greatest magnitude.
        value: f32,
    },
    /// A weight of a word that no sparse text can have.
    #[error(
        "text {row} has weight {weight} for word {word}; words are ascending and weights finite and at least 0: were they \
         made by a sparse model?"
    )]
    BadWeight {
        /// The text among those given.
        row: usize,
        /// The word's number.
        word: u32,
        /// Its weight.
        weight: f32,
    },
    /// Offsets that do not cut a slice of token vectors into passages.
    #[error("the offsets of the token vectors do not fit them: {problem}")]
    Offsets {
        /// What is wrong with them.
        problem: String,
    },
    /// A token vector that a residual codec cannot hold.
    #[error(
        "token vector {row} has length {length}; compressed indexes hold vectors of length 1: normalise them"
    )]
    NotUnit {
        /// The row among the vectors given.
        row: usize,
        /// Its length.
        length: f32,
    },
    /// A compressed index was to be trained on nothing.
    #[error("no token vector to train centroids on; give a sample of the corpus")]
    NoTokens,
    /// More rows than ids.
    #[error("{rows} rows do not fit one index, which holds at most {limit}; split the corpus into shards")]
    TooManyRows {
        /// The rows there would be.
        rows: usize,
        /// The most there can be.
        limit: usize,
    },
    /// A row that the index does not have.
    #[error("row {id} does not exist; the index has {len} rows")]
    NoSuchRow {
        /// The row asked for.
        id: u32,
        /// Rows in the index.
        len: usize,
    },
    /// Two indexes or lists that should describe the same rows do not.
    #[error("{what} has {got} rows, expected {expected}")]
    RowCount {
        /// What is of the wrong length.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The expected length.
        expected: usize,
    },
    /// The index cannot be changed in the form in which it was opened.
    #[error("{}: vectors that stay on disk cannot be added to; open the index in memory", path.display())]
    ReadOnly {
        /// The index's vectors.
        path: PathBuf,
    },
    /// A directory that holds no index.
    #[error("{}: {problem}", path.display())]
    NotAnIndex {
        /// The directory or file.
        path: PathBuf,
        /// Why it is none.
        problem: String,
    },
    /// An index written by another version.
    #[error("{}: format version {got}, this program reads {expected}; build the index again", path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// The version found.
        got: u32,
        /// The version read.
        expected: u32,
    },
    /// A file of an index is damaged.
    #[error("{}: {problem}; the file is damaged: build the index again or copy it anew", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that does not hold the vectors it should.
    #[error(
        "{}: {bytes} bytes are not {rows} vectors of {dim} numbers: the file is cut or damaged; write it again",
        path.display()
    )]
    NotVectors {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// Vectors that it should hold.
        rows: usize,
        /// Numbers of a vector.
        dim: usize,
    },
    /// `hnsw_rs` panicked in spite of all checks.
    #[error("hnsw_rs failed: {problem}; set `builder = \"native\"` to build without it")]
    Builder {
        /// What it said.
        problem: String,
    },
    /// A margin was asked for, and there is nothing to measure it from.
    #[error(
        "query {query:?} has no positive whose score a margin could be measured from; remove it from the queries to mine for"
    )]
    NoPositive {
        /// The query's id.
        query: String,
    },
    /// A score that has no place in an order.
    #[error("query {query:?}: the score of {what} is NaN; the model that made it has diverged")]
    NanScore {
        /// The query's id.
        query: String,
        /// Whose score it is.
        what: &'static str,
    },
    /// A score that cannot be fused with others.
    #[error("system {system} scores its hit {rank} with {score}; the model that made it has diverged")]
    UnusableScore {
        /// Which of the systems, from 0.
        system: usize,
        /// Where in its list, from 0.
        rank: usize,
        /// NaN or infinity.
        score: f32,
    },
    /// An external id that stands for two rows.
    #[error("id {id:?} is used twice, for rows {first} and {second}; ids must be unique")]
    DuplicateId {
        /// The id.
        id: String,
        /// The row it was given to first.
        first: u32,
        /// The row it was given to again.
        second: u32,
    },
}

impl Error {
    /// The error about a block of vectors, as one about all of them: `first` stand before the block.
    pub(crate) fn counted_from(self, first: usize) -> Self {
        match self {
            Self::NotFinite { row, column, value } => Self::NotFinite { row: row + first, column, value },
            Self::ZeroVector { row } => Self::ZeroVector { row: row + first },
            Self::TooLarge { row, precision, value } => Self::TooLarge { row: row + first, precision, value },
            Self::NotUnit { row, length } => Self::NotUnit { row: row + first, length },
            other => other,
        }
    }
}
