//! Corpora for encoding: JSONL, BEIR, TSV and plain text.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::beir::unique;
use super::{Beir, Passages, ReadOptions};
use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::source::{Fallible, Lines, require, rows_of, shards};
use crate::{BadRows, Error, Format, Passage, Query, Result};

pub(crate) fn read(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Passages> {
    // A .tsv file given as a corpus is one, whatever MS MARCO also calls by that name.
    let format = match options.format.map_or_else(|| Format::detect(path), Ok)? {
        Format::MsMarco if path.is_file() => Format::Tsv,
        format => format,
    };
    match format {
        Format::Beir => Beir::open(path)?.corpus(bad),
        Format::Jsonl | Format::Tevatron | Format::FlagEmbedding => jsonl(shards(path, super::JSONL)?, bad),
        Format::MsMarco => Ok(tsv(vec![require(path, "collection.tsv")?], bad)),
        Format::Tsv => Ok(tsv(shards(path, &["tsv"])?, bad)),
        Format::Txt => Ok(txt(shards(path, &["txt"])?, bad)),
        Format::Paragraphs => Ok(paragraphs(shards(path, &["txt"])?, bad)),
        Format::Parquet => super::parquet::corpus(path, bad),
        Format::Squad => super::json::squad_corpus(path, bad),
        Format::Dpr => Err(Error::Unsupported {
            path: path.to_owned(),
            reason: "a DPR file holds examples; convert it to BEIR to get a corpus".into(),
        }),
    }
}

/// A corpus as JSON Lines.
pub(crate) fn jsonl(files: Vec<PathBuf>, bad: &BadRows) -> Result<Passages> {
    let (mut seen, mut number) = (HashSet::new(), 0u64);
    Ok(Box::new(rows_of(files, bad, move |_, line| {
        number += 1;
        let passage = columns::corpus_passage(columns::parse_object(line)?, number)?;
        unique(&mut seen, &passage.id)?;
        Ok(Some(passage))
    })))
}

/// `id \t text`, or `id \t text \t title` as DPR's `psgs_w100.tsv`, whose header is passed over.
fn tsv(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
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

/// `id \t text` queries of MS MARCO.
pub(crate) fn tsv_queries(
    path: &Path,
    bad: &BadRows,
) -> Result<Box<dyn Iterator<Item = Result<Query>> + Send>> {
    let mut seen = HashSet::new();
    Ok(Box::new(rows_of(vec![path.to_owned()], bad, move |_, line| {
        let Some((id, text)) = line.split_once('\t') else {
            return Err(Fault::new(Problem::MissingColumn, "expected id, tab, query"));
        };
        if id.is_empty() || text.trim().is_empty() {
            return Err(Fault::new(Problem::EmptyText, "the id or the query is empty"));
        }
        unique(&mut seen, id)?;
        Ok(Some(Query { id: id.into(), text: text.trim().into() }))
    })))
}

/// One passage per line; its id is the line number, across files of one directory the running number.
fn txt(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let mut number = 0u64;
    Box::new(rows_of(files, bad, move |_, line| {
        number += 1;
        Ok(Some(Passage { id: number.to_string(), title: None, text: line.trim().into() }))
    }))
}

/// Passages parted by blank lines, as e-books and exports of editors have them; ids as in [`txt`], counting passages.
fn paragraphs(files: Vec<PathBuf>, bad: &BadRows) -> Passages {
    let bad = bad.clone();
    let mut files = files.into_iter();
    let mut open: Option<Lines> = None;
    let (mut count, mut held) = (0u64, None::<(u64, String)>);
    Box::new(Fallible::new(move || {
        loop {
            let row = match &mut open {
                Some(lines) => {
                    let line = lines.next_row(|_, line| Ok(Some(line.trim().to_owned())))?;
                    line.map(|line| (lines.number(), line))
                }
                None => None,
            };
            if row.is_none() {
                open = files.next().map(|path| Lines::open(&path, &bad)).transpose()?;
            }
            match (&mut held, row) {
                // Blank lines are passed over: where the numbers have a gap, there was one.
                (Some((last, text)), Some((number, line))) if number == *last + 1 => {
                    *last = number;
                    text.push(' ');
                    text.push_str(&line);
                }
                (None, None) if open.is_none() => return Ok(None),
                (_, row) => {
                    if let Some((_, text)) = std::mem::replace(&mut held, row) {
                        count += 1;
                        return Ok(Some(Passage { id: count.to_string(), title: None, text }));
                    }
                }
            }
        }
    }))
}
