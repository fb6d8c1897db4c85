//! Files that several formats share: passages, queries and judgements, a row each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::named;
use super::rows::{self, Holder};
use super::table::has_header;
use crate::bad_rows::{Fault, Problem};
use crate::ids::unique;
use crate::patterns::is_pattern;
use crate::reads::QUERIES;
use crate::source::{inner_extension, rows_of, shards};
use crate::stream::{NumberedQrels, Passages, Queries};
use crate::{BadRows, Passage, Qrel, Query, Result};

/// `id \t text`, or `id \t text \t title`, without a header.
pub(crate) fn tsv(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let mut seen = HashSet::new();
    Box::new(rows_of(files, bad, move |_, line| {
        let parts: Vec<&str> = line.split('\t').collect();
        let (id, text, title) = match parts[..] {
            [id, text] => (id, text, None),
            [id, text, title] => (id, text, Some(title)),
            _ => {
                let detail = format!(
                    "expected id, text and perhaps title, or a header that names columns; got {} columns",
                    parts.len()
                );
                return Err(Fault::new(Problem::MissingColumn, detail));
            }
        };
        if id.is_empty() || text.trim().is_empty() {
            return Err(Fault::new(Problem::EmptyText, "the id or the text is empty"));
        }
        unique(&mut seen, id)?;
        let title = title.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        Ok(Some(Passage { id: id.into(), title, text: text.into() }))
    }))
}

/// Queries: `.tsv` and `.txt` with a header, or else `id \t text`; other files as rows with named columns.
pub(crate) fn queries(path: &Path, bad: &BadRows) -> Result<Queries> {
    let table = matches!(inner_extension(path).as_str(), "tsv" | "txt" | "") && !path.is_dir();
    match table && !is_pattern(path) {
        false => named::queries_of(path, shards(path, &rows::EXTENSIONS)?, Holder::ByName, bad),
        true if has_header(path, &QUERIES, bad)? => named::queries(path.to_owned(), Holder::Table, bad),
        true => Ok(tsv_queries(path, bad)),
    }
}

/// Queries as JSON Lines.
pub(crate) fn jsonl_queries(path: &Path, bad: &BadRows) -> Result<Queries> {
    named::queries(path.to_owned(), Holder::Lines, bad)
}

/// `id \t text` queries of MS MARCO.
fn tsv_queries(path: &Path, bad: &BadRows) -> Queries {
    let mut seen = HashSet::new();
    Box::new(rows_of(vec![path.to_owned()], bad, move |_, line| {
        let Some((id, text)) = line.split_once('\t') else {
            return Err(Fault::new(Problem::MissingColumn, "expected id, tab, query"));
        };
        if id.is_empty() || text.trim().is_empty() {
            return Err(Fault::new(Problem::EmptyText, "the id or the query is empty"));
        }
        unique(&mut seen, id)?;
        Ok(Some(Query { id: id.into(), text: text.trim().into() }))
    }))
}

/// Judgements with their line numbers. Three columns (query, passage, grade), TREC's four, or two.
pub(crate) fn qrels(path: &Path, bad: &BadRows) -> NumberedQrels {
    Box::new(rows_of(vec![path.to_owned()], bad, |line_number, line| {
        let parts: Vec<&str> = match line.contains('\t') {
            true => line.split('\t').map(str::trim).collect(),
            false => line.split_whitespace().collect(),
        };
        let (query, passage, grade) = match parts[..] {
            [query, passage] => (query, passage, "1"),
            [query, passage, grade] | [query, _, passage, grade] => (query, passage, grade),
            _ => {
                let detail = format!("expected query, passage and grade; got {} columns", parts.len());
                return Err(Fault::new(Problem::MissingColumn, detail));
            }
        };
        match grade.parse::<f64>() {
            // Some data sets write grades as 1.0.
            Ok(grade) if grade.fract() == 0.0 && grade.abs() < 1e9 => Ok(Some((
                line_number,
                Qrel { query: query.into(), passage: passage.into(), grade: grade as i32 },
            ))),
            _ if line_number == 1 => Ok(None),
            _ => Err(Fault::new(Problem::WrongType, format!("the grade {grade:?} is not a whole number"))),
        }
    }))
}
