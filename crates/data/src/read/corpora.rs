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
use ragduet_metrics::{Judgement, QrelsLines};

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
