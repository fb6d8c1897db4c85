//! LlamaIndex's `EmbeddingQAFinetuneDataset`, as its `save_json` writes it: one JSON object.
//!
//! | key | holds |
//! |---|---|
//! | `queries` | an object of texts, by query id |
//! | `corpus` | an object of texts, by passage id |
//! | `relevant_docs` | an object of lists of passage ids, by query id |
//! | `mode` | `"text"`; other modes are refused |
//!
//! `docstore.json`, which LlamaIndex' `persist` writes, is a corpus of its nodes.
//!
//! The data set is a collection without splits. Each part is read on its own, a member at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::head::Head;
use super::spec::{Reading, Spec, Writer};
use crate::bad_rows::{Fault, Problem};
use crate::collection::parts::{Answers, Parts, Places};
use crate::columns::{self, kind};
use crate::ids::unique;
use crate::read::elements::Elements;
use crate::source::Fallible;
use crate::stream::{ExampleIter, NumberedQrels, Passages, Queries};
use crate::write::atomic::AtomicFile;
use crate::write::collection::{CollectionFiles, CollectionWriter, write_collection};
use crate::{BadRows, Error, Passage, Qrel, Query, Result, WriteCounts};

pub(crate) const LLAMA_INDEX: Spec = Spec {
    name: "llama-index",
    aliases: &["llamaindex"],
    files: &["json"],
    content: Some(|head| is_dataset(head) || is_docstore(head)),
    collection: Some(|path| match is_docstore(&Head::read(path)?) {
        true => Ok(None),
        false => Ok(Some(Box::new(Dataset::open(path)?))),
    }),
    corpus: Some(docstore),
    writer: Some(Writer::Collection(write)),
    ..Spec::NONE
};

const QUERIES: &str = "queries";
const CORPUS: &str = "corpus";
const RELEVANT: &str = "relevant_docs";
const MODE: &str = "mode";

/// Whether an object begins with one of the three objects.
fn is_dataset(head: &Head) -> bool {
    let keys = head.keys();
    let first = keys.iter().find(|(key, _)| *key != MODE);
    first.is_some_and(|(key, value)| [QUERIES, CORPUS, RELEVANT].contains(key) && *value == '{')
}

/// Whether an object is a document store, as `persist` writes it (`docstore.json`).
fn is_docstore(head: &Head) -> bool {
    head.keys().iter().any(|(key, _)| key.starts_with("docstore/"))
}

/// The nodes of a document store: by id under `docstore/data`, each inside of `__data__`.
fn docstore(from: &Reading<'_>) -> Result<Passages> {
    let mut members = Elements::members(from.path, "docstore/data", from.bad)?;
    let (bad, mut seen, mut number) = (from.bad.clone(), HashSet::new(), 0);
    Ok(Box::new(Fallible::new(move || {
        let node = members.next_member(|_, id, text| {
            let mut row = columns::parse_object(text)?;
            let mut node = match row.shift_remove("__data__") {
                Some(Value::Object(node)) => node,
                Some(Value::String(json)) => columns::parse_object(&json)?,
                _ => row,
            };
            node.entry("id_").or_insert(id.into());
            number += 1;
            let passage = columns::corpus_passage(node, number)?;
            unique(&mut seen, &passage.id)?;
            Ok(passage)
        })?;
        if node.is_some() {
            bad.good();
        }
        Ok(node)
    })))
}

#[derive(Debug)]
struct Dataset {
    path: PathBuf,
}

impl Dataset {
    fn open(path: &Path) -> Result<Self> {
        match Elements::value_under(path, MODE)?.as_deref() {
            None | Some("\"text\"" | "null") => Ok(Self { path: path.to_owned() }),
            Some(mode) => Err(Error::Unsupported {
                path: path.to_owned(),
                reason: format!("its {MODE} is {mode}; only datasets of texts (\"text\") are read"),
            }),
        }
    }

    /// What `parse` makes of the members of a part; it gets the key and the value.
    fn members<T, P>(
        &self,
        part: &'static str,
        bad: &BadRows,
        mut parse: P,
    ) -> Result<impl Iterator<Item = Result<(u64, T)>> + Send + use<T, P>>
    where
        P: FnMut(String, Value) -> Result<T, Fault> + Send,
    {
        let mut members = Elements::members(&self.path, part, bad)?;
        let mut seen = HashSet::new();
        Ok(Fallible::new(move || {
            members.next_member(|line, key, text| {
                let place =
                    |fault: Fault| Fault { detail: format!("{part}[{key:?}]: {}", fault.detail), ..fault };
                let value = serde_json::from_str(text)
                    .map_err(|e| place(Fault::new(Problem::BrokenJson, e.to_string())))?;
                unique(&mut seen, &key).map_err(place)?;
                Ok((line, parse(key.clone(), value).map_err(place)?))
            })
        }))
    }

    /// The texts of a part by id.
    fn texts(
        &self,
        part: &'static str,
        bad: &BadRows,
    ) -> Result<impl Iterator<Item = Result<(String, String)>> + Send + use<>> {
        let rows = self.members(part, bad, |id, value| match value {
            Value::String(text) if text.trim().is_empty() => {
                Err(Fault::new(Problem::EmptyText, "the text is empty"))
            }
            Value::String(text) => Ok((id, text)),
            other => Err(wrong("a text", &other)),
        })?;
        let bad = bad.clone();
        Ok(rows.map(move |row| {
            let (_, row) = row?;
            bad.good();
            Ok(row)
        }))
    }
}

impl Parts for Dataset {
    fn splits(&self) -> Result<Option<Vec<String>>> {
        Ok(None)
    }

    fn corpus(&self, bad: &BadRows) -> Result<Passages> {
        let texts = self.texts(CORPUS, bad)?;
        Ok(Box::new(texts.map(|row| row.map(|(id, text)| Passage { id, title: None, text }))))
    }

    fn queries(&self, _: Option<&str>, bad: &BadRows) -> Result<Queries> {
        let texts = self.texts(QUERIES, bad)?;
        Ok(Box::new(texts.map(|row| row.map(|(id, text)| Query { id, text }))))
    }

    fn qrels(&self, _: &str, bad: &BadRows) -> Result<NumberedQrels> {
        let mut lists = self.members(RELEVANT, bad, |query, value| match value {
            Value::Array(ids) => Ok((query, ids.iter().map(passage_id).collect::<Result<Vec<_>, _>>()?)),
            other => Err(wrong("a list of passage ids", &other)),
        })?;
        let bad = bad.clone();
        let mut ready: VecDeque<(u64, Qrel)> = VecDeque::new();
        Ok(Box::new(Fallible::new(move || {
            loop {
                if let Some(judgement) = ready.pop_front() {
                    bad.good();
                    return Ok(Some(judgement));
                }
                let Some(list) = lists.next() else { return Ok(None) };
                let (line, (query, passages)) = list?;
                let qrel = |passage| Qrel { query: query.clone(), passage, grade: 1 };
                ready.extend(passages.into_iter().map(|passage| (line, qrel(passage))));
            }
        })))
    }

    fn places(&self, _: &str) -> Result<Places> {
        Ok(Places { qrels: self.path.clone(), queries: self.path.clone(), key: Some(RELEVANT) })
    }

    fn answers(&self, _: &BadRows) -> Result<Option<Answers>> {
        Ok(None)
    }
}

fn passage_id(value: &Value) -> Result<String, Fault> {
    match value {
        Value::String(id) => Ok(id.clone()),
        Value::Number(id) => Ok(id.to_string()),
        other => Err(wrong("a list of passage ids", other)),
    }
}

fn wrong(expected: &str, got: &Value) -> Fault {
    Fault::new(Problem::WrongType, format!("expected {expected}, got {}", kind(got)))
}

fn write(path: &Path, _: &str, corpus: Option<Passages>, examples: ExampleIter<'_>) -> Result<WriteCounts> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(format!("{{\n    \"{CORPUS}\": {{").as_bytes())?;
    let files = Files { file, empty: true, queries: Vec::new(), relevant: HashMap::new() };
    write_collection(CollectionWriter::new(files), corpus, examples)
}

/// A dataset being written: passages go to the file as they come, queries and judgements at the end.
struct Files {
    file: AtomicFile,
    /// Whether the object that is being written has no member yet.
    empty: bool,
    queries: Vec<Query>,
    relevant: HashMap<String, Vec<String>>,
}

impl Files {
    fn member(&mut self, key: &str, value: &Value) -> Result<()> {
        let separator = if std::mem::take(&mut self.empty) { "" } else { "," };
        let line = format!("{separator}\n        {}: {value}", Value::from(key));
        self.file.write_all(line.as_bytes())
    }

    fn next_object(&mut self, key: &str) -> Result<()> {
        self.empty = true;
        self.file.write_all(format!("\n    }},\n    \"{key}\": {{").as_bytes())
    }
}

impl CollectionFiles for Files {
    /// A passage has no title of its own.
    fn passage(&mut self, passage: &Passage, counts: &mut WriteCounts) -> Result<()> {
        counts.titles_joined += u64::from(passage.title.is_some());
        self.member(&passage.id, &passage.full_text().into())
    }

    fn query(&mut self, query: &Query) -> Result<()> {
        self.queries.push(query.clone());
        Ok(())
    }

    fn judgement(&mut self, query: &str, passage: &str) -> Result<()> {
        self.relevant.entry(query.to_owned()).or_default().push(passage.to_owned());
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.next_object(QUERIES)?;
        let queries = std::mem::take(&mut self.queries);
        for query in &queries {
            self.member(&query.id, &query.text.as_str().into())?;
        }
        self.next_object(RELEVANT)?;
        for query in &queries {
            let passages = self.relevant.remove(&query.id).unwrap_or_default();
            self.member(&query.id, &passages.into())?;
        }
        self.file.write_all(format!("\n    }},\n    \"{MODE}\": \"text\"\n}}\n").as_bytes())?;
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_store_is_a_corpus() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docstore.json");
        let text = r#"{"docstore/metadata": {"a": {"doc_hash": "x"}}, "docstore/data": {
            "a": {"__data__": {"id_": "a", "text": "one", "metadata": {"title": "T"}, "class_name": "TextNode"}, "__type__": "1"},
            "b": {"__data__": "{\"text_resource\": {\"text\": \"two\"}}", "__type__": "4"}}, "docstore/ref_doc_info": {}}"#;
        fs_err::write(&path, text).unwrap();
        assert_eq!(crate::Format::detect(&path).unwrap(), crate::Format::LlamaIndex);
        let read = crate::read_corpus(&path, &crate::ReadOptions::default(), &BadRows::default()).unwrap();
        let read: Vec<Passage> = read.map(Result::unwrap).collect();
        let flat: Vec<_> =
            read.iter().map(|p| (p.id.as_str(), p.title.as_deref(), p.text.as_str())).collect();
        assert_eq!(flat, [("a", Some("T"), "one"), ("b", None, "two")]);
    }
}
