//! What happens to rows that cannot be used: an error that names the place, or a file beside the run and a count.
//!
//! Every reader reports through one [`BadRows`]. With [`BadRowPolicy::Fail`] the first bad row ends the reading; with
//! [`BadRowPolicy::Skip`] the row goes to a JSONL sidecar with its place and the reason. Either way
//! [`BadRows::report`] says how many rows of which kind there were, so nothing disappears silently.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::{Columns, Error, Result};

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Problem {
    /// Not JSON.
    BrokenJson,
    /// A row of a table with a quote that is not closed, or with another number of fields than its header.
    BrokenTable,
    /// Not UTF-8.
    InvalidUtf8,
    /// A column that the format needs is not there.
    MissingColumn,
    /// A column holds something of another kind.
    WrongType,
    /// A text has no characters beside white space.
    EmptyText,
    /// An id was seen before.
    DuplicateId,
    /// A query or judgement points to a passage that the corpus lacks.
    MissingPassage,
    /// A judgement points to a query that is not there.
    MissingQuery,
    /// The number of teacher scores fits neither the passages nor the negatives.
    ScoreCount,
    /// The label says that the pair does not match, and there is no other passage.
    NotRelevant,
    /// A label that is no judgement: what it means has to be said for the whole file, so it always stops the reading.
    Graded,
    /// The model's chat template has no place for the row.
    Refused,
    /// The file ends in the middle of its compressed data.
    TruncatedFile,
}

impl Problem {
    /// The name, as it appears in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BrokenJson => "broken JSON",
            Self::BrokenTable => "broken table row",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::MissingColumn => "missing column",
            Self::WrongType => "wrong type",
            Self::EmptyText => "empty text",
            Self::DuplicateId => "duplicate id",
            Self::MissingPassage => "missing passage",
            Self::MissingQuery => "missing query",
            Self::ScoreCount => "wrong number of scores",
            Self::NotRelevant => "no relevant passage",
            Self::Graded => "a label that is no judgement",
            Self::Refused => "refused by the chat template",
            Self::TruncatedFile => "truncated file",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row that cannot be used; also the form of a line of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// The file.
    pub path: PathBuf,
    /// Line, or row of a Parquet file, from 1.
    pub line: u64,
    /// The kind of problem.
    pub problem: Problem,
    /// The facts: which column, what was found, what was expected.
    pub detail: String,
    /// The row as it was read, invalid bytes replaced.
    pub row: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path.display(), self.line, self.problem, self.detail)
    }
}

/// What to do with bad rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BadRowPolicy {
    /// The first one is an error.
    #[default]
    Fail,
    /// They are written to a file and counted.
    Skip {
        /// The file, in JSON Lines; created with the first bad row, replacing what was there.
        sidecar: PathBuf,
    },
}

/// What to do with a judgement whose query or passage is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingPolicy {
    /// Leave it out of training, count it in a warning.
    #[default]
    Warn,
    /// Stop at it.
    Error,
}

/// What a reader met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReport {
    /// Rows that were usable: examples, passages, queries and judgements together.
    pub rows: u64,
    /// Rows set aside, by problem.
    pub bad: BTreeMap<Problem, u64>,
    /// Empty lines.
    pub blank_lines: u64,
    /// Questions that their data set marks as having no answer; they make no example.
    pub unanswerable: u64,
    /// Queries with no relevant passage in the split; they make no example.
    pub unjudged: u64,
    /// Pairs of NLI data that say neither yes nor no; they make no example.
    #[serde(default)]
    pub neutral: u64,
    /// Files of a folder of documents that are none.
    #[serde(default)]
    pub other_files: u64,
    /// Judgements of queries that have no text.
    #[serde(default)]
    pub missing_queries: u64,
    /// Judgements of relevant passages that the corpus lacks.
    #[serde(default)]
    pub missing_passages: u64,
}

impl ReadReport {
    /// Whether something was left out: rows set aside, questions, pairs or files that make no example.
    pub fn left_out(&self) -> bool {
        self.bad_rows() + self.missing() + self.unanswerable + self.unjudged + self.neutral + self.other_files
            > 0
    }

    /// Number of rows set aside.
    pub fn bad_rows(&self) -> u64 {
        self.bad.values().sum()
    }

    /// Number of judgements whose query or passage is not there.
    pub fn missing(&self) -> u64 {
        self.missing_queries + self.missing_passages
    }
}

impl fmt::Display for ReadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows read", self.rows)?;
        if !self.bad.is_empty() {
            let kinds: Vec<String> = self.bad.iter().map(|(problem, n)| format!("{problem}: {n}")).collect();
            write!(f, ", {} set aside ({})", self.bad_rows(), kinds.join(", "))?;
        }
        for (n, what) in [
            (self.blank_lines, "blank lines"),
            (self.unanswerable, "unanswerable questions"),
            (self.unjudged, "queries without a relevant passage"),
            (self.neutral, "neutral pairs"),
            (self.other_files, "files that are no documents"),
            (self.missing_queries, "judgements of queries without a text left out"),
            (self.missing_passages, "judgements of passages that the corpus lacks left out"),
        ] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
enum Mode {
    #[default]
    Fail,
    Skip(PathBuf),
    /// For a first pass over rows that a second one reports.
    Silent,
}

/// Where readers report rows, good and bad, and which columns they are to take for which role. A clone is another
/// handle to the same counts.
#[derive(Debug, Clone, Default)]
pub struct BadRows(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    policy: Mode,
    report: ReadReport,
    sidecar: Option<fs_err::File>,
    /// Nothing is logged of what is read.
    quiet: bool,
    columns: Arc<Columns>,
    /// Mapped roles whose column was met.
    mapped: BTreeSet<String>,
    /// What was shown of which file.
    shown: BTreeSet<String>,
    missing: MissingPolicy,
}

impl BadRows {
    /// Handles bad rows by the policy.
    pub fn new(policy: BadRowPolicy) -> Self {
        Self::with(match policy {
            BadRowPolicy::Fail => Mode::Fail,
            BadRowPolicy::Skip { sidecar } => Mode::Skip(sidecar),
        })
    }

    /// Leaves bad rows out without a word: for rows that were reported when they were read first.
    pub fn silent() -> Self {
        Self::with(Mode::Silent)
    }

    fn with(policy: Mode) -> Self {
        Self(Arc::new(Mutex::new(State { policy, ..State::default() })))
    }

    /// With names of columns for all readers.
    #[must_use]
    pub fn with_columns(self, columns: Columns) -> Self {
        self.lock().columns = Arc::new(columns);
        self
    }

    /// [`BadRows::silent`] with the columns of these: for another pass over the same rows.
    #[must_use]
    pub fn silenced(&self) -> Self {
        let silent = Self::silent();
        silent.lock().columns = self.columns();
        silent
    }

    /// Without a word in the log: for rows that were talked of when they were read first.
    #[must_use]
    pub fn quietly(self) -> Self {
        self.lock().quiet = true;
        self
    }

    pub(crate) fn columns(&self) -> Arc<Columns> {
        Arc::clone(&self.lock().columns)
    }

    /// Whether nothing is logged.
    pub(crate) fn is_silent(&self) -> bool {
        let state = self.lock();
        state.quiet || matches!(state.policy, Mode::Silent)
    }

    pub(crate) fn was_mapped(&self, role: &str) -> bool {
        self.lock().mapped.contains(role)
    }

    pub(crate) fn now_mapped(&self, role: &str) {
        self.lock().mapped.insert(role.to_owned());
    }

    /// Roles with the columns that they are mapped to and that no reader has met.
    pub fn unmet_columns(&self) -> Vec<String> {
        let state = self.lock();
        let unmet = state.columns.iter().filter(|(role, _)| !state.mapped.contains(*role));
        unmet.map(|(role, column)| format!("{role}={column}")).collect()
    }

    /// Logs the first record of a file as it was understood, once.
    pub fn log_first(&self, path: &std::path::Path, what: &str, record: &impl crate::Shown) {
        crate::shown::log_first(path, what, self, record);
    }

    /// Whether something of a file is to be shown: once, and not in a silent pass.
    pub(crate) fn shows(&self, what: &str) -> bool {
        let mut state = self.lock();
        !state.quiet && !matches!(state.policy, Mode::Silent) && state.shown.insert(what.to_owned())
    }

    /// The counts so far.
    pub fn report(&self) -> ReadReport {
        self.lock().report.clone()
    }

    /// Handles judgements whose query or passage is not there by the policy, from now on.
    pub fn set_missing(&self, policy: MissingPolicy) {
        self.lock().missing = policy;
    }

    /// What happens to judgements whose query or passage is not there.
    pub fn missing_policy(&self) -> MissingPolicy {
        self.lock().missing
    }

    /// Counts a judgement whose query or passage is not there, or fails with it. Where rows are set aside, so is it.
    pub(crate) fn missing(&self, row: BadRow) -> Result<()> {
        let mut state = self.lock();
        match (&state.policy, state.missing) {
            (Mode::Skip(_), _) => {}
            (_, MissingPolicy::Error) => return Err(Error::BadRow(Box::new(row))),
            (_, MissingPolicy::Warn) => {
                match row.problem {
                    Problem::MissingQuery => state.report.missing_queries += 1,
                    _ => state.report.missing_passages += 1,
                }
                return Ok(());
            }
        }
        drop(state);
        self.bad(row)
    }

    pub(crate) fn good(&self) {
        self.lock().report.rows += 1;
    }

    pub(crate) fn note(&self, change: impl FnOnce(&mut ReadReport)) {
        change(&mut self.lock().report);
    }

    /// Counts a bad row and sets it aside, or fails with it.
    pub(crate) fn bad(&self, row: BadRow) -> Result<()> {
        let mut state = self.lock();
        *state.report.bad.entry(row.problem).or_default() += 1;
        if row.problem == Problem::Graded && !matches!(state.policy, Mode::Silent) {
            return Err(Error::Graded(Box::new(row)));
        }
        let sidecar = match &state.policy {
            Mode::Fail => return Err(Error::BadRow(Box::new(row))),
            Mode::Silent => return Ok(()),
            Mode::Skip(sidecar) => sidecar.clone(),
        };
        if state.sidecar.is_none() {
            if let Some(parent) = sidecar.parent().filter(|p| !p.as_os_str().is_empty()) {
                fs_err::create_dir_all(parent)?;
            }
            state.sidecar = Some(fs_err::File::create(sidecar)?);
        }
        let mut line = serde_json::to_vec(&row).map_err(std::io::Error::from)?;
        line.push(b'\n');
        // Unbuffered on purpose: bad rows are rare, and the file must be whole when a run is killed.
        if let Some(file) = &mut state.sidecar {
            file.write_all(&line)?;
        }
        Ok(())
    }

    /// Sets aside a row that was read well and that a model cannot use, or fails with it.
    ///
    /// # Errors
    /// The row, unless bad rows are skipped.
    pub fn refuse(&self, origin: &Origin, detail: String, row: String) -> Result<()> {
        let Origin { path, line } = origin.clone();
        self.bad(BadRow { path, line, problem: Problem::Refused, detail, row })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts stay usable when another thread panicked between two of them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a record was read. No part of what it says: all places are equal.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file, or the folder of files.
    pub path: PathBuf,
    /// Line, or row, from 1; 0 for a record that was not read.
    pub line: u64,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// What is wrong with a row, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) problem: Problem,
    pub(crate) detail: String,
}

impl Fault {
    pub(crate) fn new(problem: Problem, detail: impl Into<String>) -> Self {
        Self { problem, detail: detail.into() }
    }
}
