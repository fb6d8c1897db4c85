//! Examples, passages and queries of rows with named columns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::rows::{Holder, Rows};
use crate::columns;
use crate::format::spec::Reading;
use crate::ids::unique;
use crate::pairs;
use crate::reads::{PASSAGES, QUERIES};
use crate::stream::{Examples, Passages, Queries};
use crate::{BadRows, Result};

/// Examples, a row each.
pub(crate) fn examples(from: &Reading<'_>, files: Vec<PathBuf>, holder: Holder) -> Result<Examples> {
    pairs::examples(from, files, holder)
}

/// Passages, a row each.
pub(crate) fn corpus(from: &Reading<'_>, files: Vec<PathBuf>, holder: Holder) -> Result<Passages> {
    let mut seen = HashSet::new();
    let rows = Rows { files, holder, reads: &PASSAGES, strict: true };
    let parse = |row, place: super::rows::Place| columns::corpus_passage(row, place.number);
    Ok(Box::new(rows.stream(from.path, from.bad, parse, move |p| unique(&mut seen, &p.id))?))
}

/// The passages of a collection's file.
pub(crate) fn corpus_part(file: PathBuf, bad: &BadRows) -> Result<Passages> {
    let mut seen = HashSet::new();
    let (path, rows) =
        (file.clone(), Rows { files: vec![file], holder: Holder::Lines, reads: &PASSAGES, strict: false });
    let parse = |row, place: super::rows::Place| columns::corpus_passage(row, place.number);
    Ok(Box::new(rows.stream(&path, bad, parse, move |p| unique(&mut seen, &p.id))?))
}

/// The queries of a collection's file, or of a file of their own.
pub(crate) fn queries(file: PathBuf, holder: Holder, bad: &BadRows) -> Result<Queries> {
    let path = file.clone();
    queries_of(&path, vec![file], holder, bad)
}

/// The queries of files.
pub(crate) fn queries_of(path: &Path, files: Vec<PathBuf>, holder: Holder, bad: &BadRows) -> Result<Queries> {
    let mut seen = HashSet::new();
    let rows = Rows { files, holder, reads: &QUERIES, strict: false };
    Ok(Box::new(rows.stream(path, bad, |row, _| columns::query(&row), move |q| unique(&mut seen, &q.id))?))
}
