//! Which documents are relevant to which queries, and how much: the judgements, and the files they come in.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::tsv::for_each_line;
use crate::{Error, Result};

const BEIR: &str = "3 columns separated by tabs: query-id, corpus-id, score (a whole number)";
const TREC: &str = "4 columns: query id, iteration, document id, grade (a whole number)";

/// Relevance judgements: query id -> document id -> grade. A grade of 0 or less means judged and not relevant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Qrels {
    queries: BTreeMap<String, HashMap<String, i32>>,
}

impl Qrels {
    /// No judgements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one judgement. Repeating it is harmless; contradicting it is an error.
    pub fn insert(&mut self, query: impl Into<String>, doc: impl Into<String>, grade: i32) -> Result<()> {
        let (query, doc) = (query.into(), doc.into());
        let docs = self.queries.entry(query.clone()).or_default();
        match docs.get(&doc) {
            Some(&first) if first != grade => {
                Err(Error::ConflictingGrade { query, doc, first, second: grade })
            }
            _ => {
                docs.insert(doc, grade);
                Ok(())
            }
        }
    }

    /// The grades of one query's judged documents.
    pub fn get(&self, query: &str) -> Option<&HashMap<String, i32>> {
        self.queries.get(query)
    }

    /// The grade of a document, `None` if it was not judged.
    pub fn grade(&self, query: &str, doc: &str) -> Option<i32> {
        self.queries.get(query)?.get(doc).copied()
    }

    /// Queries in the order of their ids, with their judgements.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HashMap<String, i32>)> {
        self.queries.iter().map(|(query, docs)| (query.as_str(), docs))
    }

    /// How many queries have judgements.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there is no judgement at all.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// How many judgements there are.
    pub fn judgements(&self) -> usize {
        self.queries.values().map(HashMap::len).sum()
    }

    /// Reads either format: the first line's column count tells BEIR (3) from TREC (4).
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut columns = None;
        // Only the first line counts, but the reader is the same and the file is small.
        for_each_line(path, |_, line| {
            columns.get_or_insert_with(|| line.split_whitespace().count());
            Ok(())
        })?;
        if columns == Some(4) { Self::read_trec(path) } else { Self::read_beir(path) }
    }

    /// Reads BEIR's `qrels/*.tsv`: `query-id<TAB>corpus-id<TAB>score`, with or without the header line.
    pub fn read_beir(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut qrels = Self::new();
        let mut first = true;
        for_each_line(path, |number, line| {
            let header = std::mem::take(&mut first);
            let columns: Vec<&str> = line.split('\t').map(str::trim).collect();
            let &[query, doc, grade] = columns.as_slice() else {
                return Err(bad_columns(path, number, columns.len(), BEIR));
            };
            // A header is a first line whose last column is a word: a number there, whole or not, is a grade.
            if header && grade.parse::<f64>().is_err() {
                return Ok(());
            }
            qrels.insert_checked(path, number, query, doc, grade, BEIR)
        })?;
        Ok(qrels)
    }

    /// Reads TREC qrels: `query iteration document grade`, separated by white space.
    pub fn read_trec(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut qrels = Self::new();
        for_each_line(path, |number, line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let &[query, _, doc, grade] = columns.as_slice() else {
                return Err(bad_columns(path, number, columns.len(), TREC));
            };
            qrels.insert_checked(path, number, query, doc, grade, TREC)
        })?;
        Ok(qrels)
    }

    fn insert_checked(
        &mut self,
        path: &Path,
        line: usize,
        query: &str,
        doc: &str,
        grade: &str,
        expected: &'static str,
    ) -> Result<()> {
        let bad = |problem| Error::BadLine { path: path.to_owned(), line, problem, expected };
        if query.is_empty() || doc.is_empty() {
            return Err(bad("an id is empty".to_owned()));
        }
        let grade = grade.parse::<i32>().map_err(|_| bad(format!("grade {grade:?} is no whole number")))?;
        self.insert(query, doc, grade)
    }
}

pub(crate) fn bad_columns(path: &Path, line: usize, got: usize, expected: &'static str) -> Error {
    Error::BadLine { path: path.to_owned(), line, problem: format!("{got} columns"), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Qrels> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qrels.tsv");
        fs_err::write(&path, text).unwrap();
        Qrels::read(&path)
    }

    #[test]
    fn both_formats_give_the_same() {
        let beir = read("query-id\tcorpus-id\tscore\nq1\td 1\t2\r\nq2\td2\t-1\n\n").unwrap();
        assert_eq!(beir.grade("q1", "d 1"), Some(2));
        assert_eq!((beir.len(), beir.judgements()), (2, 2));
        let bare = read("q1\td1\t2\nq2\td2\t-1").unwrap();
        let trec = read("q1 0 d1 2\nq2 Q0\td2 -1\n").unwrap();
        assert_eq!(bare, trec);
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_line() {
        for (text, part) in [
            ("query-id\tcorpus-id\tscore\nq1\td1\n", "qrels.tsv:2: 2 columns"),
            ("query-id\tcorpus-id\tscore\nq1\td1\tx\n", "qrels.tsv:2: grade \"x\""),
            ("q1\td1\t0.5\n", "qrels.tsv:1: grade \"0.5\""),
            (
                "q1\td1\t1\n\nq1\td1\t2\n",
                "qrels.tsv:3: query \"q1\" judges document \"d1\" twice, as 1 and as 2",
            ),
            ("q1 0 d1 1\nq1 0 d1\n", "qrels.tsv:2: 3 columns"),
            ("\td1\t1\n", "qrels.tsv:1: an id is empty"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let message = Qrels::read("/nowhere/qrels.tsv").unwrap_err().to_string();
        assert!(message.contains("/nowhere/qrels.tsv"), "{message}");
    }
}
