//! From any format that is read to any that is written.

use std::path::Path;

use serde_json::{Map, Value};

use crate::choices::choice_json;
use crate::collection::whole_corpus;
use crate::format::spec::Writer;
use crate::rag::rag_json;
use crate::source::{inner_extension, is_jsonl};
use crate::write::atomic::AtomicFile;
use crate::write::{WriteCounts, inferred, write_examples};
use crate::{
    BadRows, Error, Format, Kind, ReadOptions, Result, read_choices, read_corpus, read_examples, read_judged,
    read_labelled, read_preferences, read_rag,
};

/// Converts a data set. Returns what was written and what the target has no place for; rows that could not be read
/// are in the report of `bad`.
///
/// A collection gets the split that `options` names (`train` if none) and, where
/// the source has a corpus of its own, the whole of it.
pub fn convert(
    from: impl AsRef<Path>,
    options: &ReadOptions,
    to: impl AsRef<Path>,
    format: Format,
    bad: &BadRows,
) -> Result<WriteCounts> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut examples = read_examples(from, options, bad)?;
    let Some(Writer::Collection(write)) = &format.spec().writer else {
        return write_examples(to, format, examples);
    };
    // `read_examples` reports the rows of the corpus.
    let silent = bad.silenced();
    let corpus = match &options.corpus {
        Some(corpus) => Some(read_corpus(corpus, &ReadOptions::default(), &silent)?),
        None => whole_corpus(from, options, &silent)?,
    };
    write(to, options.split(), corpus, &mut examples)
}

/// Converts rows of any kind but retrieval examples and corpora to JSON Lines or, by the output's name, to Parquet: to those
/// of [`read_rag`], [`read_preferences`], [`read_choices`] and so on. Returns the number of rows.
///
/// # Errors
/// An output of another kind; rows that differ in ways that Parquet has no place for; the first bad row, or as `bad` says.
pub fn convert_records(from: &Path, kind: Kind, to: &Path, bad: &BadRows) -> Result<u64> {
    if inner_extension(to) == "parquet" {
        // The first pass reports the rows.
        if !from.is_dir() && from.exists() && !from.metadata()?.is_file() {
            return Err(Error::Unsupported {
                path: from.to_owned(),
                reason: "a pipe can be read once, and Parquet takes two passes: name the output .jsonl, or write the rows to \
                         a file first"
                    .into(),
            });
        }
        let mut first = Some(bad.clone());
        return inferred::write(to, || {
            let bad = first.take().unwrap_or_else(|| bad.silenced());
            Ok(rows(from, kind, &bad)?.map(|row| row.map(flat)))
        });
    }
    if !is_jsonl(to) {
        return Err(Error::Unsupported {
            path: to.to_owned(),
            reason: format!(
                "{kind} are written as JSON Lines (.jsonl, also .gz, .zst) or Parquet (.parquet): name the output so"
            ),
        });
    }
    let mut file = AtomicFile::create(to)?;
    let mut count = 0;
    for row in rows(from, kind, bad)? {
        file.write_all(row?.to_string().as_bytes())?;
        file.write_all(b"\n")?;
        count += 1;
    }
    file.finish()?;
    Ok(count)
}

type Rows = Box<dyn Iterator<Item = Result<Value>>>;

/// The rows of a file as the reader of their kind understands them.
fn rows(from: &Path, kind: Kind, bad: &BadRows) -> Result<Rows> {
    Ok(match kind {
        Kind::Preferences => Box::new(read_preferences(from, bad)?.map(|row| row.map(|r| r.json()))),
        Kind::Completions => Box::new(read_judged(from, bad)?.map(|row| row.map(|r| r.json()))),
        Kind::Choices => Box::new(read_choices(from, bad)?.map(|row| row.map(|r| choice_json(&r)))),
        Kind::Texts => Box::new(read_labelled(from, false, bad)?.map(|row| row.map(|r| r.json()))),
        _ => Box::new(read_rag(from, bad)?.map(|row| row.map(|r| rag_json(&r)))),
    })
}

/// A row in types that other rows share: what a tool takes, and what it is called with, as texts of JSON, which readers
/// take as well; golden passages as objects, those among the passages too.
fn flat(row: Value) -> Map<String, Value> {
    let Value::Object(mut row) = row else { return Map::new() };
    if let Some(tools) = row.get_mut("tools") {
        *tools = tools.to_string().into();
    }
    let contexts = row.get("contexts").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(Value::Array(gold)) = row.get_mut("gold") {
        for named in gold.iter_mut().filter(|passage| passage.is_string()) {
            if let Some(passage) = contexts.iter().find(|passage| passage["id"] == *named) {
                *named = passage.clone();
                if let Some(passage) = named.as_object_mut() {
                    passage.shift_remove("score");
                }
            }
        }
    }
    for name in ["messages", "prompt", "completion", "chosen", "rejected"] {
        let Some(Value::Array(messages)) = row.get_mut(name) else { continue };
        for message in messages {
            let mut calls: Vec<&mut Value> = Vec::new();
            if let Some(message) = message.as_object_mut() {
                for (name, value) in message.iter_mut() {
                    match (name.as_str(), value) {
                        ("tool_calls", Value::Array(list)) => calls.extend(list.iter_mut()),
                        ("function_call", call) => calls.push(call),
                        _ => {}
                    }
                }
            }
            for call in calls {
                for place in ["/arguments", "/function/arguments"] {
                    if let Some(arguments @ Value::Object(_)) = call.pointer_mut(place) {
                        *arguments = arguments.to_string().into();
                    }
                }
            }
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SAMPLES;

    #[test]
    fn rows_of_every_kind_are_read_again_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from.jsonl");
        for sample in SAMPLES.iter().filter(|s| !matches!(s.kind, Kind::Examples | Kind::Corpus)) {
            // Other rows, with what this one lacks.
            let more: Vec<&str> = match sample.row.contains("\"messages\"") {
                true => SAMPLES
                    .iter()
                    .map(|s| s.row)
                    .filter(|row| row.contains("\"messages\": [{\"role\""))
                    .collect(),
                false => Vec::new(),
            };
            fs_err::write(&from, [&[sample.row][..], &more].concat().join("\n")).unwrap();
            let read = |path: &Path| -> Vec<Value> {
                let rows = rows(path, sample.kind, &BadRows::default()).unwrap();
                rows.map(|row| with_content(row.unwrap())).collect()
            };
            for name in ["to.jsonl", "to.parquet"] {
                let to = dir.path().join(name);
                let count = convert_records(&from, sample.kind, &to, &BadRows::default()).unwrap();
                assert_eq!(count as usize, 1 + more.len(), "{}", sample.shape);
                assert_eq!(read(&to), read(&from), "{name}: {}", sample.shape);
            }
        }
    }

    /// Messages that say nothing in words: a column of Parquet makes no difference between null and absent.
    fn with_content(mut row: Value) -> Value {
        for message in row.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
            message.as_object_mut().unwrap().entry("content").or_insert(Value::Null);
        }
        row
    }

    #[test]
    fn what_parquet_has_no_place_for_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from.jsonl"), dir.path().join("to.parquet"));
        let chat = r#"{"prompt": [{"role": "user", "content": "p"}], "chosen": "c", "rejected": "r"}"#;
        fs_err::write(
            &from,
            format!("{{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}}\n{chat}\n"),
        )
        .unwrap();
        let e = convert_records(&from, Kind::Preferences, &to, &BadRows::default()).unwrap_err().to_string();
        assert!(
            e.contains("prompt is a text in one row and a list in another") && e.contains(".jsonl"),
            "{e}"
        );
        assert!(!to.exists());
        let e = convert_records(&from, Kind::Preferences, &dir.path().join("x.csv"), &BadRows::default());
        assert!(e.unwrap_err().to_string().contains("JSON Lines (.jsonl"));
    }
}
