//! Rows of questions and conversations as public data sets have them, rewritten to the columns that records are read
//! from: a shape is known by its columns, and what it calls otherwise is moved to the name in use.

use serde_json::{Map, Value, json};

type Row = Map<String, Value>;

/// Columns that are rewritten here, so that a Parquet reader does not leave them on disk.
pub(crate) const COLUMNS: [&str; 14] = [
    "conversations",
    "context",
    "retrieved_contexts",
    "reference_contexts",
    "user_input",
    "golden_answers",
    "ground_truth",
    "ground_truths",
    "reference",
    "long_answer",
    "response",
    "history",
    "title",
    "supporting_facts",
];

/// Names that other data sets give to the right answers, the most certain first. RAGAS's `answer` is what a system
/// said, its `ground_truth` what is right, so these come before `answer`.
pub(crate) const RIGHT: [&str; 4] = ["golden_answers", "ground_truths", "ground_truth", "reference"];

/// The row with the names that records are read by.
pub(crate) fn canonical(mut row: Row) -> Row {
    if !has(&row, "messages")
        && let Some(list) = row.shift_remove("conversations")
    {
        row.insert("messages".into(), messages(list));
    }
    if has(&row, "instruction") {
        return instruction(row);
    }
    let of_ragas = has(&row, "user_input");
    rename(&mut row, "user_input", "question");
    kilt(&mut row);
    if !["question", "query", "anchor", "query_text"].iter().any(|name| has(&row, name)) {
        return row;
    }
    // Answers. A `reference` beside an answer is a source, but in rows of RAGAS.
    for name in RIGHT {
        let source = name == "reference" && !of_ragas && has(&row, "answer");
        if has(&row, name) && !has(&row, "answers") && !source {
            row.shift_remove("answer");
            rename(&mut row, name, "answers");
        }
    }
    for name in ["long_answer", "response"] {
        if !["answers", "answer", "output"].iter().any(|n| has(&row, n)) {
            rename(&mut row, name, "answers");
        }
    }
    for name in ["answers", "answer"] {
        if let Some(Value::Object(answer)) = row.get(name) {
            let list = answer_texts(answer);
            row.insert(name.into(), list);
        }
    }
    if let Some(Value::Array(list)) = row.get_mut("answers") {
        list.retain(|answer| answer.as_str() != Some("No Answer Present."));
    }
    // Passages.
    rename(&mut row, "retrieved_contexts", "contexts");
    let title = row.get("title").and_then(Value::as_str).map(str::to_owned);
    if let Some(selected) = row.get("passages").and_then(ms_marco) {
        let (contexts, gold) = selected;
        row.insert("passages".into(), contexts);
        row.entry("gold").or_insert(gold);
    }
    if !["contexts", "passages", "ctxs"].iter().any(|n| has(&row, n))
        && let Some(context) = row.shift_remove("context")
    {
        let contexts = passages(context, title.as_deref());
        let gold = supporting(&contexts, row.get("supporting_facts"));
        row.insert("contexts".into(), contexts);
        if let Some(gold) = gold {
            row.entry("gold").or_insert(gold);
        }
    }
    if let Some(Value::Array(list)) = row.shift_remove("reference_contexts") {
        let gold = list.into_iter().map(|text| json!({"text": text})).collect();
        row.entry("gold").or_insert(Value::Array(gold));
    }
    row
}

/// Whether a row has a value in a column.
pub(crate) fn has(row: &Row, name: &str) -> bool {
    row.get(name).is_some_and(|value| !value.is_null())
}

/// Gives a column another name, unless one of that name has a value.
pub(crate) fn rename(row: &mut Row, from: &str, to: &str) {
    if !has(row, to)
        && let Some(value) = row.shift_remove(from)
    {
        row.insert(to.into(), value);
    }
}

/// ShareGPT's `from` and `value` as `role` and `content`; what has a role already stays.
pub(crate) fn messages(value: Value) -> Value {
    let Value::Array(list) = value else { return value };
    let turn = |value: Value| match value {
        Value::Object(mut turn) if !turn.contains_key("role") => {
            if let Some(from) = turn.remove("from") {
                let role = match from.as_str() {
                    Some("human") => "user".into(),
                    Some("gpt" | "bot" | "chatgpt") => "assistant".into(),
                    _ => from,
                };
                turn.insert("role".into(), role);
            }
            if let Some(said) = turn.remove("value") {
                turn.insert("content".into(), said);
            }
            Value::Object(turn)
        }
        other => other,
    };
    Value::Array(list.into_iter().map(turn).collect())
}

/// Alpaca with earlier turns (`history`), and Dolly (`context`, `response`).
fn instruction(mut row: Row) -> Row {
    rename(&mut row, "response", "output");
    rename(&mut row, "context", "input");
    let turns = match row.shift_remove("history") {
        Some(Value::Array(turns)) if !turns.is_empty() => turns,
        _ => return row,
    };
    let mut list = Vec::new();
    let mut say = |role: &str, content: Value| list.push(json!({"role": role, "content": content}));
    if let Some(system) =
        row.shift_remove("system").filter(|s| s.as_str().is_some_and(|s| !s.trim().is_empty()))
    {
        say("system", system);
    }
    for turn in turns {
        match turn {
            Value::Array(pair) if pair.len() == 2 => {
                let mut pair = pair.into_iter();
                say("user", pair.next().unwrap_or_default());
                say("assistant", pair.next().unwrap_or_default());
            }
            // What is no pair is a message that the reader of messages refuses, with its place.
            other => say("history", other),
        }
    }
    let mut question = row.shift_remove("instruction").unwrap_or_default();
    if let (Some(text), Some(input)) = (question.as_str(), row.get("input").and_then(Value::as_str))
        && !input.trim().is_empty()
    {
        question = format!("{text}\n\n{input}").into();
    }
    row.shift_remove("input");
    say("user", question);
    if let Some(output) = row.shift_remove("output").filter(|output| !output.is_null()) {
        say("assistant", output);
    }
    row.insert("messages".into(), Value::Array(list));
    row
}

/// KILT: `input`, and `output` as a list of objects with an `answer`.
fn kilt(row: &mut Row) {
    let Some(Value::Array(output)) = row.get("output") else { return };
    if has(row, "question") || !has(row, "input") || !output.iter().all(Value::is_object) {
        return;
    }
    let answers = output.iter().filter_map(|o| o.get("answer")).filter(|a| !a.is_null()).cloned().collect();
    row.shift_remove("output");
    rename(row, "input", "question");
    row.insert("answers".into(), Value::Array(answers));
}

/// SQuAD's `{text, answer_start}`, TriviaQA's `{value, aliases}`.
fn answer_texts(answer: &Row) -> Value {
    let mut list: Vec<Value> = Vec::new();
    for name in ["text", "value", "aliases"] {
        let more = match answer.get(name) {
            Some(Value::Array(texts)) => texts.clone(),
            Some(text @ Value::String(_)) => vec![text.clone()],
            _ => Vec::new(),
        };
        for text in more {
            if !list.contains(&text) {
                list.push(text);
            }
        }
    }
    Value::Array(list)
}

/// MS MARCO's questions: passages with `is_selected`, as columns or as objects. The passages, and those selected.
fn ms_marco(value: &Value) -> Option<(Value, Value)> {
    let rows: Vec<(Value, bool)> = match value {
        Value::Object(columns) => {
            let texts = columns.get("passage_text")?.as_array()?;
            let marks = columns.get("is_selected")?.as_array()?;
            texts.iter().cloned().zip(marks.iter().map(is_one)).collect()
        }
        Value::Array(list) => list
            .iter()
            .map(|row| Some((row.get("passage_text")?.clone(), is_one(row.get("is_selected")?))))
            .collect::<Option<_>>()?,
        _ => return None,
    };
    let gold = rows.iter().filter(|row| row.1).map(|row| json!({"text": row.0})).collect();
    Some((rows.into_iter().map(|row| row.0).collect(), Value::Array(gold)))
}

fn is_one(mark: &Value) -> bool {
    mark.as_i64() == Some(1) || mark.as_bool() == Some(true)
}

/// The passages of a `context`: a text, texts, PubMedQA's `{contexts}`, HotpotQA's titles with sentences.
fn passages(context: Value, title: Option<&str>) -> Value {
    let joined = |sentences: &Value| match sentences {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<String>().into(),
        other => other.clone(),
    };
    match context {
        Value::String(text) if text.trim().is_empty() => Value::Array(Vec::new()),
        Value::String(text) => match title {
            Some(title) => json!([{"title": title, "text": text}]),
            None => json!([text]),
        },
        Value::Object(mut columns) => {
            if let Some(list) = columns.remove("contexts") {
                return list;
            }
            match (columns.get("title"), columns.get("sentences")) {
                (Some(Value::Array(titles)), Some(Value::Array(texts))) => titles
                    .iter()
                    .zip(texts)
                    .map(|(title, text)| json!({"id": title, "title": title, "text": joined(text)}))
                    .collect(),
                _ => Value::Object(columns),
            }
        }
        Value::Array(list) => list
            .into_iter()
            .map(|entry| match entry.as_array().map(Vec::as_slice) {
                Some([title, text]) => json!({"id": title, "title": title, "text": joined(text)}),
                _ => entry,
            })
            .collect(),
        other => other,
    }
}

/// Ids of the passages that HotpotQA's `supporting_facts` name by title.
fn supporting(contexts: &Value, facts: Option<&Value>) -> Option<Value> {
    let titles: Vec<&Value> = match facts? {
        Value::Object(columns) => columns.get("title")?.as_array()?.iter().collect(),
        Value::Array(list) => list.iter().filter_map(|fact| fact.get(0)).collect(),
        _ => return None,
    };
    let ids = contexts.as_array()?.iter().filter_map(|passage| passage.get("id"));
    let gold: Vec<Value> = ids.filter(|id| titles.contains(id)).cloned().collect();
    (!gold.is_empty()).then_some(Value::Array(gold))
}

#[cfg(test)]
mod tests {
    use crate::{BadRows, RagRecord, read_rag};

    fn read(line: &str) -> RagRecord {
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        fs_err::write(file.path(), line).unwrap();
        read_rag(file.path(), &BadRows::default()).unwrap().next().unwrap().unwrap_or_else(|e| panic!("{e}"))
    }

    /// Row, question, answers, texts of the passages, texts of the golden ones.
    type Shape = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );

    #[test]
    fn shapes_of_public_data_sets() {
        let shapes: [Shape; 16] = [
            (r#"{"question":"q","context":"c","answer":"a"}"#, "q", &["a"], &["c"], &[]),
            (
                r#"{"id":"1","title":"T","context":"c","question":"q","answers":{"text":["a","b"],"answer_start":[1,2]}}"#,
                "q",
                &["a", "b"],
                &["c"],
                &[],
            ),
            (
                r#"{"context":"c","question":"q","answers":{"text":[],"answer_start":[]}}"#,
                "q",
                &[],
                &["c"],
                &[],
            ),
            (
                r#"{"question":"q","context":{"contexts":["c","d"],"labels":["x","y"]},"long_answer":"a"}"#,
                "q",
                &["a"],
                &["c", "d"],
                &[],
            ),
            (
                r#"{"user_input":"q","retrieved_contexts":["c"],"response":"said","reference":"a"}"#,
                "q",
                &["a"],
                &["c"],
                &[],
            ),
            (
                r#"{"question":"q","answer":"said","contexts":["c"],"ground_truth":"a"}"#,
                "q",
                &["a"],
                &["c"],
                &[],
            ),
            (r#"{"question":"q","answer":"a","reference":"page 3"}"#, "q", &["a"], &[], &[]),
            (r#"{"question":"q","reference":"a"}"#, "q", &["a"], &[], &[]),
            (r#"{"question":"q","golden_answers":["a","b"],"metadata":{}}"#, "q", &["a", "b"], &[], &[]),
            (
                r#"{"id":"1","input":"q","output":[{"answer":"a","provenance":[]},{"provenance":[{"title":"T"}]}]}"#,
                "q",
                &["a"],
                &[],
                &[],
            ),
            (
                r#"{"query":"q","answers":["No Answer Present."],"passages":{"is_selected":[0,1],"passage_text":["c","d"],"url":["u","v"]}}"#,
                "q",
                &[],
                &["c", "d"],
                &["d"],
            ),
            (
                r#"{"query":"q","answers":["a"],"passages":[{"is_selected":1,"passage_text":"c","url":"u"}]}"#,
                "q",
                &["a"],
                &["c"],
                &["c"],
            ),
            (r#"{"question":"q","answer":{"value":"a","aliases":["a","b"]}}"#, "q", &["a", "b"], &[], &[]),
            (
                r#"{"question":"q","answer":"a","context":[["T",["c ","d"]],["U",["e"]]],"supporting_facts":[["U",0]]}"#,
                "q",
                &["a"],
                &["c d", "e"],
                &["e"],
            ),
            (
                r#"{"question":"q","answer":"a","context":{"title":["T","U"],"sentences":[["c"],["e"]]},"supporting_facts":{"title":["T"],"sent_id":[0]}}"#,
                "q",
                &["a"],
                &["c", "e"],
                &["c"],
            ),
            (
                r#"{"instruction":"q","context":"c","response":"a","category":"x"}"#,
                "q\n\nc",
                &["a"],
                &[],
                &[],
            ),
        ];
        for (line, question, answers, contexts, gold) in shapes {
            let r = read(line);
            assert_eq!(
                (r.question.as_str(), &*r.answers),
                (question, &*answers.iter().map(|a| a.to_string()).collect::<Vec<_>>()),
                "{line}"
            );
            assert_eq!(
                r.contexts.iter().map(|f| f.passage.text.as_str()).collect::<Vec<_>>(),
                contexts,
                "{line}"
            );
            assert_eq!(r.gold.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), gold, "{line}");
        }
    }

    #[test]
    fn conversations_and_earlier_turns() {
        for line in [
            r#"{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"x"},{"from":"gpt","value":"y"},{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}"#,
            r#"{"conversations":[{"role":"system","content":"s"},{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#,
            r#"{"instruction":"q","input":"","output":"a","system":"s","history":[["x","y"]]}"#,
        ] {
            let r = read(line);
            assert_eq!((r.question.as_str(), r.answers[0].as_str()), ("q", "a"), "{line}");
            let history: Vec<&str> = r.history.iter().map(|m| m.content()).collect();
            assert_eq!(history, ["s", "x", "y"], "{line}");
        }
    }
}
