//! Records that a generator learns from: questions with answers and passages, conversations, prompts with completions.
//!
//! JSON Lines or one JSON array (`.gz` and `.zst` as they are), or Parquet. Which of five formats a row has is seen by
//! its columns ([`RecordFormat`]), or said:
//!
//! | format | columns |
//! |---|---|
//! | `rag` | a question, and what the table below has |
//! | `chat` | `messages`: objects with `role` (system, developer, user, assistant, tool) and `content`; `contexts`; `tools` |
//! | `prompt_completion` | `prompt` and `completion`: two texts, or two lists of messages, all of the second learned; `prompt` alone has no answer |
//! | `alpaca` | `instruction` and `output`, optionally `input` and `system` |
//! | `text` | `text`: all of it is learned, without a prompt (language modeling) |
//!
//! A conversation is learned up to its last message, an answer to the last message of the user. One that ends with the
//! user's message, or with the result of a tool, has no answer yet. What messages have beside role and content
//! (`tool_calls`, `reasoning_content` ...) and the row's `tools` go to the chat template; a message whose `weight` is 0 is
//! not learned.
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
use crate::conversation;
use crate::fields::{ANSWERS, CONTEXTS, QUESTION, answers_of, first, need, row_id, text};
use crate::kind::ANY;
use crate::rag_record::{Found, Message, RagRecord, Style};
use crate::read::rows::objects;
use crate::reads::RECORDS;
use crate::record::text_id;
use crate::shapes;
use crate::shown::with_first;
use crate::{BadRows, Origin, Passage, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The formats of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// A question with answers and passages.
    Rag,
    /// `messages`.
    Chat,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `text`.
    Text,
}

/// A stream of records.
pub type RagRecords = Box<dyn Iterator<Item = Result<RagRecord>> + Send>;

/// Reads a file of records, or a folder of such files; the format of each row is seen by its columns.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_rag(path: impl AsRef<Path>, bad: &BadRows) -> Result<RagRecords> {
    read_records(path, None, bad)
}

/// Reads a file of records, or a folder of such files, in the format given or seen by its columns.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_records(
    path: impl AsRef<Path>,
    format: Option<RecordFormat>,
    bad: &BadRows,
) -> Result<RagRecords> {
    let file = path.as_ref().to_owned();
    let rows = objects(path.as_ref(), bad, &RECORDS, move |row, number| {
        let row = shapes::canonical(row);
        let tools = conversation::tools(&row)?;
        let record = match format.map_or_else(|| detect(&row), Ok)? {
            RecordFormat::Rag => record(row, number),
            RecordFormat::Chat => chat(&row, number),
            RecordFormat::PromptCompletion => prompt_completion(&row, number),
            RecordFormat::Alpaca => alpaca(&row, number),
            RecordFormat::Text => plain(&row, number),
        }?;
        let origin = Origin { path: file.clone(), line: number };
        Ok(RagRecord { origin, tools, ..record })
    })?;
    Ok(with_first(path.as_ref(), "record", bad, rows))
}

/// Why no record of a file has an answer: the columns that were found, and those that are read.
pub fn no_answers(path: &Path, records: usize) -> String {
    let keys = |row: Map<String, Value>, _: u64| Ok(row.keys().cloned().collect::<Vec<_>>());
    let first = objects(path, &BadRows::silent(), &ANY, keys).ok().and_then(|mut rows| rows.next());
    let found = match first {
        Some(Ok(names)) => format!("; the columns found are {}", names.join(", ")),
        _ => String::new(),
    };
    format!(
        "{}: none of its {records} records has an answer{found}; answers are read from {}, and from a last message of the \
         assistant",
        path.display(),
        shapes::RIGHT.iter().chain(&ANSWERS).copied().collect::<Vec<_>>().join(", ")
    )
}

/// A record as a line of [`read_rag`]'s format, without the line's end.
pub fn rag_line(record: &RagRecord) -> String {
    rag_json(record).to_string()
}

/// A record as a row of [`read_rag`]'s format.
pub(crate) fn rag_json(record: &RagRecord) -> Value {
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
    let mut out = match record.style {
        Style::Question => json!({"id": record.id, "question": record.question, "answers": record.answers}),
        Style::Plain if record.asks_nothing() => {
            json!({"id": record.id, "text": record.answers.first()})
        }
        Style::Plain => {
            let mut out = json!({"id": record.id, "prompt": record.question});
            if let Some(answer) = record.answers.first() {
                out["completion"] = json!(answer);
            }
            out
        }
        Style::Chat => {
            let mut messages: Vec<Value> = record.history.iter().map(Message::json).collect();
            messages.push(record.asking(&record.question).json());
            messages.extend(record.steps.iter().map(Message::json));
            messages.extend(record.learned_answer().map(|words| record.answered(words).json()));
            match record.completed {
                0 => json!({"id": record.id, "messages": messages}),
                more => {
                    let completion = messages.split_off(messages.len().saturating_sub(more + 1));
                    json!({"id": record.id, "prompt": messages, "completion": completion})
                }
            }
        }
    };
    // Prompts with completions have no passages.
    if record.style != Style::Plain && record.completed == 0 {
        (out["contexts"], out["gold"]) = (contexts.into(), gold.into());
    }
    if !record.tools.is_empty() {
        out["tools"] = record.tools.clone().into();
    }
    out
}

/// The one format whose columns are all there.
fn detect(row: &Map<String, Value>) -> std::result::Result<RecordFormat, Fault> {
    let has = |name: &str| row.get(name).is_some_and(|v| !v.is_null());
    if has("chosen") && has("rejected") || has("prompt") && has("completion") && has("label") {
        let detail = "a preference (chosen and rejected, or a completion with a label): `ragduet train preference` and \
                      `train reward` read such rows; for supervised training name the answer `completion`, without a label";
        return Err(Fault::new(Problem::WrongType, detail));
    }
    // A text beside any of these is something else.
    let others = ["messages", "prompt", "instruction", "label", "labels"].iter().any(|n| has(n))
        || QUESTION.iter().any(|n| has(n));
    let fits: Vec<(RecordFormat, &str)> = [
        (QUESTION.iter().any(|n| has(n)), RecordFormat::Rag, "rag"),
        (has("messages"), RecordFormat::Chat, "chat"),
        (has("prompt"), RecordFormat::PromptCompletion, "prompt_completion"),
        (has("instruction") && has("output"), RecordFormat::Alpaca, "alpaca"),
        (has("text") && !others, RecordFormat::Text, "text"),
    ]
    .into_iter()
    .filter_map(|(fits, format, name)| fits.then_some((format, name)))
    .collect();
    let found = || row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match fits[..] {
        [(format, _)] => Ok(format),
        [] => Err(Fault::new(
            Problem::MissingColumn,
            format!(
                "no question, and no other known set of columns; found {}; read are a question ({}) with answers and \
                 contexts, messages, prompt + completion, instruction + output, text",
                found(),
                QUESTION.join(", ")
            ),
        )),
        _ => {
            let names: Vec<&str> = fits.iter().map(|f| f.1).collect();
            let detail =
                format!("the columns {} fit {}: say which with `format`", found(), names.join(" and "));
            Err(Fault::new(Problem::WrongType, detail))
        }
    }
}

fn contexts_of(row: &Map<String, Value>) -> std::result::Result<Vec<Found>, Fault> {
    match first(row, &CONTEXTS) {
        None => Ok(Vec::new()),
        Some((name, Value::Array(list))) => list.iter().map(|v| found(name, v)).collect(),
        Some((name, value)) => Ok(vec![found(name, value)?]),
    }
}

fn gold_of(row: &Map<String, Value>, contexts: &[Found]) -> std::result::Result<Vec<Passage>, Fault> {
    match row.get("gold") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|v| golden(v, contexts)).collect(),
        Some(value) => Ok(vec![golden(value, contexts)?]),
    }
}

fn chat(row: &Map<String, Value>, number: u64) -> std::result::Result<RagRecord, Fault> {
    let turns = conversation::turns("messages", need(row, "messages")?)?;
    let mut out = conversation::record(turns)?;
    out.contexts = contexts_of(row)?;
    out.gold = gold_of(row, &out.contexts)?;
    Ok(RagRecord { id: row_id(row, number), ..out })
}

fn prompt_completion(row: &Map<String, Value>, number: u64) -> std::result::Result<RagRecord, Fault> {
    let prompt = need(row, "prompt")?;
    let id = row_id(row, number);
    let Some(completion) = row.get("completion").filter(|v| !v.is_null()) else {
        // A prompt alone is something to answer.
        if prompt.is_array() {
            return Ok(RagRecord { id, ..conversation::record(conversation::turns("prompt", prompt)?)? });
        }
        let question = text("prompt", prompt)?;
        return Ok(RagRecord { id, question, style: Style::Plain, ..RagRecord::default() });
    };
    if !prompt.is_array() && !completion.is_array() {
        let (question, answers) = (text("prompt", prompt)?, vec![text("completion", completion)?]);
        return Ok(RagRecord { id, question, answers, style: Style::Plain, ..RagRecord::default() });
    }
    Ok(RagRecord { id, ..conversation::completion(prompt, completion)? })
}

fn alpaca(row: &Map<String, Value>, number: u64) -> std::result::Result<RagRecord, Fault> {
    let optional = |name: &str| match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.trim().is_empty() => Ok(None),
        Some(value) => text(name, value).map(Some),
    };
    let mut question = text("instruction", need(row, "instruction")?)?;
    if let Some(input) = optional("input")? {
        question = format!("{question}\n\n{input}");
    }
    let history = optional("system")?.map(|s| Message::new("system", s)).into_iter().collect();
    let answers = vec![text("output", need(row, "output")?)?];
    let (id, style) = (row_id(row, number), Style::Chat);
    Ok(RagRecord { id, question, answers, style, history, ..RagRecord::default() })
}

/// A text without a prompt.
fn plain(row: &Map<String, Value>, number: u64) -> std::result::Result<RagRecord, Fault> {
    let answers = vec![text("text", need(row, "text")?)?];
    Ok(RagRecord { id: row_id(row, number), answers, style: Style::Plain, ..RagRecord::default() })
}

pub(crate) fn record(row: Map<String, Value>, number: u64) -> std::result::Result<RagRecord, Fault> {
    let missing = |what: &str, names: &[&str]| {
        Fault::new(Problem::MissingColumn, format!("no {what} (one of {})", names.join(", ")))
    };
    let (name, question) = first(&row, &QUESTION).ok_or_else(|| missing("question", &QUESTION))?;
    let question = text(name, question)?;
    let answers = answers_of(&row)?;
    let contexts = contexts_of(&row)?;
    let gold = gold_of(&row, &contexts)?;
    let id = row_id(&row, number);
    Ok(RagRecord { id, question, answers, contexts, gold, ..RagRecord::default() })
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
            ..RagRecord::default()
        };
        let rows = read(&format!("{}\n", rag_line(&record)));
        assert_eq!(rows[0].as_ref().unwrap(), &record);
    }

    #[test]
    fn what_a_conversation_says_beside_its_words_is_kept() {
        let line = r#"{"tools":[{"type":"function","function":{"name":"look","description":null}}],"messages":[
            {"role":"developer","content":"d"},{"role":"user","content":"q","name":"ann","tool_calls":null},
            {"role":"assistant","content":null,"weight":0,"tool_calls":[{"id":"1","type":"function","function":{"name":"look","arguments":"{\"b\":1,\"a\":[2]}"}}]},
            {"role":"tool","tool_call_id":"1","content":""},
            {"role":"assistant","reasoning_content":"hm","content":"a","tool_calls":[]}]}"#;
        let rows = read(&line.replace('\n', ""));
        let r = rows[0].as_ref().unwrap();
        assert_eq!((r.question.as_str(), &*r.answers, r.steps.len()), ("q", &["a".to_owned()][..], 2));
        assert_eq!(r.history, [Message::new("developer", "d")]);
        assert_eq!(r.asking("q").json(), json!({"role":"user","content":"q","name":"ann"}));
        let call = json!({"id":"1","type":"function","function":{"name":"look","arguments":{"b":1,"a":[2]}}});
        let said = json!({"role":"assistant","content":null,"weight":0,"tool_calls":[call]});
        // In the order of the row: templates print objects as they stand.
        assert_eq!(r.steps[0].json().to_string(), said.to_string());
        assert_eq!(r.steps[1].json(), json!({"role":"tool","tool_call_id":"1","content":""}));
        let reply = json!({"role":"assistant","reasoning_content":"hm","content":"a"});
        assert_eq!(r.answered("a").json(), reply);
        assert_eq!(r.tools[0], json!({"type":"function","function":{"name":"look","description":null}}));
        let again = read(&format!("{}\n", rag_line(r)));
        let again = again[0].as_ref().unwrap();
        assert_eq!(RagRecord { id: r.id.clone(), ..again.clone() }, *r);
    }

    #[test]
    fn a_call_is_an_answer_and_a_result_waits_for_one() {
        let call = r#"{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":""}}]}"#;
        let rows = read(&format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"q\"}},{call}]}}\n\
             {{\"messages\":[{{\"role\":\"user\",\"content\":\"q\"}},{call},{{\"role\":\"tool\",\"content\":{{\"n\":1}}}}],\
             \"functions\":\"[{{\\\"name\\\":\\\"f\\\"}}]\"}}\n"
        ));
        let [called, open] = &rows[..] else { panic!("{rows:?}") };
        let (called, open) = (called.as_ref().unwrap(), open.as_ref().unwrap());
        assert_eq!((called.learned_answer(), called.answers.len()), (Some(""), 0));
        let want = json!({"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}}]});
        assert_eq!(called.answered("").json(), want);
        assert_eq!(
            (open.learned_answer(), open.steps.len(), open.steps[1].content()),
            (None, 2, "{\"n\":1}")
        );
        assert_eq!(open.tools, [json!({"type":"function","function":{"name":"f"}})]);
    }

    #[test]
    fn calls_tools_and_weights_that_are_none_are_bad_rows() {
        let row = |more: &str, tools: &str| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"q\"}}, \
                 {{\"role\": \"assistant\", \"content\": \"a\"{more}}}]{tools}}}"
            )
        };
        for (more, tools, words) in [
            (", \"tool_calls\": 3", "", "messages[1].tool_calls: expected a list"),
            (", \"tool_calls\": [\"f\"]", "", "messages[1].tool_calls[0]: expected an object"),
            (
                ", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": \"{a\"}}]",
                "",
                "tool_calls[0].function.arguments",
            ),
            (", \"weight\": 0.5", "", "messages[1].weight: expected 0"),
            (", \"train\": \"no\"", "", "messages[1].train"),
            ("", ", \"tools\": [\"f\"]", "tools[0]: expected an object"),
            ("", ", \"tools\": \"f\"", "tools: expected a list"),
        ] {
            let e = read(&row(more, tools))[0].as_ref().unwrap_err().to_string();
            assert!(e.contains(words) && e.contains(":1"), "{words}: {e}");
        }
        for (more, tools) in [
            (", \"tool_calls\": [], \"weight\": 1, \"train\": true", ", \"tools\": null"),
            (", \"tool_calls\": null, \"reasoning_content\": \"\"", ", \"tools\": \"[]\""),
        ] {
            let rows = read(&row(more, tools));
            assert!(rows[0].as_ref().unwrap().tools.is_empty());
        }
    }

    #[test]
    fn texts_and_prompts_alone() {
        let rows = read(
            "{\"text\": \"all of it\"}\n{\"prompt\": \"p\"}\n\
             {\"prompt\": [{\"role\": \"user\", \"content\": \"p\"}]}\n",
        );
        let flat: Vec<_> = rows
            .iter()
            .map(|r| r.as_ref().unwrap())
            .map(|r| (r.question.as_str(), r.answers.join("|"), r.style))
            .collect();
        let want = [
            ("", "all of it".to_string(), Style::Plain),
            ("p", String::new(), Style::Plain),
            ("p", String::new(), Style::Chat),
        ];
        assert_eq!(flat, want);
        // What is written of them is read again.
        for row in &rows {
            let row = row.as_ref().unwrap();
            let again = read(&format!("{}\n", rag_line(row))).remove(0).unwrap();
            assert_eq!((&again.question, &again.answers), (&row.question, &row.answers));
        }
        for line in [
            r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#,
            r#"{"prompt": "p", "completion": "a", "label": true}"#,
        ] {
            let e = read(&format!("{line}\n"))[0].as_ref().unwrap_err().to_string();
            assert!(e.contains("train preference"), "{e}");
        }
        let e = read("{\"text\": \"t\", \"label\": 1}\n")[0].as_ref().unwrap_err().to_string();
        assert!(e.contains("no question"), "{e}");
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
