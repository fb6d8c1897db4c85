//! Texts, or pairs of texts, with what a classifier is to say of them.
//!
//! JSON Lines or one JSON array (`.gz` and `.zst` as they are), Parquet, or a folder of these.
//!
//! | role | columns, the first that is there |
//! |---|---|
//! | first text | `text`, `sentence`, `sentence1`, `premise`, `query`, `question`, `anchor` |
//! | second text | `text_pair`, `sentence2`, `hypothesis`, `passage`, `answer` |
//! | label | `label`, `labels`, `score`: a name, a number, true or false, or a list of names |
//! | id | `id`, `_id`, `idx` |

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::fields::text;
use crate::read::rows::objects;
use crate::reads::LABELLED;
use crate::shown::with_first;
use crate::{BadRows, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// What a text is said to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// A number: a class counted from 0, or a score.
    Number(f64),
    /// A class by name; `true` and `false` are names too.
    Name(String),
    /// Any number of classes.
    Names(Vec<String>),
}

/// A text, or two, with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledRecord {
    /// The row's own id.
    pub id: Option<String>,
    /// The first text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// Absent in rows that are to be labelled.
    pub label: Option<Label>,
}

impl LabelledRecord {
    /// The record as a row of [`read_labelled`]'s format.
    pub(crate) fn json(&self) -> Value {
        let mut row = Row::new();
        let texts = [("id", self.id.as_ref()), ("text", Some(&self.text)), ("text_pair", self.pair.as_ref())];
        row.extend(texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?)))));
        match &self.label {
            None => {}
            Some(Label::Names(names)) => {
                row.insert("labels".into(), json!(names));
            }
            // A class is a whole number.
            Some(Label::Number(n)) if n.fract() == 0.0 && n.abs() < 9e15 => {
                row.insert("label".into(), json!(*n as i64));
            }
            Some(label) => {
                row.insert("label".into(), json!(label));
            }
        }
        Value::Object(row)
    }
}

pub(crate) const FIRST: [&str; 7] =
    ["text", "sentence", "sentence1", "premise", "query", "question", "anchor"];
pub(crate) const SECOND: [&str; 5] = ["text_pair", "sentence2", "hypothesis", "passage", "answer"];
pub(crate) const LABEL: [&str; 3] = ["label", "labels", "score"];
pub(crate) const ID: [&str; 3] = ["id", "_id", "idx"];

/// Reads records; each must have a label where `labelled`.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_labelled(
    path: impl AsRef<Path>,
    labelled: bool,
    bad: &BadRows,
) -> Result<Box<dyn Iterator<Item = Result<LabelledRecord>> + Send>> {
    let rows = objects(path.as_ref(), bad, &LABELLED, move |row, _| record(&row, labelled))?;
    Ok(with_first(path.as_ref(), "text", bad, rows))
}

type Row = Map<String, Value>;

fn first<'a>(row: &'a Row, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    names.iter().find_map(|name| Some((*name, row.get(*name).filter(|v| !v.is_null())?)))
}

fn missing(row: &Row, what: &str, names: &[&str]) -> Fault {
    let found: Vec<&str> = row.keys().map(String::as_str).collect();
    let detail = format!("no {what} (read are {}; found {})", names.join(", "), found.join(", "));
    Fault::new(Problem::MissingColumn, detail)
}

fn record(row: &Row, labelled: bool) -> std::result::Result<LabelledRecord, Fault> {
    let (name, value) = first(row, &FIRST).ok_or_else(|| missing(row, "text", &FIRST))?;
    let whole = |name: &str, value: &Value| {
        let text = text(name, value)?;
        if text.trim().is_empty() {
            return Err(Fault::new(Problem::EmptyText, format!("{name} is empty")));
        }
        Ok(text)
    };
    let text = whole(name, value)?;
    let pair = first(row, &SECOND).map(|(name, value)| whole(name, value)).transpose()?;
    let label = first(row, &LABEL).map(|(name, value)| label(name, value)).transpose()?;
    if labelled && label.is_none() {
        return Err(missing(row, "label", &LABEL));
    }
    let id = first(row, &ID).and_then(|(_, v)| match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    });
    Ok(LabelledRecord { id, text, pair, label })
}

fn label(name: &str, value: &Value) -> std::result::Result<Label, Fault> {
    let wrong = |v: &Value| {
        let detail =
            format!("{name}: expected a name, a number or a list of names, got {}", columns::kind(v));
        Fault::new(Problem::WrongType, detail)
    };
    match value {
        Value::String(s) if s.trim().is_empty() => {
            Err(Fault::new(Problem::EmptyText, format!("{name} is empty")))
        }
        Value::String(s) => Ok(Label::Name(s.clone())),
        Value::Bool(b) => Ok(Label::Name(b.to_string())),
        Value::Number(n) => {
            n.as_f64().filter(|n| n.is_finite()).map(Label::Number).ok_or_else(|| wrong(value))
        }
        Value::Array(list) => {
            let names = list.iter().map(|v| match v {
                Value::String(s) => Ok(s.clone()),
                Value::Number(n) => Ok(n.to_string()),
                other => Err(wrong(other)),
            });
            Ok(Label::Names(names.collect::<std::result::Result<_, _>>()?))
        }
        other => Err(wrong(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: Value) -> std::result::Result<LabelledRecord, Fault> {
        let Value::Object(row) = json else { panic!("an object") };
        record(&row, true)
    }

    #[test]
    fn rows_by_their_columns() {
        let r =
            parse(serde_json::json!({"premise": "a", "hypothesis": "b", "label": 1, "idx": 7})).ok().unwrap();
        assert_eq!((r.text.as_str(), r.pair.as_deref(), r.id.as_deref()), ("a", Some("b"), Some("7")));
        assert_eq!(r.label, Some(Label::Number(1.0)));
        let r = parse(serde_json::json!({"text": "a", "labels": ["x", "y"]})).ok().unwrap();
        assert_eq!((r.pair, r.label), (None, Some(Label::Names(vec!["x".into(), "y".into()]))));
        let r = parse(serde_json::json!({"sentence": "a", "label": false})).ok().unwrap();
        assert_eq!(r.label, Some(Label::Name("false".into())));
    }

    #[test]
    fn bad_rows_say_what_is_missing() {
        let e = |json| parse(json).err().unwrap();
        assert!(e(serde_json::json!({"body": "a", "label": 1})).detail.contains("no text"));
        assert!(e(serde_json::json!({"text": "a"})).detail.contains("no label"));
        assert_eq!(e(serde_json::json!({"text": " ", "label": 1})).problem, Problem::EmptyText);
        assert!(e(serde_json::json!({"text": "a", "label": {"x": 1}})).detail.contains("label: expected"));
        assert!(e(serde_json::json!({"text": "a", "label": [[1]]})).detail.contains("label: expected"));
    }
}
