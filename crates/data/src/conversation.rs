//! Conversations as data sets write them: lists of messages with a role and a content.

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::fields::text;
use crate::rag_record::{Message, RagRecord, Style};
use serde_json::{Map, Value};

/// The roles that are read.
const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];

/// The messages of a column; a lone text is what a user says.
pub(crate) fn turns(column: &str, value: &Value) -> Result<Vec<Message>, Fault> {
    match value {
        Value::Array(list) if list.is_empty() => {
            Err(Fault::new(Problem::EmptyText, format!("{column}: no message")))
        }
        Value::Array(list) => list.iter().enumerate().map(|(i, m)| turn(column, i, m)).collect(),
        other => Ok(vec![Message::new("user", text(column, other)?)]),
    }
}

/// The one answer of a column: a text, or a list of one message.
pub(crate) fn answer(column: &str, value: &Value) -> Result<Message, Fault> {
    if !value.is_array() {
        return Ok(Message::new("assistant", text(column, value)?));
    }
    let mut turns = turns(column, value)?;
    match (turns.pop(), turns.is_empty()) {
        (Some(turn), true) if turn.role == "assistant" => Ok(turn),
        _ => Err(Fault::new(
            Problem::WrongType,
            format!(
                "{column}: expected one message of the assistant: the turns before it belong to the prompt (for several \
                 answers to learn, write the row as `messages`, with prompt.loss_on = \"assistant\")"
            ),
        )),
    }
}

fn turn(column: &str, index: usize, value: &Value) -> Result<Message, Fault> {
    let place = format!("{column}[{index}]");
    let wrong = |what: String| Fault::new(Problem::WrongType, format!("{place}{what}"));
    let Value::Object(row) = value else {
        return Err(wrong(format!(
            ": expected an object with role and content, got {}",
            columns::kind(value)
        )));
    };
    unread(&place, row)?;
    let role = match row.get("role") {
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => role,
        Some(Value::String(role)) => {
            return Err(wrong(format!(".role: {role:?} is none of {}", ROLES.join(", "))));
        }
        _ => return Err(Fault::new(Problem::MissingColumn, format!("{place}: no role"))),
    };
    let content = match row.get("content") {
        Some(Value::Array(parts)) => parts.iter().map(|p| part(&place, p)).collect::<Result<String, _>>()?,
        Some(value) if !value.is_null() => text(&format!("{place}.content"), value)?,
        _ => return Err(Fault::new(Problem::MissingColumn, format!("{place}: no content"))),
    };
    Ok(Message::new(role, content))
}

/// What would change a conversation and is not read: such a row is no example.
const UNREAD: [&str; 8] = [
    "tool_calls",
    "function_call",
    "tool_call_id",
    "reasoning_content",
    "reasoning",
    "thinking",
    "weight",
    "train",
];

/// Refuses a message, or a row of messages, that says more than is learned.
fn unread(place: &str, row: &Map<String, Value>) -> Result<(), Fault> {
    for name in UNREAD {
        let says = match row.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::String(text)) => !text.trim().is_empty(),
            // A weight of 1 is every message's.
            Some(Value::Number(n)) => n.as_f64() != Some(1.0),
            Some(Value::Bool(on)) => !on,
        };
        if says {
            let detail =
                format!("{place}.{name} is not supported, and without it the row says something else");
            return Err(Fault::new(Problem::WrongType, detail));
        }
    }
    Ok(())
}

/// Refuses a row whose tools the template would have to show.
pub(crate) fn no_tools(row: &Map<String, Value>) -> Result<(), Fault> {
    for name in TOOLS {
        let empty = match row.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::String(text)) => matches!(text.trim(), "" | "[]"),
            Some(_) => false,
        };
        if !empty {
            let detail =
                format!("{name}: tools are not supported, and without them the row says something else");
            return Err(Fault::new(Problem::WrongType, detail));
        }
    }
    Ok(())
}

/// Columns of tools that a conversation may call.
pub(crate) const TOOLS: [&str; 2] = ["tools", "functions"];

/// A part of a content that is a list: text is all that can be read.
fn part(place: &str, value: &Value) -> Result<String, Fault> {
    let get = |row: &Map<String, Value>| row.get("text").and_then(Value::as_str).map(str::to_owned);
    value.as_object().and_then(get).ok_or_else(|| {
        Fault::new(Problem::WrongType, format!("{place}.content: a part without text; only text is read"))
    })
}

/// The record of a conversation: the last question, what was before it, and the answer if it has been given.
pub(crate) fn record(mut turns: Vec<Message>) -> Result<RagRecord, Fault> {
    let mut answers = Vec::new();
    if turns.last().is_some_and(|t| t.role == "assistant") {
        answers.extend(turns.pop().map(|t| t.content));
    }
    match turns.pop() {
        Some(question) if question.role == "user" => Ok(RagRecord {
            question: question.content,
            answers,
            style: Style::Chat,
            history: turns,
            ..RagRecord::default()
        }),
        _ => Err(Fault::new(
            Problem::WrongType,
            "the conversation must end with a message of the user, or with one and the assistant's answer",
        )),
    }
}
