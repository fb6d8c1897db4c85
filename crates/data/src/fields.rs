//! Values of a row by the names that data sets use for them, for records of questions and answers.

use serde_json::{Map, Value};

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::shapes;

/// Names of the question.
pub(crate) const QUESTION: [&str; 4] = ["question", "query", "anchor", "query_text"];
pub(crate) const ANSWERS: [&str; 3] = ["answers", "answer", "output"];
/// Names of the passages.
pub(crate) const CONTEXTS: [&str; 3] = ["contexts", "passages", "ctxs"];

/// Whether a column takes part in a record.
pub(crate) fn is_known(column: &str) -> bool {
    const MORE: [&str; 12] = [
        "messages",
        "prompt",
        "completion",
        "instruction",
        "input",
        "system",
        "gold",
        "text",
        // Of rows that are no records, to say so.
        "chosen",
        "rejected",
        "label",
        "labels",
    ];
    [
        &QUESTION[..],
        &ANSWERS,
        &CONTEXTS,
        &columns::QUERY_ID,
        &crate::conversation::TOOLS,
        &shapes::COLUMNS,
        &MORE,
    ]
    .concat()
    .contains(&column)
}

/// The id of a row, or a name by its number.
pub(crate) fn row_id(row: &Map<String, Value>, number: u64) -> String {
    match first(row, &columns::QUERY_ID) {
        Some((_, Value::String(s))) => s.clone(),
        Some((_, Value::Number(n))) => n.to_string(),
        _ => format!("row-{number}"),
    }
}

/// A column that must be there.
pub(crate) fn need<'a>(row: &'a Map<String, Value>, name: &str) -> Result<&'a Value, Fault> {
    let value = row.get(name).filter(|v| !v.is_null());
    value.ok_or_else(|| Fault::new(Problem::MissingColumn, format!("no {name}")))
}

/// The answers of a row: none, one or a list.
pub(crate) fn answers_of(row: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    match first(row, &ANSWERS) {
        None => Ok(Vec::new()),
        Some((name, Value::Array(list))) => list.iter().map(|v| text(name, v)).collect(),
        Some((name, value)) => Ok(vec![text(name, value)?]),
    }
}

/// The first of the names that the row has with a value.
pub(crate) fn first<'a>(
    row: &'a Map<String, Value>,
    names: &[&'static str],
) -> Option<(&'static str, &'a Value)> {
    names.iter().find_map(|&n| row.get(n).filter(|v| !v.is_null()).map(|v| (n, v)))
}

/// A text, or a number as one.
pub(crate) fn text(column: &str, value: &Value) -> Result<String, Fault> {
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
