//! Conversations as data sets write them: lists of messages with a role and a content, and what some have beside them.
//!
//! A message goes to the chat template with all that its row says (`tool_calls`, `reasoning_content`, `name` ...), as
//! transformers passes it. Two things are put in order: a key without a value is left out (Arrow fills keys that only
//! other rows have), and arguments of a call that are JSON in a text become the object, which templates expect.

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::fields::text;
use crate::rag_record::{Message, RagRecord, Style};
use serde_json::{Map, Value, json};

/// The roles that are read.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// What a message may say instead of words.
const WORDLESS: [&str; 5] = ["tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"];

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
        (Some(turn), true) if turn.role() == "assistant" => Ok(turn),
        _ => Err(Fault::new(
            Problem::WrongType,
            format!(
                "{column}: expected one message of the assistant: the turns before it belong to the prompt"
            ),
        )),
    }
}

/// The record of a prompt and its completion: a text, or one message or more, the first and the last of them the
/// assistant's.
pub(crate) fn completion(prompt: &Value, completion: &Value) -> Result<RagRecord, Fault> {
    let mut turns = turns("prompt", prompt)?;
    let more = match completion.as_array() {
        Some(list) if list.len() > 1 => self::turns("completion", completion)?,
        _ => vec![answer("completion", completion)?],
    };
    let by_assistant = |turn: Option<&Message>| turn.is_some_and(|turn| turn.role() == "assistant");
    if !by_assistant(more.first()) || !by_assistant(more.last()) {
        let detail = "completion: its first and its last message must be the assistant's: what others say before the \
                      answer belongs to the prompt";
        return Err(Fault::new(Problem::WrongType, detail));
    }
    let completed = more.len() - 1;
    turns.extend(more);
    Ok(RagRecord { completed, ..record(turns)? })
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
    match row.get("role") {
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => {}
        Some(Value::String(role)) => {
            return Err(wrong(format!(".role: {role:?} is none of {}", ROLES.join(", "))));
        }
        _ => return Err(Fault::new(Problem::MissingColumn, format!("{place}: no role"))),
    }
    weight(&place, row)?;
    let mut out = Map::new();
    for (name, value) in row {
        let value = match (name.as_str(), value) {
            ("content", Value::Null) => Value::Null,
            ("content", value) => content(&place, row, value)?.into(),
            (_, Value::Null) => continue,
            ("tool_calls", Value::Array(calls)) if calls.is_empty() => continue,
            ("tool_calls", calls) => Value::Array(tool_calls(&place, calls)?),
            ("function_call", call) => called(&format!("{place}.function_call"), call)?,
            (_, value) => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    if out.get("content").is_none_or(Value::is_null) && !wordless(&out) {
        return Err(Fault::new(Problem::MissingColumn, format!("{place}: no content")));
    }
    Ok(Message::of(out))
}

/// Whether a message may be without words: the call of a tool, a thought.
fn wordless(row: &Map<String, Value>) -> bool {
    let says = |value: &Value| match value {
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.trim().is_empty(),
        other => other.is_object(),
    };
    WORDLESS.iter().any(|name| row.get(*name).is_some_and(says))
}

/// The words of a message: a text, or the texts of its parts. A tool may find nothing.
fn content(place: &str, row: &Map<String, Value>, value: &Value) -> Result<String, Fault> {
    let result = matches!(row.get("role").and_then(Value::as_str), Some("tool" | "function"));
    match value {
        Value::Array(parts) => parts.iter().map(|p| part(place, p)).collect(),
        Value::String(words) if words.trim().is_empty() && (result || wordless(row)) => Ok(words.clone()),
        // What a tool found may be JSON.
        Value::Object(_) if result => Ok(value.to_string()),
        value => text(&format!("{place}.content"), value),
    }
}

/// Whether a message is learned: `weight` (OpenAI) is 0 or 1, `train` (Axolotl) false or true.
fn weight(place: &str, row: &Map<String, Value>) -> Result<(), Fault> {
    for name in ["weight", "train"] {
        match row.get(name) {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::Number(n)) if matches!(n.as_f64(), Some(0.0 | 1.0)) => {}
            Some(other) => {
                let detail = format!("{place}.{name}: expected 0 (not learned) or 1 (learned), got {other}");
                return Err(Fault::new(Problem::WrongType, detail));
            }
        }
    }
    Ok(())
}

fn tool_calls(place: &str, value: &Value) -> Result<Vec<Value>, Fault> {
    let Value::Array(list) = value else {
        let detail = format!("{place}.tool_calls: expected a list of calls, got {}", columns::kind(value));
        return Err(Fault::new(Problem::WrongType, detail));
    };
    let one = |(i, call): (usize, &Value)| {
        let place = format!("{place}.tool_calls[{i}]");
        let mut call = called(&place, call)?;
        if let Some(function) = call.get("function") {
            call["function"] = called(&format!("{place}.function"), function)?;
        }
        Ok(call)
    };
    list.iter().enumerate().map(one).collect()
}

/// A call with its arguments as an object, where they are JSON in a text.
fn called(place: &str, call: &Value) -> Result<Value, Fault> {
    let Value::Object(call) = call else {
        let detail =
            format!("{place}: expected an object with name and arguments, got {}", columns::kind(call));
        return Err(Fault::new(Problem::WrongType, detail));
    };
    let mut call = call.clone();
    // Arrow fills what only other calls have.
    call.retain(|_, value| !value.is_null());
    if let Some(Value::String(arguments)) = call.get("arguments") {
        let object = match arguments.trim() {
            "" => Ok(json!({})),
            written => serde_json::from_str::<Map<String, Value>>(written).map(Value::Object),
        };
        let object = object.map_err(|why| {
            let detail = format!("{place}.arguments: expected an object, or one as a text of JSON ({why})");
            Fault::new(Problem::WrongType, detail)
        })?;
        call.insert("arguments".into(), object);
    }
    Ok(Value::Object(call))
}

/// The tools of a row, as templates see them: a list, or one as a text of JSON. OpenAI's older `functions` are put into
/// the form of `tools`.
pub(crate) fn tools(row: &Map<String, Value>) -> Result<Vec<Value>, Fault> {
    let mut out = Vec::new();
    for name in TOOLS {
        let wrong = |what: String| Fault::new(Problem::WrongType, format!("{name}{what}"));
        let list = match row.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(list)) => list.clone(),
            Some(Value::String(written)) if written.trim().is_empty() => continue,
            Some(Value::String(written)) => serde_json::from_str(written).map_err(|why| {
                wrong(format!(": expected a list of tools, or one as a text of JSON ({why})"))
            })?,
            Some(other) => {
                return Err(wrong(format!(": expected a list of tools, got {}", columns::kind(other))));
            }
        };
        for (i, tool) in list.into_iter().enumerate() {
            let Value::Object(mut tool) = tool else {
                return Err(wrong(format!("[{i}]: expected an object, got {}", columns::kind(&tool))));
            };
            tool.retain(|_, value| !value.is_null());
            out.push(match name {
                "functions" => json!({"type": "function", "function": tool}),
                _ => Value::Object(tool),
            });
        }
    }
    Ok(out)
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

/// The record of a conversation: the last question, what was said before it and since, and the answer if it has been
/// given.
pub(crate) fn record(mut turns: Vec<Message>) -> Result<RagRecord, Fault> {
    let last = turns.pop_if(|turn| turn.role() == "assistant");
    let open =
        last.is_none() && turns.last().is_none_or(|t| !matches!(t.role(), "user" | "tool" | "function"));
    let at = turns.iter().rposition(|turn| turn.role() == "user").filter(|_| !open);
    let Some(at) = at else {
        return Err(Fault::new(
            Problem::WrongType,
            "the conversation must have a message of the user, and end with it, with the result of a tool or with the \
             assistant's answer",
        ));
    };
    let steps = turns.split_off(at + 1);
    let asked = turns.pop();
    let words = last.iter().map(|turn| turn.content().to_owned()).filter(|words| !words.trim().is_empty());
    Ok(RagRecord {
        question: asked.as_ref().map(|turn| turn.content().to_owned()).unwrap_or_default(),
        answers: words.collect(),
        style: Style::Chat,
        history: turns,
        steps,
        asked: asked.filter(Message::says_more),
        reply: last.filter(Message::says_more),
        ..RagRecord::default()
    })
}
