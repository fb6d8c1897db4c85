//! Preferences as public data sets and training tools have them, rewritten to `prompt`, `chosen` and `rejected`.
//!
//! | shape | columns |
//! |---|---|
//! | LLaMA-Factory, ShareGPT | `conversations` or `messages`, `chosen` and `rejected` as one message each; `system` |
//! | LLaMA-Factory, Alpaca | `instruction`, `input`, `chosen`, `rejected`; `system`, `history` |
//! | Orca | `system`, `question`, `chosen`, `rejected` |
//! | TRL, implicit prompt | `chosen` and `rejected` as texts that begin alike |

use serde_json::{Map, Value, json};

use crate::shapes::{self, has};

type Row = Map<String, Value>;

/// Columns that are rewritten here.
pub(crate) const COLUMNS: [&str; 8] =
    ["conversations", "messages", "instruction", "input", "system", "history", "question", "query"];

/// The row with the names that preferences are read by.
pub(crate) fn canonical(mut row: Row) -> Row {
    if !has(&row, "chosen") || !has(&row, "rejected") {
        return row;
    }
    for name in ["chosen", "rejected"] {
        if let Some(value) = row.get_mut(name) {
            // One message is a list of one.
            let list = if value.is_object() { json!([value.take()]) } else { value.take() };
            *value = shapes::messages(list);
        }
    }
    if !has(&row, "prompt") {
        if has(&row, "instruction") {
            row = alpaca(row);
        } else if let Some(turns) =
            ["conversations", "messages"].iter().find_map(|name| row.shift_remove(*name))
        {
            // UltraFeedback repeats the chosen conversation as `messages`.
            if row.get("chosen").is_none_or(|chosen| !same_start(&turns, chosen)) {
                row.insert("prompt".into(), shapes::messages(turns));
            }
        } else if let Some(question) = ["question", "query"].iter().find_map(|name| row.shift_remove(*name)) {
            row.insert("prompt".into(), question);
        } else if let Some((prompt, chosen, rejected)) = implicit(&row) {
            row.insert("prompt".into(), prompt.into());
            row.insert("chosen".into(), chosen.into());
            row.insert("rejected".into(), rejected.into());
        }
    }
    system(&mut row);
    row
}

/// Whether `messages` is the chosen conversation over again.
fn same_start(messages: &Value, chosen: &Value) -> bool {
    chosen.as_array().is_some_and(|list| list.len() > 1) && messages == chosen
}

/// `instruction`, `input` and earlier turns as a prompt.
fn alpaca(row: Row) -> Row {
    let (mut asked, mut rest) = (Row::new(), Row::new());
    for (name, value) in row {
        let of_prompt = ["instruction", "input", "history", "system"].contains(&name.as_str());
        if of_prompt {
            asked.insert(name, value)
        } else {
            rest.insert(name, value)
        };
    }
    let mut asked = shapes::canonical(asked);
    let prompt = match asked.shift_remove("messages") {
        Some(messages) => messages,
        None => {
            let instruction = asked.shift_remove("instruction").unwrap_or_default();
            match (instruction.as_str(), asked.get("input").and_then(Value::as_str)) {
                (Some(text), Some(input)) if !input.trim().is_empty() => format!("{text}\n\n{input}").into(),
                _ => instruction,
            }
        }
    };
    rest.extend(asked.shift_remove("system").map(|system| ("system".to_owned(), system)));
    // An instruction is what a user says.
    rest.insert("prompt".into(), said(prompt));
    rest
}

/// A text as a user's message.
fn said(prompt: Value) -> Value {
    if prompt.is_string() { json!([{"role": "user", "content": prompt}]) } else { prompt }
}

/// Puts a system text in front of the prompt, or of both conversations.
fn system(row: &mut Row) {
    let text = row.shift_remove("system").filter(|s| s.as_str().is_some_and(|s| !s.trim().is_empty()));
    let Some(system) = text.map(|text| json!({"role": "system", "content": text})) else { return };
    match row.shift_remove("prompt") {
        Some(prompt) => {
            let mut turns = vec![system];
            match said(prompt) {
                Value::Array(list) => turns.extend(list),
                other => turns.push(other),
            }
            row.insert("prompt".into(), turns.into());
        }
        None => {
            for name in ["chosen", "rejected"] {
                if let Some(Value::Array(list)) = row.get_mut(name) {
                    list.insert(0, system.clone());
                }
            }
        }
    }
}

/// What two texts begin with, up to the last white space before they differ, and the rest of each. TRL cuts at the first
/// character that differs, also inside of a word.
fn implicit(row: &Row) -> Option<(String, String, String)> {
    let (chosen, rejected) = (row.get("chosen")?.as_str()?, row.get("rejected")?.as_str()?);
    let same =
        chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let start: &str = &chosen[..same];
    // The white space belongs to the answers, as a tokenizer's words begin with it.
    let end = match start.char_indices().rev().find(|(_, c)| c.is_whitespace()) {
        Some((at, '\n')) => at + 1,
        Some((at, _)) => at,
        None => same,
    };
    let prompt = &chosen[..end];
    (!prompt.trim().is_empty())
        .then(|| (prompt.to_owned(), chosen[end..].to_owned(), rejected[end..].to_owned()))
}
