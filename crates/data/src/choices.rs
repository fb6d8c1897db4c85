//! Questions with answers to choose from, one of which is right.
//!
//! JSON Lines or one JSON array (`.gz` and `.zst` as they are), or Parquet.
//!
//! | role | columns |
//! |---|---|
//! | what is asked | `prompt`, a text with the choice right behind it; or a question, `contexts` and `gold` as [`crate::read_records`] has them |
//! | `choices` | two texts or more, no two alike |
//! | `answer` or `label` | the right one: its index from 0, or its text |
//! | `task` | what the record is counted under; optional |

use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::fields::{self, QUESTION, first, row_id, text};
use crate::rag;
use crate::rag_record::{RagRecord, Style};
use crate::read::rows::objects;
use crate::reads::CHOICES;
use crate::shown::with_first;
use crate::{BadRows, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A question with choices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChoiceRecord {
    /// What is asked; its one answer is the right choice.
    pub record: RagRecord,
    /// What can be answered.
    pub choices: Vec<String>,
    /// Which of them is right.
    pub answer: usize,
    /// What the record is counted under, where the file says.
    pub task: Option<String>,
}

/// A stream of records.
pub type ChoiceRecords = Box<dyn Iterator<Item = Result<ChoiceRecord>> + Send>;

/// Reads a file of records with choices, or a folder of such files.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn read_choices(path: impl AsRef<Path>, bad: &BadRows) -> Result<ChoiceRecords> {
    let rows = objects(path.as_ref(), bad, &CHOICES, choice)?;
    Ok(with_first(path.as_ref(), "record", bad, rows))
}

/// A record as a line of [`read_choices`]' format, without the line's end.
pub fn choice_line(record: &ChoiceRecord) -> String {
    choice_json(record).to_string()
}

/// A record as a row of [`read_choices`]' format.
pub(crate) fn choice_json(record: &ChoiceRecord) -> Value {
    let r = &record.record;
    let mut out = json!({"id": r.id});
    if let Some(task) = &record.task {
        out["task"] = json!(task);
    }
    if r.style == Style::Plain {
        out["prompt"] = json!(r.question);
    } else {
        // The passages as any other record has them.
        let line = rag::rag_json(r);
        for key in ["question", "contexts", "gold"] {
            out[key] = line[key].clone();
        }
    }
    out["choices"] = json!(record.choices);
    out["answer"] = json!(record.answer);
    out
}

pub(crate) const ANSWER: [&str; 2] = ["answer", "label"];

pub(crate) fn is_known(column: &str) -> bool {
    ["choices", "label", "task"].contains(&column) || fields::is_known(column)
}

fn choice(row: Map<String, Value>, number: u64) -> std::result::Result<ChoiceRecord, Fault> {
    let found = || row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let missing = |what: &str| {
        let detail = format!(
            "no {what} (read are prompt, or question and contexts; choices; answer or label; found {})",
            found()
        );
        Fault::new(Problem::MissingColumn, detail)
    };
    let wrong = |why: String| Fault::new(Problem::WrongType, why);
    let given = |name: &str| row.get(name).filter(|v| !v.is_null());
    let choices: Vec<String> = match given("choices").ok_or_else(|| missing("choices"))? {
        Value::Array(list) => {
            list.iter().map(|v| text("choices", v)).collect::<std::result::Result<_, _>>()?
        }
        other => return Err(wrong(format!("choices: expected a list, got {}", columns::kind(other)))),
    };
    if choices.len() < 2 {
        return Err(wrong(format!("choices: two or more are needed, there is {}", choices.len())));
    }
    if let Some(twice) = choices.iter().enumerate().find(|(i, c)| choices[..*i].contains(c)) {
        return Err(wrong(format!("choices: {:?} is there twice", twice.1)));
    }
    let (name, value) = ANSWER.iter().find_map(|n| Some((n, given(n)?))).ok_or_else(|| missing("answer"))?;
    let answer = right(name, value, &choices)?;
    let task = given("task").map(|v| text("task", v)).transpose()?;
    let record = match (given("prompt"), first(&row, &QUESTION)) {
        (Some(_), Some((other, _))) => {
            return Err(wrong(format!("prompt and {other} are both there: give one of them")));
        }
        (Some(prompt), None) => RagRecord {
            id: row_id(&row, number),
            question: text("prompt", prompt)?,
            style: Style::Plain,
            ..RagRecord::default()
        },
        (None, None) => return Err(missing("prompt or question")),
        (None, Some(_)) => {
            // The answer is no text there, or it is one of the choices.
            let rest = row.iter().filter(|(k, _)| !ANSWER.contains(&k.as_str()));
            rag::record(rest.map(|(k, v)| (k.clone(), v.clone())).collect(), number)?
        }
    };
    let record = RagRecord { answers: vec![choices[answer].clone()], ..record };
    Ok(ChoiceRecord { record, choices, answer, task })
}

/// The index of the right choice.
fn right(name: &str, value: &Value, choices: &[String]) -> std::result::Result<usize, Fault> {
    let wrong = |why: String| Fault::new(Problem::WrongType, why);
    match value {
        Value::Number(n) => {
            n.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&i| i < choices.len()).ok_or_else(|| {
                wrong(format!("{name}: {n} is no index of {} choices (from 0)", choices.len()))
            })
        }
        Value::String(s) => choices
            .iter()
            .position(|c| c == s)
            // A table has texts only.
            .or_else(|| s.trim().parse().ok().filter(|&i| i < choices.len()))
            .ok_or_else(|| wrong(format!("{name}: {s:?} is none of the choices {choices:?}"))),
        other => Err(wrong(format!(
            "{name}: expected an index or one of the choices, got {}",
            columns::kind(other)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::parse_object;
    use crate::{Found, Passage};

    fn read(line: &str) -> std::result::Result<ChoiceRecord, Fault> {
        choice(parse_object(line).unwrap(), 7)
    }

    #[test]
    fn prompts_and_questions_index_and_text() {
        let r = read(r#"{"prompt": "2 + 2 =", "choices": [" 4", " 5"], "answer": " 5", "task": "sums"}"#)
            .unwrap();
        assert_eq!((r.answer, r.task.as_deref(), r.record.id.as_str()), (1, Some("sums"), "row-7"));
        assert_eq!((r.record.style, r.record.answers), (Style::Plain, vec![" 5".to_string()]));
        let r = read(
            r#"{"id": 3, "question": "q", "contexts": ["x", {"id": "p", "text": "y"}], "choices": [1, "b"], "label": 0}"#,
        )
        .unwrap();
        assert_eq!((r.record.id.as_str(), r.record.answers[0].as_str(), r.answer), ("3", "1", 0));
        assert_eq!((r.record.contexts.len(), r.record.style), (2, Style::Question));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let passage = Passage { id: "p".into(), title: Some("T".into()), text: "x".into() };
        let question = RagRecord {
            id: "q".into(),
            question: "which?".into(),
            answers: vec!["b".into()],
            contexts: vec![Found { passage: passage.clone(), score: None }],
            gold: vec![passage],
            ..RagRecord::default()
        };
        let choices = vec!["a".to_string(), "b".to_string()];
        let one = ChoiceRecord { record: question, choices, answer: 1, task: Some("t".into()) };
        assert_eq!(read(&choice_line(&one)).unwrap(), one);
        let plain = RagRecord {
            id: "q".into(),
            question: "which? ".into(),
            answers: vec!["b".into()],
            style: Style::Plain,
            ..RagRecord::default()
        };
        let two = ChoiceRecord { record: plain, task: None, ..one };
        assert_eq!(read(&choice_line(&two)).unwrap(), two);
    }

    #[test]
    fn faults_say_what_was_found() {
        for (line, words) in [
            (r#"{"choices": ["a", "b"], "answer": 0}"#, "no prompt or question (read are"),
            (r#"{"prompt": "p", "answer": 0}"#, "no choices"),
            (r#"{"prompt": "p", "choices": ["a", "b"]}"#, "no answer"),
            (r#"{"prompt": "p", "question": "q", "choices": ["a", "b"], "answer": 0}"#, "give one of them"),
            (r#"{"prompt": "p", "choices": "a", "answer": 0}"#, "expected a list"),
            (r#"{"prompt": "p", "choices": ["a"], "answer": 0}"#, "two or more"),
            (r#"{"prompt": "p", "choices": ["a", "a"], "answer": 0}"#, "there twice"),
            (r#"{"prompt": "p", "choices": ["a", " "], "answer": 0}"#, "choices"),
            (r#"{"prompt": "p", "choices": ["a", "b"], "answer": 2}"#, "2 is no index of 2"),
            (r#"{"prompt": "p", "choices": ["a", "b"], "answer": -1}"#, "-1 is no index"),
            (r#"{"prompt": "p", "choices": ["a", "b"], "answer": "c"}"#, "none of the choices"),
            (r#"{"prompt": "p", "choices": ["a", "b"], "answer": [0]}"#, "an index or one of"),
        ] {
            let e = read(line).unwrap_err().detail;
            assert!(e.contains(words), "{line}: {e}");
        }
    }

    #[test]
    fn parquet_rows_are_read_and_json_faults_are_placed() {
        use arrow_array::builder::{ListBuilder, StringBuilder};
        use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
        use std::sync::Arc;
        let dir = tempfile::tempdir().unwrap();
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in [["a", "b"], ["c", "d"]] {
            row.iter().for_each(|c| lists.values().append_value(c));
            lists.append(true);
        }
        let columns: [(&str, ArrayRef); 3] = [
            ("prompt", Arc::new(StringArray::from(vec!["p", "q"]))),
            ("choices", Arc::new(lists.finish())),
            ("label", Arc::new(Int64Array::from(vec![1, 0]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = dir.path().join("x.parquet");
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let rows: Vec<ChoiceRecord> =
            read_choices(&path, &BadRows::default()).unwrap().map(std::result::Result::unwrap).collect();
        assert_eq!((rows[0].record.answers[0].as_str(), rows[1].choices[1].as_str()), ("b", "d"));

        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, "\n{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"], \"answer\": 9}\n").unwrap();
        let e = read_choices(&path, &BadRows::default()).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(e.contains("x.jsonl:2") && e.contains("no index"), "{e}");
    }
}
