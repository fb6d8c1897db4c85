//! Files that several formats share: passages, queries and judgements, a row each.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::ids::unique;
use crate::source::{is_jsonl, rows_of};
use crate::stream::{NumberedQrels, Passages, Queries};
use crate::{BadRows, Passage, Qrel, Query};
use ragduet_metrics::{Judgement, QrelsLines};

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

/// A file of queries: JSON Lines by its extension, else `id \t text`.
pub(crate) fn queries(path: &Path, bad: &BadRows) -> Queries {
    match is_jsonl(path) {
        true => jsonl_queries(path, bad),
        false => tsv_queries(path, bad),
    }
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

/// Judgements with their line numbers, in the layouts of [`QrelsLines`].
pub(crate) fn qrels(path: &Path, bad: &BadRows) -> NumberedQrels {
    let mut lines = QrelsLines::default();
    Box::new(rows_of(vec![path.to_owned()], bad, move |line_number, line| {
        let read = lines.read(line).map_err(|what| {
            let detail = format!("{what}; expected query, passage and grade");
            Fault::new(Problem::WrongType, detail)
        })?;
        Ok(read.map(|Judgement { query, doc, grade }| {
            (line_number, Qrel { query: query.into(), passage: doc.into(), grade })
        }))
    }))
}
