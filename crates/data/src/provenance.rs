//! What a corpus says of its passages beside id, title and text: page, source, metadata, whatever its columns are.
//!
//! Nothing that searches or trains needs it, so it is not carried through: it is read from the corpus again for the
//! passages that are shown.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::columns;
use crate::read::rows::{EXTENSIONS, Holder, Place, Rows};
use crate::read::table::{self, has_header};
use crate::read::{alone, arrow};
use crate::reads::{PASSAGES, Reads};
use crate::source::{find, inner_extension, shards};
use crate::{BadRows, Format, Passage, ReadOptions, Result};

/// Columns beside id, title and text, by name.
pub type Provenance = Map<String, Value>;

/// Longest list of numbers that is shown; longer ones are embeddings.
const MOST_NUMBERS: usize = 16;

/// Passages with all the columns beside them, of files from which else only known ones are read.
static WHOLE: Reads =
    Reads { what: PASSAGES.what, roles: PASSAGES.roles, beside: PASSAGES.beside, known: |_| true };

/// The other columns of some passages of a corpus, by passage id: a file or folder of JSON Lines, a JSON array, Parquet, a
/// table with a header, or the corpus of a BEIR folder; read as the passages were, by `options` and the columns of `bad`,
/// with bad rows left out. Formats without other columns have none. An object in the column `metadata` (LangChain's,
/// LlamaIndex's) is taken apart.
///
/// # Errors
/// A file that cannot be read.
pub fn read_provenance(
    path: impl AsRef<Path>,
    options: &ReadOptions,
    wanted: &HashMap<String, Passage>,
    bad: &BadRows,
) -> Result<HashMap<String, Provenance>> {
    let path = &*alone(path.as_ref())?;
    let bad = bad.silenced();
    let own = path.is_dir().then(|| find(path, "corpus.jsonl")).flatten();
    let path = own.as_deref().unwrap_or(path);
    let parse = |row: Map<String, Value>, place: Place| {
        // A number stands for an id where rows have none, as in reading the corpus.
        let passage = columns::corpus_passage(row.clone(), place.number)?;
        Ok((passage, row))
    };
    let mut out = HashMap::new();
    // What is no file of rows has no other columns.
    let (files, holder) = match options.format_of(path) {
        Ok(Format::Arrow) => (arrow::files(path, options.split.as_deref()), Holder::Parquet),
        Ok(Format::Csv) => (shards(path, &["csv"]), Holder::Table),
        Ok(Format::Tsv) => (shards(path, &["tsv"]), Holder::Table),
        _ => (shards(path, &EXTENSIONS), Holder::ByName),
    };
    let Ok(files) = files else { return Ok(out) };
    let Some(first) = files.first() else { return Ok(out) };
    let extension = inner_extension(first);
    let tabs = matches!(options.format_of(path), Ok(Format::Tsv)) || extension == "tsv";
    if tabs && !has_header(first, &PASSAGES, &bad).unwrap_or(false) {
        return Ok(out);
    }
    // All columns of a table are read; which names are known tells what its header is.
    let of_table = holder == Holder::Table || table::EXTENSIONS.contains(&extension.as_str());
    let reads = if of_table { &PASSAGES } else { &WHOLE };
    let rows = Rows { files, holder, reads, strict: false };
    let Ok(rows) = rows.stream(path, &bad, parse, |_| Ok(())) else { return Ok(out) };
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
    use crate::{Columns, read_corpus};

    fn of(name: &str, text: &str) -> Vec<(String, Value)> {
        of_mapped(name, text, &[])
    }

    fn of_mapped(name: &str, text: &str, map: &[String]) -> Vec<(String, Value)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        let corpus = if name.contains('/') { path.parent().unwrap().to_owned() } else { path };
        if name.contains('/') {
            fs_err::write(corpus.join("queries.jsonl"), "").unwrap();
        }
        let (options, bad) =
            (ReadOptions::default(), BadRows::default().with_columns(Columns::parse(map).unwrap()));
        let passages = read_corpus(&corpus, &options, &bad).unwrap();
        let wanted = passages.map(|p| p.map(|p| (p.id.clone(), p))).collect::<Result<_>>().unwrap();
        let found = read_provenance(&corpus, &options, &wanted, &bad).unwrap();
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
        let page = |id: &str| vec![(id.to_owned(), serde_json::json!({"Page":"3"}))];
        assert_eq!(of("c.csv", "ID,Text,Page\n7,one,3\n"), page("7"));
        assert_eq!(of("c.tsv", "Text\tPage\none\t3\n"), page("1"));
        let map = ["id=Nr".to_owned(), "text=Stelle".to_owned()];
        assert_eq!(of_mapped("c.csv", "Nr;Stelle;Page\n7;one;3\n", &map), page("7"));
        let row = "{\"Nr\":\"7\",\"Stelle\":\"one\",\"Page\":\"3\"}\n";
        assert_eq!(of_mapped("c.jsonl", row, &map), page("7"));
    }
}
