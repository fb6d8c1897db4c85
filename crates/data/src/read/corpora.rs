//! Files that several formats share: passages, queries and judgements, a row each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::corpus_shapes;
use crate::ids::unique;
use crate::read::rows::{self, Holder, objects_in};
use crate::source::{inner_extension, rows_of};
use crate::stream::{NumberedQrels, Passages, Queries};
use crate::{BadRows, Passage, Qrel, Query, Result};

/// A corpus as JSON Lines.
pub(crate) fn jsonl(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let (mut seen, mut number) = (HashSet::new(), 0u64);
    Box::new(rows_of(files, bad, move |_, line| {
        number += 1;
        let passage = columns::corpus_passage(columns::parse_object(line)?, number)?;
        unique(&mut seen, &passage.id)?;
        Ok(Some(passage))
    }))
}

/// A corpus as rows with named columns.
pub(crate) fn objects(files: Vec<PathBuf>, holder: Holder, bad: &BadRows) -> Passages {
    let (mut seen, mut number) = (HashSet::new(), 0u64);
    Box::new(objects_in(files, holder, bad, corpus_shapes::is_known, move |row, _| {
        number += 1;
        let passage = columns::corpus_passage(row, number)?;
        unique(&mut seen, &passage.id)?;
        Ok(passage)
    }))
}

/// `id \t text`, or `id \t text \t title` as DPR's `psgs_w100.tsv`, whose header is passed over.
pub(crate) fn tsv(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let mut seen = HashSet::new();
    Box::new(rows_of(files, bad, move |line_number, line| {
        let parts: Vec<&str> = line.split('\t').collect();
        let (id, text, title) = match parts[..] {
            [id, text] => (id, text, None),
            [id, text, title] => (id, text, Some(title)),
            _ => {
                let detail = format!("expected id, text and perhaps title; got {} columns", parts.len());
                return Err(Fault::new(Problem::MissingColumn, detail));
            }
        };
        if line_number == 1 && matches!(id, "id" | "pid" | "docid" | "_id") {
            return Ok(None);
        }
        if id.is_empty() || text.trim().is_empty() {
            return Err(Fault::new(Problem::EmptyText, "the id or the text is empty"));
        }
        unique(&mut seen, id)?;
        let title = title.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        Ok(Some(Passage { id: id.into(), title, text: text.into() }))
    }))
}

/// Queries: `id \t text` by the extension, else rows with named columns.
pub(crate) fn queries(path: &Path, bad: &BadRows) -> Result<Queries> {
    if matches!(inner_extension(path).as_str(), "tsv" | "txt" | "") && !path.is_dir() {
        return Ok(tsv_queries(path, bad));
    }
    let mut seen = HashSet::new();
    let rows = rows::objects(path, bad, columns::is_known, move |row, _| {
        let query = columns::query(&row)?;
        unique(&mut seen, &query.id)?;
        Ok(query)
    })?;
    Ok(Box::new(rows))
}

/// Queries as JSON Lines.
pub(crate) fn jsonl_queries(path: &Path, bad: &BadRows) -> Queries {
    let mut seen = HashSet::new();
    Box::new(rows_of(vec![path.to_owned()], bad, move |_, line| {
        let query = columns::query(&columns::parse_object(line)?)?;
        unique(&mut seen, &query.id)?;
        Ok(Some(query))
    }))
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
