//! Judged answers: pairs of a better and a worse one, or single ones that are good or bad.
//!
//! JSON Lines or one JSON array (`.gz` and `.zst` as they are), or Parquet.
//!
//! | records | columns |
//! |---|---|
//! | [`PreferenceRecord`] | `prompt`, `chosen`, `rejected`: texts or lists of messages; without `prompt`, `chosen` and `rejected` are whole conversations that differ in their last message, or texts that begin alike; and the shapes of [`preference_shapes`](crate::preference_shapes) |
//! | [`JudgedRecord`] | `prompt`, `completion`, `label`: true (or 1) for a good completion |
//!
//! Messages and a row's `tools` reach the chat template as those of a conversation do.

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::conversation::{answer, tools, turns};
use crate::fields::text;
use crate::preference_shapes;
use crate::rag_record::{Message, Prompt};
use crate::read::rows::objects;
use crate::reads::{JUDGED, PREFERENCES};
use crate::shown::with_first;
use crate::{BadRows, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A prompt with a better and a worse answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceRecord {
    /// What is answered.
    pub prompt: Prompt,
    /// The better answer.
    pub chosen: Message,
    /// The worse one.
    pub rejected: Message,
    /// Tools that may be called, as templates see them.
    pub tools: Vec<Value>,
}

/// A prompt with an answer that is good or bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedRecord {
    /// What is answered.
    pub prompt: Prompt,
    /// The answer.
    pub completion: Message,
    /// Whether it is a good one.
    pub good: bool,
    /// Tools that may be called, as templates see them.
    pub tools: Vec<Value>,
}

impl PreferenceRecord {
    /// The record as a row of [`read_preferences`]' format.
    pub(crate) fn json(&self) -> Value {
        let answer = |answer: &Message| answer_json(&self.prompt, answer);
        let mut out = json!({"prompt": prompt_json(&self.prompt)});
        (out["chosen"], out["rejected"]) = (answer(&self.chosen), answer(&self.rejected));
        with_tools(out, &self.tools)
    }
}

impl JudgedRecord {
    /// The record as a row of [`read_judged`]'s format.
    pub(crate) fn json(&self) -> Value {
        let completion = answer_json(&self.prompt, &self.completion);
        with_tools(
            json!({"prompt": prompt_json(&self.prompt), "completion": completion, "label": self.good}),
            &self.tools,
        )
    }
}

fn prompt_json(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Turns(turns) => turns.iter().map(Message::json).collect(),
    }
}

/// An answer: a text where its words are all that it says.
fn answer_json(prompt: &Prompt, answer: &Message) -> Value {
    match prompt {
        Prompt::Text(_) if !answer.says_more() => json!(answer.content()),
        _ => json!([answer.json()]),
    }
}

fn with_tools(mut row: Value, tools: &[Value]) -> Value {
    if !tools.is_empty() {
        row["tools"] = json!(tools);
    }
    row
}

type Records<T> = Box<dyn Iterator<Item = Result<T>> + Send>;
type Row = Map<String, Value>;

/// Reads pairs.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_preferences(path: impl AsRef<Path>, bad: &BadRows) -> Result<Records<PreferenceRecord>> {
    let rows = objects(path.as_ref(), bad, &PREFERENCES, |row, _| pair(&preference_shapes::canonical(row)))?;
    Ok(with_first(path.as_ref(), "pair", bad, rows))
}

/// Reads single judged answers.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_judged(path: impl AsRef<Path>, bad: &BadRows) -> Result<Records<JudgedRecord>> {
    let rows = objects(path.as_ref(), bad, &JUDGED, |row, _| judged(&row))?;
    Ok(with_first(path.as_ref(), "completion", bad, rows))
}

fn get<'a>(row: &'a Row, name: &str, needed: &str) -> std::result::Result<&'a Value, Fault> {
    row.get(name).filter(|v| !v.is_null()).ok_or_else(|| missing(row, name, needed))
}

fn missing(row: &Row, name: &str, needed: &str) -> Fault {
    let found: Vec<&str> = row.keys().map(String::as_str).collect();
    let detail = format!("no {name} (read are {needed}; found {})", found.join(", "));
    Fault::new(Problem::MissingColumn, detail)
}

/// A prompt that is there, as a text if it and its answers all are texts.
fn prompt(value: &Value, plain: bool) -> std::result::Result<Prompt, Fault> {
    if plain && !value.is_array() {
        return Ok(Prompt::Text(text("prompt", value)?));
    }
    let turns = turns("prompt", value)?;
    if turns.last().is_some_and(|t| t.role() == "assistant") {
        return Err(Fault::new(Problem::WrongType, "prompt: it ends with an answer already"));
    }
    Ok(Prompt::Turns(turns))
}

fn pair(row: &Row) -> std::result::Result<PreferenceRecord, Fault> {
    const NEEDED: &str = "prompt (or question, instruction, conversations), chosen, rejected; or chosen and rejected as \
                          whole conversations, or as texts that begin with the prompt";
    let (chosen, rejected) = (get(row, "chosen", NEEDED)?, get(row, "rejected", NEEDED)?);
    let (prompt, chosen, rejected) = match row.get("prompt").filter(|v| !v.is_null()) {
        // Some data sets repeat the prompt in front of both answers: then the lists are the whole.
        Some(p) if !long(chosen) && !long(rejected) => {
            let prompt = prompt(p, !chosen.is_array() && !rejected.is_array())?;
            (prompt, answer("chosen", chosen)?, answer("rejected", rejected)?)
        }
        None if !chosen.is_array() || !rejected.is_array() => return Err(missing(row, "prompt", NEEDED)),
        _ => whole(turns("chosen", chosen)?, turns("rejected", rejected)?)?,
    };
    if chosen == rejected {
        return Err(Fault::new(Problem::WrongType, "chosen and rejected are the same answer"));
    }
    Ok(PreferenceRecord { prompt, chosen, rejected, tools: tools(row)? })
}

fn long(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.len() > 1)
}

/// Two conversations that are the same but for the answer at their end.
fn whole(
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
) -> std::result::Result<(Prompt, Message, Message), Fault> {
    let ends = (chosen.pop(), rejected.pop());
    match ends {
        (Some(c), Some(r))
            if c.role() == "assistant"
                && r.role() == "assistant"
                && !chosen.is_empty()
                && chosen == rejected =>
        {
            Ok((Prompt::Turns(chosen), c, r))
        }
        _ => Err(Fault::new(
            Problem::WrongType,
            "chosen and rejected must be conversations that differ in the assistant's last message alone: put the turns \
             before it into both, or into prompt",
        )),
    }
}

fn judged(row: &Row) -> std::result::Result<JudgedRecord, Fault> {
    const NEEDED: &str = "prompt, completion, label";
    let completion = get(row, "completion", NEEDED)?;
    let prompt = prompt(get(row, "prompt", NEEDED)?, !completion.is_array())?;
    let label = get(row, "label", NEEDED)?;
    let good = match (label, label.as_i64()) {
        (Value::Bool(good), _) => *good,
        // Parquet's booleans arrive as numbers.
        (_, Some(number @ (0 | 1))) => number == 1,
        // Tables have texts only.
        (Value::String(text), _) if text.trim().eq_ignore_ascii_case("true") => true,
        (Value::String(text), _) if text.trim().eq_ignore_ascii_case("false") => false,
        _ => {
            let detail = format!("label: expected true or false, got {}", columns::kind(label));
            return Err(Fault::new(Problem::WrongType, detail));
        }
    };
    Ok(JudgedRecord { prompt, completion: answer("completion", completion)?, good, tools: tools(row)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::parse_object;

    #[test]
    fn pairs_as_texts_messages_and_whole_conversations() {
        let user = |text: &str| Prompt::Turns(vec![Message::new("user", text)]);
        for (line, want) in [
            (r#"{"prompt": "p", "chosen": "c", "rejected": "r"}"#, Prompt::Text("p".into())),
            (
                r#"{"prompt": "p", "chosen": [{"role": "assistant", "content": "c"}],
                 "rejected": [{"role": "assistant", "content": "r"}]}"#,
                user("p"),
            ),
            (
                r#"{"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
                 "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]}"#,
                user("p"),
            ),
            (
                r#"{"prompt": "p", "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
                 "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]}"#,
                user("p"),
            ),
        ] {
            let r = pair(&parse_object(line).unwrap()).unwrap();
            assert_eq!((r.prompt, r.chosen.content(), r.rejected.content()), (want, "c", "r"), "{line}");
        }
    }

    #[test]
    fn shapes_of_public_data_sets() {
        let turns = |list: &[(&str, &str)]| {
            Prompt::Turns(list.iter().map(|(role, text)| Message::new(*role, *text)).collect())
        };
        let ends = r#""chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "r"}"#;
        let texts = r#""chosen": "c", "rejected": "r""#;
        for (row, want) in [
            (
                format!(
                    r#"{{"conversations": [{{"from": "human", "value": "x"}}, {{"from": "gpt", "value": "y"}}, {{"from": "human", "value": "p"}}], {ends}}}"#
                ),
                turns(&[("user", "x"), ("assistant", "y"), ("user", "p")]),
            ),
            (
                format!(r#"{{"messages": [{{"role": "user", "content": "p"}}], "system": "s", {ends}}}"#),
                turns(&[("system", "s"), ("user", "p")]),
            ),
            (format!(r#"{{"instruction": "i", "input": "p", {texts}}}"#), turns(&[("user", "i\n\np")])),
            (
                format!(
                    r#"{{"instruction": "p", "input": "", "system": "s", "history": [["x", "y"]], {texts}}}"#
                ),
                turns(&[("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "p")]),
            ),
            (
                format!(r#"{{"system": "s", "question": "p", {texts}}}"#),
                turns(&[("system", "s"), ("user", "p")]),
            ),
            (format!(r#"{{"system": "", "question": "p", {texts}}}"#), Prompt::Text("p".into())),
            (
                format!(r#"{{"system": "s", "prompt": "p", {texts}}}"#),
                turns(&[("system", "s"), ("user", "p")]),
            ),
            (
                r#"{"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
                    "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
                    "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}],
                    "score_chosen": 8.0}"#
                    .into(),
                turns(&[("user", "p")]),
            ),
        ] {
            let r = pair(&preference_shapes::canonical(parse_object(&row).unwrap())).unwrap();
            assert_eq!((r.prompt, r.chosen.content(), r.rejected.content()), (want, "c", "r"), "{row}");
        }
    }

    #[test]
    fn a_prompt_that_both_texts_begin_with() {
        let read = |chosen: &str, rejected: &str| {
            let row = serde_json::json!({"chosen": chosen, "rejected": rejected});
            pair(&preference_shapes::canonical(row.as_object().unwrap().clone()))
        };
        for (chosen, rejected, want) in [
            ("The sky is blue.", "The sky is black.", ("The sky is", " blue.", " black.")),
            (
                "Human: q\n\nAssistant: yes",
                "Human: q\n\nAssistant: no",
                ("Human: q\n\nAssistant:", " yes", " no"),
            ),
            ("q\nyes", "q\nno", ("q\n", "yes", "no")),
            ("天空是蓝色", "天空是绿色", ("天空是", "蓝色", "绿色")),
        ] {
            let r = read(chosen, rejected).unwrap();
            let Prompt::Text(prompt) = r.prompt else { panic!("a text") };
            assert_eq!((prompt.as_str(), r.chosen.content(), r.rejected.content()), want);
        }
        assert!(read("yes", "no").unwrap_err().detail.contains("texts that begin with the prompt"));
    }

    #[test]
    fn faults_say_what_was_found() {
        for (line, words) in [
            (r#"{"prompt": "p", "chosen": "c"}"#, "no rejected"),
            (r#"{"chosen": "c", "rejected": "r"}"#, "no prompt (read are"),
            (r#"{"prompt": "p", "chosen": "c", "rejected": "c"}"#, "same answer"),
            (r#"{"prompt": "p", "chosen": " ", "rejected": "c"}"#, "chosen"),
            (
                r#"{"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
                 "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}"#,
                "last message alone",
            ),
        ] {
            let e = pair(&parse_object(line).unwrap()).unwrap_err().detail;
            assert!(e.contains(words), "{line}: {e}");
        }
        let judge = |line: &str| judged(&parse_object(line).unwrap());
        assert!(judge(r#"{"prompt": "p", "completion": "c", "label": true}"#).unwrap().good);
        assert!(!judge(r#"{"prompt": "p", "completion": "c", "label": 0}"#).unwrap().good);
        let e = judge(r#"{"prompt": "p", "completion": "c", "label": "yes"}"#).unwrap_err().detail;
        assert!(e.contains("true or false"), "{e}");
        assert!(judge(r#"{"prompt": "p", "completion": "c"}"#).unwrap_err().detail.contains("found prompt"));
    }
}
