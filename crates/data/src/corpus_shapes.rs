//! Passages as libraries write their documents, rewritten to the columns that a corpus is read from.
//!
//! | shape | columns |
//! |---|---|
//! | LangChain | `page_content`, `metadata`, perhaps `id`; also inside `kwargs`, as `langchain_core.load.dumpd` writes it |
//! | LlamaIndex | `id_`, `text` or `text_resource` with `text`, `metadata` |
//!
//! A title in the metadata is the passage's title where the row has none.

use serde_json::{Map, Value};

use crate::columns;
use crate::shapes::{has, rename};

type Row = Map<String, Value>;

/// Whether a column takes part in a corpus.
pub(crate) fn is_known(column: &str) -> bool {
    columns::is_known(column)
        || ["page_content", "metadata", "kwargs", "id_", "text_resource"].contains(&column)
}

/// The row with the names that a corpus is read by.
pub(crate) fn canonical(mut row: Row) -> Row {
    // The `id` beside `kwargs` is the name of a class.
    let written = row.get("type").and_then(Value::as_str) == Some("constructor");
    if written && let Some(Value::Object(inner)) = row.get_mut("kwargs").map(Value::take) {
        row = inner;
    }
    rename(&mut row, "page_content", "text");
    rename(&mut row, "id_", "id");
    if !has(&row, "text")
        && let Some(Value::Object(resource)) = row.get_mut("text_resource")
        && let Some(text) = resource.shift_remove("text")
    {
        row.insert("text".into(), text);
    }
    if !has(&row, "title")
        && let Some(title @ Value::String(_)) = row.get("metadata").and_then(|m| m.get("title")).cloned()
    {
        row.insert("title".into(), title);
    }
    row
}

#[cfg(test)]
mod tests {
    use crate::{BadRows, Passage, ReadOptions, read_corpus};

    fn read(name: &str, text: &str) -> Vec<Passage> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        let read = read_corpus(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
        read.map(|p| p.unwrap_or_else(|e| panic!("{text}: {e}"))).collect()
    }

    #[test]
    fn documents_of_libraries() {
        for (row, id, title) in [
            (r#"{"page_content":"t","metadata":{"source":"a.pdf","page":3}}"#, "1", None),
            (r#"{"id":"x","page_content":"t","metadata":{"title":"T"},"type":"Document"}"#, "x", Some("T")),
            (r#"{"id":null,"page_content":"t","metadata":{}}"#, "1", None),
            (
                r#"{"lc":1,"type":"constructor","id":["langchain","schema","Document"],"kwargs":{"page_content":"t","metadata":{},"id":"x"}}"#,
                "x",
                None,
            ),
            (r#"{"id_":"n","text":"t","metadata":{},"class_name":"TextNode"}"#, "n", None),
            (r#"{"id_":"n","text_resource":{"text":"t","mimetype":"text/plain"},"metadata":{}}"#, "n", None),
            (r#"{"text":"t"}"#, "1", None),
        ] {
            let want = [Passage { id: id.into(), title: title.map(str::to_owned), text: "t".into() }];
            assert_eq!(read("x.jsonl", row), want, "{row}");
            assert_eq!(read("x.json", &format!("[{row}]")), want, "{row}");
        }
    }
}
