//! Writers: examples and corpora to files that appear complete under their name, or not at all.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::source::inner_extension;
use crate::{Error, Format, Passage, Qrel, Query, Result, RetrievalExample};

mod atomic;
mod beir;
mod parquet;

pub use beir::{BeirWriter, WriteCounts};

use atomic::AtomicFile;

/// Layout of a file of judgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QrelsLayout {
    /// `query-id`, `corpus-id`, `score` under a header, with tabs.
    Beir,
    /// `query 0 passage grade`, as `trec_eval` reads it.
    Trec,
}

/// Writes examples in a format that is one file; the name decides about compression (`.gz`, `.zst`).
///
/// `jsonl` and `tevatron` keep everything (Tevatron 1 names, with `scores` and `answers`), and so does `parquet`.
/// `flag-embedding` keeps texts and scores, `dpr` texts, ids and answers. A BEIR directory has its own
/// [`BeirWriter`].
pub fn write_examples(
    path: impl AsRef<Path>,
    format: Format,
    examples: impl IntoIterator<Item = Result<RetrievalExample>>,
) -> Result<WriteCounts> {
    let path = path.as_ref();
    let to_json: fn(&RetrievalExample, &mut WriteCounts) -> Value = match format {
        Format::Jsonl | Format::Tevatron => |example, _| tevatron_json(example),
        Format::FlagEmbedding => flag_embedding_json,
        Format::Dpr => dpr_json,
        Format::Parquet => return parquet::examples(path, examples),
        Format::Beir | Format::MsMarco | Format::Squad | Format::Tsv | Format::Txt | Format::Paragraphs => {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                reason: format!(
                    "examples are not written as {format}; use jsonl, parquet, tevatron, flag-embedding, dpr or beir"
                ),
            });
        }
    };
    let array = format == Format::Dpr;
    let mut file = AtomicFile::create(path)?;
    let mut counts = WriteCounts::default();
    for example in examples {
        let example = example?;
        let separator: &[u8] = match (array, counts.examples) {
            (true, 0) => b"[\n",
            (true, _) => b",\n",
            (false, _) => b"",
        };
        file.write_all(separator)?;
        counts.add(&example);
        let value = to_json(&example, &mut counts);
        file.write_json(&value)?;
        if !array {
            file.write_all(b"\n")?;
        }
    }
    if array {
        file.write_all(if counts.examples == 0 { b"[]\n" } else { b"\n]\n" })?;
    }
    file.finish()?;
    Ok(counts)
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

fn passage_list(passages: &[Passage], id: &str) -> Value {
    let one =
        |p: &Passage| json!({ id: p.id, "title": p.title.as_deref().unwrap_or_default(), "text": p.text });
    passages.iter().map(one).collect()
}

fn tevatron_json(example: &RetrievalExample) -> Value {
    let mut row = json!({
        "query_id": example.query.id,
        "query": example.query.text,
        "positive_passages": passage_list(&example.positives, "docid"),
        "negative_passages": passage_list(&example.negatives, "docid"),
    });
    if let Some(scores) = &example.scores {
        row["scores"] = json!(scores);
    }
    if !example.answers.is_empty() {
        row["answers"] = json!(example.answers);
    }
    row
}

fn flag_embedding_json(example: &RetrievalExample, counts: &mut WriteCounts) -> Value {
    let texts = |list: &[Passage]| list.iter().map(|p| Value::from(p.full_text())).collect::<Value>();
    let mut row = json!({
        "query": example.query.text,
        "pos": texts(&example.positives),
        "neg": texts(&example.negatives),
    });
    if let Some((pos, neg)) =
        example.scores.as_deref().and_then(|s| s.split_at_checked(example.positives.len()))
    {
        row["pos_scores"] = json!(pos);
        row["neg_scores"] = json!(neg);
    }
    counts.answers_dropped += example.answers.len() as u64;
    row
}

fn dpr_json(example: &RetrievalExample, counts: &mut WriteCounts) -> Value {
    counts.scores_dropped += u64::from(example.scores.is_some());
    json!({
        "id": example.query.id,
        "question": example.query.text,
        "answers": example.answers,
        "positive_ctxs": passage_list(&example.positives, "passage_id"),
        "negative_ctxs": [],
        "hard_negative_ctxs": passage_list(&example.negatives, "passage_id"),
    })
}

impl AtomicFile {
    fn write_json(&mut self, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(std::io::Error::from)?;
        self.write_all(&bytes)
    }
}
