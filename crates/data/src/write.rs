//! Writers: examples and corpora to files that appear complete under their name, or not at all.

use std::path::Path;

use serde_json::Value;

use crate::format::spec::Writer;
use crate::source::inner_extension;
use crate::{Error, Format, Passage, Qrel, Query, Result, RetrievalExample};

pub(crate) mod atomic;
pub(crate) mod beir;
pub(crate) mod collection;
mod counts;
pub(crate) mod inferred;
pub(crate) mod parquet;
pub(crate) mod rows;

pub use beir::BeirWriter;
pub use counts::WriteCounts;

use atomic::AtomicFile;

/// Layout of a file of judgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QrelsLayout {
    /// `query-id`, `corpus-id`, `score` under a header, with tabs.
    Beir,
    /// `query 0 passage grade`, as `trec_eval` reads it.
    Trec,
}

/// Writes examples in a format; the name decides about compression (`.gz`, `.zst`).
///
/// `jsonl` and `tevatron` keep everything (Tevatron 1 names, with `scores` and `answers`), and so does `parquet`.
/// `flag-embedding` keeps texts and scores, `dpr` texts, ids and answers. A collection keeps the
/// judgements of the positives; it gets a split `train` and the passages of the examples. [`convert`](crate::convert)
/// writes other splits and passages that no example has.
pub fn write_examples(
    path: impl AsRef<Path>,
    format: Format,
    examples: impl IntoIterator<Item = Result<RetrievalExample>>,
) -> Result<WriteCounts> {
    let path = path.as_ref();
    let examples = &mut examples.into_iter();
    match &format.spec().writer {
        Some(Writer::Examples(write)) => write(path, examples),
        Some(Writer::Collection(write)) => write(path, "train", None, examples),
        None => Err(Error::Unsupported {
            path: path.to_owned(),
            reason: format!(
                "examples are not written as {format}; use {}",
                Format::names(|spec| spec.writer.is_some())
            ),
        }),
    }
}

/// Writes a corpus as JSON Lines in BEIR's form, or as Parquet, by the extension. Returns the number of passages.
pub fn write_corpus(
    path: impl AsRef<Path>,
    passages: impl IntoIterator<Item = Result<Passage>>,
) -> Result<u64> {
    let path = path.as_ref();
    match inner_extension(path).as_str() {
        "parquet" => parquet::corpus(path, passages),
        "jsonl" => write_lines(path, passages, |passage: &Passage| beir::passage_json(passage)),
        other => Err(Error::Unsupported {
            path: path.to_owned(),
            reason: format!("a corpus is written as .jsonl (also .gz, .zst) or .parquet, not .{other}"),
        }),
    }
}

/// Writes queries as JSON Lines in BEIR's form. Returns the number of queries.
pub fn write_queries(
    path: impl AsRef<Path>,
    queries: impl IntoIterator<Item = Result<Query>>,
) -> Result<u64> {
    write_lines(path.as_ref(), queries, |query: &Query| beir::query_json(query))
}

/// Writes judgements. Returns their number.
pub fn write_qrels(
    path: impl AsRef<Path>,
    layout: QrelsLayout,
    qrels: impl IntoIterator<Item = Result<Qrel>>,
) -> Result<u64> {
    let mut file = AtomicFile::create(path.as_ref())?;
    if layout == QrelsLayout::Beir {
        file.write_all(beir::QRELS_HEADER)?;
    }
    let mut count = 0;
    for qrel in qrels {
        let Qrel { query, passage, grade } = qrel?;
        let line = match layout {
            QrelsLayout::Beir => format!("{query}\t{passage}\t{grade}\n"),
            QrelsLayout::Trec => format!("{query} 0 {passage} {grade}\n"),
        };
        file.write_all(line.as_bytes())?;
        count += 1;
    }
    file.finish()?;
    Ok(count)
}

fn write_lines<T>(
    path: &Path,
    rows: impl IntoIterator<Item = Result<T>>,
    to_json: impl Fn(&T) -> Value,
) -> Result<u64> {
    let mut file = AtomicFile::create(path)?;
    let mut count = 0;
    for row in rows {
        file.write_json(&to_json(&row?))?;
        file.write_all(b"\n")?;
        count += 1;
    }
    file.finish()?;
    Ok(count)
}
