//! Examples as rows of JSON, one after the other.

use std::path::Path;

use serde_json::{Value, json};

use super::atomic::AtomicFile;
use super::counts::WriteCounts;
use crate::stream::ExampleIter;
use crate::{Passage, Result, RetrievalExample};

/// What a format makes of an example, counting what it has no place for.
type Row = fn(&RetrievalExample, &mut WriteCounts) -> Value;

/// A row a line.
pub(crate) fn lines(path: &Path, examples: ExampleIter<'_>, row: Row) -> Result<WriteCounts> {
    let mut file = AtomicFile::create(path)?;
    let mut counts = WriteCounts::default();
    for example in examples {
        let example = example?;
        counts.add(&example);
        file.write_json(&row(&example, &mut counts))?;
        file.write_all(b"\n")?;
    }
    file.finish()?;
    Ok(counts)
}

/// One array of rows.
pub(crate) fn array(path: &Path, examples: ExampleIter<'_>, row: Row) -> Result<WriteCounts> {
    let mut file = AtomicFile::create(path)?;
    let mut counts = WriteCounts::default();
    for example in examples {
        let example = example?;
        file.write_all(if counts.examples == 0 { b"[\n" } else { b",\n" })?;
        counts.add(&example);
        file.write_json(&row(&example, &mut counts))?;
    }
    file.write_all(if counts.examples == 0 { b"[]\n" } else { b"\n]\n" })?;
    file.finish()?;
    Ok(counts)
}

fn passage_list(passages: &[Passage], id: &str) -> Value {
    let one =
        |p: &Passage| json!({ id: p.id, "title": p.title.as_deref().unwrap_or_default(), "text": p.text });
    passages.iter().map(one).collect()
}

/// Tevatron 1, with scores and answers.
pub(crate) fn tevatron(example: &RetrievalExample, _: &mut WriteCounts) -> Value {
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

/// FlagEmbedding: texts and scores.
pub(crate) fn flag_embedding(example: &RetrievalExample, counts: &mut WriteCounts) -> Value {
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
    let titled = example.positives.iter().chain(&example.negatives).filter(|p| p.title.is_some());
    counts.titles_joined += titled.count() as u64;
    row
}

/// DPR: texts, ids and answers.
pub(crate) fn dpr(example: &RetrievalExample, counts: &mut WriteCounts) -> Value {
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
