//! Runs as one HTML page that needs nothing else: curves, best figures, what configs differ in, sample questions with their
//! passages, the environment.
//!
//! Rust reads and thins; the page draws. What runs hold is data to the page and never markup: it goes in as JSON in which
//! no `<` is left, and comes out through `textContent`.
//!
//! A content security policy in the page's head lets it load nothing. `scripts/check_report` opens the page in Chromium
//! and uses it.

mod config;
mod page;
mod run;
mod samples;
mod series;

pub use config::{Difference, differences};
pub use page::{Page, page};
pub use run::{Run, Section, read_runs};
pub use samples::{Sample, Shown, Side};
pub use series::{Series, thin};

use std::path::PathBuf;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that holds nothing to report.
    #[error("{path}: {why}")]
    Unusable {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A line of a file that is none of this kind.
    #[error("{path}:{line}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The file system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Data that JSON cannot hold.
    #[error("the page's data: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the functions here give.
pub type Result<T> = std::result::Result<T, Error>;
