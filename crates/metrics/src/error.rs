//! What can go wrong when judgements, runs and measures are read.

use std::path::PathBuf;

/// What goes wrong in reading judgements and runs, and in measuring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A line of a file does not have the expected form.
    #[error("{}:{line}: {problem}; expected {expected}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
        /// What the format asks for.
        expected: &'static str,
    },
    /// A line of a file is well formed but contradicts an earlier one or breaks a rule of its content.
    #[error("{}:{line}: {source}", path.display())]
    AtLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// One pair of query and document has two different grades.
    #[error("query {query:?} judges document {doc:?} twice, as {first} and as {second}; keep one of the two")]
    ConflictingGrade {
        /// The query id.
        query: String,
        /// The document id.
        doc: String,
        /// The grade seen first.
        first: i32,
        /// The grade seen second.
        second: i32,
    },
    /// A run returns the same document twice for a query, which would count its gain twice.
    #[error("the run returns document {doc:?} twice for query {query:?}; keep only its best score")]
    DuplicateDoc {
        /// The query id.
        query: String,
        /// The document id.
        doc: String,
    },
    /// A run has two rankings for one query.
    #[error("the run has query {query:?} twice; merge its documents before inserting them")]
    DuplicateQuery {
        /// The query id.
        query: String,
    },
    /// A score that has no place in an order.
    #[error("the score of document {doc:?} for query {query:?} is NaN; the model that made it has diverged")]
    NanScore {
        /// The query id.
        query: String,
        /// The document id.
        doc: String,
    },
    /// An id that a whitespace-separated file cannot hold.
    #[error("id {id:?} is empty or has white space in it, which a TREC run file cannot hold")]
    IdNotWritable {
        /// The id.
        id: String,
    },
    /// A measure's name is not known.
    #[error(
        "unknown measure {name:?}: {problem}; known are ndcg@K, recall@K, precision@K, hit@K, mrr, mrr@K, map, \
         map@K and r_precision, with K from 1"
    )]
    UnknownMeasure {
        /// The name as given.
        name: String,
        /// Which part is wrong.
        problem: &'static str,
    },
    /// Two systems cannot be compared query by query.
    #[error(
        "the two systems have {a} and {b} scores; a paired test needs the same queries in the same order"
    )]
    Unpaired {
        /// Scores of the first system.
        a: usize,
        /// Scores of the second system.
        b: usize,
    },
    /// A test was asked for with a setting that has no meaning.
    #[error("{setting} is {got}; {remedy}")]
    BadSetting {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        got: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// There is nothing to average.
    #[error("no examples to score")]
    NoExamples,
    /// An example without a gold text.
    #[error("example {example} (counted from 0) has no reference to be measured against")]
    NoReference {
        /// Its position.
        example: usize,
    },
    /// Two inputs that belong together differ in length.
    #[error("{what} do not fit together: {a} and {b}")]
    Lengths {
        /// What was given.
        what: &'static str,
        /// Length of the first.
        a: usize,
        /// Length of the second.
        b: usize,
    },
    /// A file could not be read or written; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
