//! Records of retrieval-augmented generation: a question, its answers, and passages found for it.
//!
//! One JSON object a line (`.gz` and `.zst` as they are):
//!
//! | role | names |
//! |---|---|
//! | question | `question`, `query`, `anchor`, `query_text` |
//! | id | `_id`, `id`, `qid`, `query_id`; the line's number otherwise |
//! | answers | `answers` or `answer` or `output`: a text, or a list of them of which any is right |
//! | passages, best first | `contexts`, `passages`, `ctxs`: texts, or objects as in a corpus, with `score` |
//! | golden passages | `gold`: ids among the passages, or whole passages |

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::record::text_id;
use crate::source::{rows_of, shards};
use crate::{BadRows, Passage, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A question with what a generator needs to learn its answer, or to be measured on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RagRecord {
    /// Name of the question.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// Right answers, the one to learn first; may be empty where only answering is wanted.
    pub answers: Vec<String>,
    /// What a retriever found, best first.
    pub contexts: Vec<Found>,
    /// Passages known to hold the answer.
    pub gold: Vec<Passage>,
}

/// A passage and how well it matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The passage.
    pub passage: Passage,
    /// The retriever's score, where the file has it.
    pub score: Option<f32>,
}

/// A stream of records.
pub type RagRecords = Box<dyn Iterator<Item = Result<RagRecord>> + Send>;

/// Reads a file of records, or a folder of such files.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_rag(path: impl AsRef<Path>, bad: &BadRows) -> Result<RagRecords> {
    let files = shards(path.as_ref(), &["jsonl", "json", "ndjson"])?;
    Ok(Box::new(rows_of(files, bad, |number, line| record(columns::parse_object(line)?, number).map(Some))))
}

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceRecord {
    /// What is answered, as it is written.
    pub prompt: String,
    /// The better answer.
    pub chosen: String,
    /// The worse one.
    pub rejected: String,
}

/// Reads preferences: JSON Lines with `prompt`, `chosen` and `rejected`, all texts.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_preferences(
    path: impl AsRef<Path>,
    bad: &BadRows,
) -> Result<Box<dyn Iterator<Item = Result<PreferenceRecord>> + Send>> {
    let files = shards(path.as_ref(), &["jsonl", "json", "ndjson"])?;
    Ok(Box::new(rows_of(files, bad, |_, line| {
        let row = columns::parse_object(line)?;
        let get = |name: &'static str| {
            let value = row.get(name).filter(|v| !v.is_null());
            text(name, value.ok_or_else(|| Fault::new(Problem::MissingColumn, format!("no {name}")))?)
        };
        Ok(Some(PreferenceRecord {
            prompt: get("prompt")?,
            chosen: get("chosen")?,
            rejected: get("rejected")?,
        }))
    })))
}

/// A record as a line of [`read_rag`]'s format, without the line's end.
pub fn rag_line(record: &RagRecord) -> String {
    let passage = |p: &Passage| {
        let mut out = Map::new();
        out.insert("id".into(), json!(p.id));
        if let Some(title) = &p.title {
            out.insert("title".into(), json!(title));
        }
        out.insert("text".into(), json!(p.text));
        out
    };
    let contexts: Vec<Value> = record
        .contexts
        .iter()
        .map(|f| {
            let mut out = passage(&f.passage);
            if let Some(score) = f.score {
                out.insert("score".into(), json!(score));
            }
            Value::Object(out)
        })
        .collect();
    // A golden passage that was found is named; one that was missed is there as a whole.
    let gold: Vec<Value> = record
        .gold
        .iter()
        .map(|g| {
            let found = record.contexts.iter().any(|f| f.passage.id == g.id);
            if found { json!(g.id) } else { Value::Object(passage(g)) }
        })
        .collect();
    json!({
        "id": record.id, "question": record.question, "answers": record.answers, "contexts": contexts, "gold": gold,
    })
    .to_string()
}

const QUESTION: [&str; 4] = ["question", "query", "anchor", "query_text"];
const ANSWERS: [&str; 3] = ["answers", "answer", "output"];
const CONTEXTS: [&str; 3] = ["contexts", "passages", "ctxs"];

fn first<'a>(row: &'a Map<String, Value>, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    names.iter().find_map(|&n| row.get(n).filter(|v| !v.is_null()).map(|v| (n, v)))
}

fn record(row: Map<String, Value>, number: u64) -> std::result::Result<RagRecord, Fault> {
    let missing = |what: &str, names: &[&str]| {
        Fault::new(Problem::MissingColumn, format!("no {what} (one of {})", names.join(", ")))
    };
    let (name, question) = first(&row, &QUESTION).ok_or_else(|| missing("question", &QUESTION))?;
    let question = text(name, question)?;
    let answers = match first(&row, &ANSWERS) {
        None => Vec::new(),
        Some((name, Value::Array(list))) => {
            list.iter().map(|v| text(name, v)).collect::<std::result::Result<_, _>>()?
        }
        Some((name, value)) => vec![text(name, value)?],
    };
    let contexts: Vec<Found> = match first(&row, &CONTEXTS) {
        None => Vec::new(),
        Some((name, Value::Array(list))) => {
            list.iter().map(|v| found(name, v)).collect::<std::result::Result<_, _>>()?
        }
        Some((name, value)) => vec![found(name, value)?],
    };
    let gold = match row.get("gold") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => {
            list.iter().map(|v| golden(v, &contexts)).collect::<std::result::Result<_, _>>()?
        }
        Some(value) => vec![golden(value, &contexts)?],
    };
    let id = match first(&row, &columns::QUERY_ID) {
        Some((_, Value::String(s))) => s.clone(),
        Some((_, Value::Number(n))) => n.to_string(),
        _ => format!("row-{number}"),
    };
    Ok(RagRecord { id, question, answers, contexts, gold })
}

fn text(column: &str, value: &Value) -> std::result::Result<String, Fault> {
    match value {
        Value::String(s) if s.trim().is_empty() => Err(Fault::new(Problem::EmptyText, column)),
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        other => Err(Fault::new(
            Problem::WrongType,
            format!("{column}: expected a text, got {}", columns::kind(other)),
        )),
    }
}

fn found(column: &str, value: &Value) -> std::result::Result<Found, Fault> {
    let Value::Object(row) = value else {
        let body = text(column, value)?;
        let passage = Passage { id: text_id(&body), title: None, text: body };
        return Ok(Found { passage, score: None });
    };
    let (name, body) = first(row, &columns::PASSAGE_TEXT)
        .ok_or_else(|| Fault::new(Problem::MissingColumn, format!("{column}: a passage without text")))?;
    let body = text(name, body)?;
    let title = row.get("title").and_then(Value::as_str).filter(|t| !t.trim().is_empty()).map(str::to_string);
    let id = match first(row, &columns::PASSAGE_ID) {
        Some((_, Value::String(s))) => s.clone(),
        Some((_, Value::Number(n))) => n.to_string(),
        _ => text_id(&body),
    };
    let score = row.get("score").and_then(Value::as_f64).map(|s| s as f32);
    Ok(Found { passage: Passage { id, title, text: body }, score })
}

fn golden(value: &Value, contexts: &[Found]) -> std::result::Result<Passage, Fault> {
    if value.is_object() {
        return Ok(found("gold", value)?.passage);
    }
    let id = text("gold", value)?;
    contexts.iter().map(|f| &f.passage).find(|p| p.id == id).cloned().ok_or_else(|| {
        Fault::new(
            Problem::MissingPassage,
            format!("gold passage `{id}` is not among the contexts; give it as an object with its text"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(lines: &str) -> Vec<Result<RagRecord>> {
        let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        read_rag(file.path(), &BadRows::default()).unwrap().collect()
    }

    #[test]
    fn the_usual_spellings_are_one_record() {
        let rows = read(
            "{\"query\": \"q\", \"answer\": \"a\", \"ctxs\": [{\"id\": 7, \"title\": \"T\", \"text\": \"x\", \"score\": 0.5}, \"y\"], \"gold\": [\"7\"]}\n",
        );
        let r = rows[0].as_ref().unwrap();
        assert_eq!((r.question.as_str(), r.answers[0].as_str(), r.id.as_str()), ("q", "a", "row-1"));
        assert_eq!(r.contexts[0].passage.title.as_deref(), Some("T"));
        assert_eq!((r.contexts[0].score, r.contexts[1].passage.text.as_str()), (Some(0.5), "y"));
        assert_eq!(r.gold, [r.contexts[0].passage.clone()]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let p = |id: &str| Passage { id: id.into(), title: Some("T".into()), text: format!("text {id}") };
        let record = RagRecord {
            id: "q1".into(),
            question: "why?".into(),
            answers: vec!["because".into(), "so".into()],
            contexts: vec![
                Found { passage: p("a"), score: Some(1.5) },
                Found { passage: p("b"), score: None },
            ],
            gold: vec![p("b"), p("missed")],
        };
        let rows = read(&format!("{}\n", rag_line(&record)));
        assert_eq!(rows[0].as_ref().unwrap(), &record);
    }

    #[test]
    fn preferences_need_all_three_texts() {
        let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        let rows = "{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}\n{\"prompt\": \"p\", \"chosen\": \"c\"}\n";
        file.write_all(rows.as_bytes()).unwrap();
        let read: Vec<_> = read_preferences(file.path(), &BadRows::default()).unwrap().collect();
        assert_eq!(read[0].as_ref().unwrap().rejected, "r");
        let e = read[1].as_ref().unwrap_err().to_string();
        assert!(e.contains("no rejected") && e.contains(":2"), "{e}");
    }

    #[test]
    fn faults_name_line_and_column() {
        for (line, words) in [
            ("{\"answers\": [\"a\"]}", "no question"),
            ("{\"question\": \" \"}", "question"),
            ("{\"question\": \"q\", \"answers\": [true]}", "answers"),
            ("{\"question\": \"q\", \"contexts\": [{\"title\": \"t\"}]}", "without text"),
            ("{\"question\": \"q\", \"gold\": [\"z\"]}", "`z` is not among"),
            ("{\"question\": ", "JSON"),
        ] {
            let e = read(&format!("\n{line}\n"))[0].as_ref().unwrap_err().to_string();
            assert!(e.contains(words) && e.contains(":2"), "{line}: {e}");
        }
    }
}
