//! What a generator learns from, in every format and every container; what is unclear is an error.

use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use ragduet_data::{
    BadRowPolicy, BadRows, Message, Prompt, RagRecord, RecordFormat, Style, rag_line, read_judged,
    read_preferences, read_records,
};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

const CHAT: &str = r#"{"id": "a", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}, {"role": "assistant", "content": "So."}], "contexts": ["a passage"]}"#;
const PLAIN: &str = r#"{"prompt": "2+2=", "completion": "4"}"#;
const LISTS: &str = r#"{"prompt": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "completion": [{"role": "assistant", "content": "Hello"}]}"#;
const ALPACA: &str = r#"{"instruction": "Add.", "input": "2 and 2", "output": "4"}"#;
const RAG: &str = r#"{"question": "why?", "answer": "because", "contexts": ["x"]}"#;

fn all(path: &Path, format: Option<RecordFormat>) -> Vec<RagRecord> {
    read_records(path, format, &BadRows::default()).unwrap().collect::<Result<_, _>>().unwrap()
}

fn check(records: &[RagRecord]) {
    let brief: Vec<_> = records
        .iter()
        .map(|r| (r.style, r.question.as_str(), r.answers[0].as_str(), r.history.len()))
        .collect();
    assert_eq!(
        brief,
        [
            (Style::Chat, "And?", "So.", 3),
            (Style::Plain, "2+2=", "4", 0),
            (Style::Chat, "Hi", "Hello", 0),
            (Style::Chat, "Add.\n\n2 and 2", "4", 0),
            (Style::Question, "why?", "because", 0),
        ]
    );
    assert_eq!(records[0].history[2], Message::new("assistant", "Hello"));
    assert_eq!(records[0].contexts[0].passage.text, "a passage");
}

#[test]
fn every_format_in_lines_arrays_and_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [CHAT, PLAIN, LISTS, ALPACA, RAG];
    let lines = rows.join("\n");
    std::fs::write(dir.path().join("r.jsonl"), &lines).unwrap();
    std::fs::write(dir.path().join("r.json"), format!(" [{}]", rows.join(",\n"))).unwrap();
    std::fs::write(dir.path().join("lines.json"), &lines).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(lines.as_bytes()).unwrap();
    std::fs::write(dir.path().join("r.jsonl.gz"), gz.finish().unwrap()).unwrap();
    std::fs::write(dir.path().join("r.jsonl.zst"), zstd::encode_all(lines.as_bytes(), 1).unwrap()).unwrap();
    for name in ["r.jsonl", "r.json", "lines.json", "r.jsonl.gz", "r.jsonl.zst"] {
        check(&all(&dir.path().join(name), None));
    }
    // What is read can be written and read again.
    let records = all(&dir.path().join("r.jsonl"), None);
    let again: String = records.iter().map(|r| rag_line(r) + "\n").collect();
    std::fs::write(dir.path().join("again.jsonl"), again).unwrap();
    assert_eq!(all(&dir.path().join("again.jsonl"), None), records);
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// A column of one conversation.
fn messages(turns: &[(&str, &str)]) -> ArrayRef {
    let roles = texts(&turns.iter().map(|t| t.0).collect::<Vec<_>>());
    let contents = texts(&turns.iter().map(|t| t.1).collect::<Vec<_>>());
    let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8, false));
    let items = StructArray::from(vec![(field("role"), roles), (field("content"), contents)]);
    let item = Arc::new(Field::new("item", items.data_type().clone(), false));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([turns.len()]), Arc::new(items), None))
}

#[test]
fn parquet_holds_the_same_columns() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    parquet(
        &path("chat.parquet"),
        vec![
            ("messages", messages(&[("user", "Hi"), ("assistant", "Hello")])),
            ("source", texts(&["left on disk"])),
        ],
    );
    let r = &all(&path("chat.parquet"), None)[0];
    assert_eq!((r.style, r.question.as_str(), r.answers[0].as_str()), (Style::Chat, "Hi", "Hello"));
    parquet(&path("rag.parquet"), vec![("question", texts(&["q"])), ("answers", texts(&["a"]))]);
    assert_eq!(all(&path("rag.parquet"), None)[0].answers, ["a"]);

    let bad = BadRows::default();
    parquet(
        &path("pairs.parquet"),
        vec![
            ("chosen", messages(&[("user", "Hi"), ("assistant", "Hello")])),
            ("rejected", messages(&[("user", "Hi"), ("assistant", "No")])),
        ],
    );
    let p = read_preferences(path("pairs.parquet"), &bad).unwrap().next().unwrap().unwrap();
    assert_eq!(p.prompt, Prompt::Turns(vec![Message::new("user", "Hi")]));
    assert_eq!((p.chosen.content(), p.rejected.content()), ("Hello", "No"));
    parquet(
        &path("judged.parquet"),
        vec![
            ("prompt", texts(&["p", "p"])),
            ("completion", texts(&["c", "d"])),
            ("label", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef),
        ],
    );
    let judged: Vec<bool> =
        read_judged(path("judged.parquet"), &bad).unwrap().map(|r| r.unwrap().good).collect();
    assert_eq!(judged, [true, false]);
}

#[test]
fn what_is_unclear_or_broken_is_an_error_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.jsonl");
    for (line, words) in [
        (r#"{"texts": "t", "meta": 1}"#, "found texts, meta"),
        (r#"{"question": "q", "instruction": "i", "output": "o"}"#, "fit rag and alpaca"),
        (r#"{"messages": [{"role": "narrator", "content": "x"}]}"#, "messages[0].role"),
        (r#"{"messages": [{"role": "tool", "content": "x"}]}"#, "must have a message of the user"),
        (r#"{"messages": [{"role": "user"}]}"#, "no content"),
        (r#"{"messages": []}"#, "no message"),
        (r#"{"messages": [{"role": "assistant", "content": "x"}]}"#, "must have a message of the user"),
        (
            r#"{"prompt": "p", "completion": [{"role": "user", "content": "x"}]}"#,
            "one message of the assistant",
        ),
        (r#"{"instruction": "i", "output": " "}"#, "output"),
    ] {
        std::fs::write(&path, format!("{PLAIN}\n{line}\n{PLAIN}\n")).unwrap();
        let read: Result<Vec<_>, _> = read_records(&path, None, &BadRows::default()).unwrap().collect();
        let e = read.unwrap_err().to_string();
        assert!(e.contains(words) && e.contains("bad.jsonl:2"), "{line}: {e}");
        let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("side.jsonl") });
        assert_eq!(read_records(&path, None, &bad).unwrap().filter(Result::is_ok).count(), 2, "{line}");
        assert_eq!(bad.report().bad_rows(), 1);
    }
    // Two formats fit; said which, it is read.
    std::fs::write(&path, r#"{"question": "q", "answer": "a", "instruction": "i", "output": "o"}"#).unwrap();
    assert_eq!(all(&path, Some(RecordFormat::Alpaca))[0].question, "i");
    assert_eq!(all(&path, Some(RecordFormat::Rag))[0].question, "q");
}
