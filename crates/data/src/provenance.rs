//! What a corpus says of its passages beside id, title and text: page, source, metadata, whatever its columns are.
//!
//! Nothing that searches or trains needs it, so it is not carried through: it is read from the corpus again for the
//! passages that are shown.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::columns;
use crate::kind::ANY;
use crate::read::rows::{EXTENSIONS, Holder, Place, Rows};
use crate::source::{find, shards};
use crate::{BadRows, Passage, Result};

/// Columns beside id, title and text, by name.
pub type Provenance = Map<String, Value>;

/// Longest list of numbers that is shown; longer ones are embeddings.
const MOST_NUMBERS: usize = 16;

/// The other columns of some passages of a corpus, by passage id: a file or folder of JSON Lines, a JSON array, Parquet, or
/// the corpus of a BEIR folder. Formats without other columns have none. An object in the column `metadata` (LangChain's,
/// LlamaIndex's) is taken apart.
///
/// # Errors
/// A file that cannot be read.
pub fn read_provenance(
    path: impl AsRef<Path>,
    wanted: &HashMap<String, Passage>,
) -> Result<HashMap<String, Provenance>> {
    let path = path.as_ref();
    let own = path.is_dir().then(|| find(path, "corpus.jsonl")).flatten();
    let path = own.as_deref().unwrap_or(path);
    let parse = |row: Map<String, Value>, place: Place| {
        // A number stands for an id where rows have none, as in reading the corpus.
        let passage = columns::corpus_passage(row.clone(), place.number)?;
        Ok((passage, row))
    };
    let mut out = HashMap::new();
    // What is no file of rows has no other columns.
    let Ok(files) = shards(path, &EXTENSIONS) else { return Ok(out) };
    let rows = Rows { files, holder: Holder::ByName, reads: &ANY, strict: false };
    let Ok(rows) = rows.stream(path, &BadRows::silent(), parse, |_| Ok(())) else { return Ok(out) };
    for row in rows {
        let (passage, row) = row?;
        // Another row of the same number is not the passage's.
        if wanted.get(&passage.id).is_some_and(|w| w.text == passage.text) {
            let columns = others(row, &passage);
            if !columns.is_empty() {
                out.insert(passage.id, columns);
            } else {
                out.entry(passage.id).or_default();
            }
            if out.len() == wanted.len() {
                break;
            }
        }
    }
    out.retain(|_, columns| !columns.is_empty());
    Ok(out)
}

/// A row without what its passage has already, and without embeddings.
fn others(row: Map<String, Value>, passage: &Passage) -> Provenance {
    let shown = |name: &str, value: &Value| {
        let said = value.as_str().is_some_and(|text| {
            text == passage.id || text == passage.text || Some(text) == passage.title.as_deref()
        });
        let id = columns::PASSAGE_ID.contains(&name)
            && value.as_number().is_some_and(|n| n.to_string() == passage.id);
        said || id || columns::PASSAGE_TEXT.contains(&name) || name == "title"
    };
    let blank = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.len() > MOST_NUMBERS && list.iter().all(Value::is_number),
        _ => false,
    };
    let mut out = Map::new();
    let mut inner = None;
    for (name, value) in row {
        match value {
            Value::Object(map) if name == "metadata" => inner = Some(map),
            value if shown(&name, &value) || blank(&value) => {}
            value => {
                out.insert(name, value);
            }
        }
    }
    for (name, value) in inner.into_iter().flatten() {
        if !blank(&value) {
            out.entry(name).or_insert(value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReadOptions, read_corpus};

    fn of(name: &str, text: &str) -> Vec<(String, Value)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        let corpus = if name.contains('/') { path.parent().unwrap().to_owned() } else { path };
        if name.contains('/') {
            fs_err::write(corpus.join("queries.jsonl"), "").unwrap();
        }
        let passages = read_corpus(&corpus, &ReadOptions::default(), &BadRows::default()).unwrap();
        let wanted = passages.map(|p| p.map(|p| (p.id.clone(), p))).collect::<Result<_>>().unwrap();
        let found = read_provenance(&corpus, &wanted).unwrap();
        let mut out: Vec<_> = found.into_iter().map(|(id, columns)| (id, Value::Object(columns))).collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }

    #[test]
    fn other_columns_are_found_by_id_or_place() {
        let chunks = "\n{\"chunk_id\":7,\"doc_id\":\"d\",\"source\":\"a.pdf\",\"page\":3,\"text\":\"one\",\"metadata\":{\"lang\":\"en\",\"page\":9}}\n\
                      {\"text\":\"two\",\"embedding\":[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6],\"note\":null}\n\
                      {\"text\":\"three\",\"page\":4}\n";
        let first = serde_json::json!({"chunk_id":7,"doc_id":"d","source":"a.pdf","page":3,"lang":"en"});
        let want = vec![("1".to_owned(), first), ("3".to_owned(), serde_json::json!({"page":4}))];
        assert_eq!(of("c.jsonl", chunks), want);
        let beir = "{\"_id\":\"p1\",\"title\":\"T\",\"text\":\"one\",\"metadata\":{\"url\":\"u\"}}\n{\"_id\":\"p2\",\"text\":\"two\"}\n";
        assert_eq!(of("b/corpus.jsonl", beir), [("p1".to_owned(), serde_json::json!({"url":"u"}))]);
        // A chunk's name is its id.
        let named = "{\"chunk_id\":\"d-7\",\"text\":\"one\",\"page\":1}\n";
        assert_eq!(of("c.jsonl", named), [("d-7".to_owned(), serde_json::json!({"page":1}))]);
        assert_eq!(of("c.tsv", "1\tone\n"), []);
    }
}
