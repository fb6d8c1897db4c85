//! What a system returned for each query, in memory and as a TREC run file.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::Path;

use ragduet_files::OutputFile;

use crate::tsv::for_each_line;
use crate::{Error, Result};

const TREC: &str = "6 columns: query id, Q0, document id, rank, score, run name";

/// Rankings: query id -> documents with scores.
///
/// The order in which documents are given has no meaning: as in trec_eval, the score alone ranks, and among equal
/// scores the document whose id is greater (byte by byte) comes first. Inserting sorts so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    queries: BTreeMap<String, Vec<(String, f32)>>,
}

impl Run {
    /// No rankings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a query's documents, in any order; there may be none. A query given twice, a document given twice and a
    /// NaN are errors.
    pub fn insert(&mut self, query: impl Into<String>, mut docs: Vec<(String, f32)>) -> Result<()> {
        let query = query.into();
        if self.queries.contains_key(&query) {
            return Err(Error::DuplicateQuery { query });
        }
        let mut seen = HashSet::with_capacity(docs.len());
        for (doc, score) in &docs {
            if score.is_nan() {
                return Err(Error::NanScore { query, doc: doc.clone() });
            }
            if !seen.insert(doc.as_str()) {
                return Err(Error::DuplicateDoc { query, doc: doc.clone() });
            }
        }
        sort(&mut docs);
        self.queries.insert(query, docs);
        Ok(())
    }

    /// One query's documents, best first.
    pub fn get(&self, query: &str) -> Option<&[(String, f32)]> {
        self.queries.get(query).map(Vec::as_slice)
    }

    /// Queries in the order of their ids, documents best first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[(String, f32)])> {
        self.queries.iter().map(|(query, docs)| (query.as_str(), docs.as_slice()))
    }

    /// How many queries have a ranking.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Removes documents whose id equals the query's, and returns how many.
    ///
    /// BEIR's own evaluation does so; ArguAna and Quora, whose queries are in the corpus, score far lower without.
    pub fn drop_identical_ids(&mut self) -> usize {
        let mut dropped = 0;
        for (query, docs) in &mut self.queries {
            let before = docs.len();
            docs.retain(|(doc, _)| doc != query);
            dropped += before - docs.len();
        }
        dropped
    }

    /// Keeps the best `k` documents of each query.
    pub fn truncate(&mut self, k: usize) {
        self.queries.values_mut().for_each(|docs| docs.truncate(k));
    }

    /// Reads a TREC run file. As in trec_eval the rank column is ignored; the lines may come in any order. Comments (lines
    /// that begin with `#`) are passed over, as are columns behind the run's name, which may hold spaces.
    pub fn read_trec(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut queries: BTreeMap<String, Vec<(String, f32)>> = BTreeMap::new();
        let mut seen: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        for_each_line(path, |line, text| {
            let columns: Vec<&str> = text.split_whitespace().collect();
            if text.trim_start().starts_with('#') {
                return Ok(());
            }
            let [query, _, doc, _, score, _, ..] = columns[..] else {
                let problem = format!("{} columns", columns.len());
                return Err(Error::BadLine { path: path.to_owned(), line, problem, expected: TREC });
            };
            // By way of f64, because trec_eval reads a double and stores a float.
            let score = score.parse::<f64>().map_err(|_| Error::BadLine {
                path: path.to_owned(),
                line,
                problem: format!("score {score:?} is no number"),
                expected: TREC,
            })? as f32;
            if score.is_nan() {
                return Err(Error::NanScore { query: query.to_owned(), doc: doc.to_owned() });
            }
            if !seen.entry(query.to_owned()).or_default().insert(doc.to_owned()) {
                return Err(Error::DuplicateDoc { query: query.to_owned(), doc: doc.to_owned() });
            }
            queries.entry(query.to_owned()).or_default().push((doc.to_owned(), score));
            Ok(())
        })?;
        queries.values_mut().for_each(|docs| sort(docs));
        Ok(Self { queries })
    }

    /// Writes a TREC run file, best document first. `name` is its last column. The file appears complete or not at
    /// all.
    pub fn write_trec(&self, path: impl AsRef<Path>, name: &str) -> Result<()> {
        writable(name)?;
        let mut out = OutputFile::create(path)?;
        for (query, docs) in &self.queries {
            writable(query)?;
            for (rank, (doc, score)) in docs.iter().enumerate() {
                writable(doc)?;
                // Rust prints the shortest digits that read back as the same float.
                writeln!(out, "{query} Q0 {doc} {} {score} {name}", rank + 1)?;
            }
        }
        Ok(out.finish()?)
    }
}

fn sort(docs: &mut [(String, f32)]) {
    // NaN never gets here, and partial_cmp, unlike total_cmp, holds 0.0 and -0.0 for equal as C does.
    docs.sort_unstable_by(|(doc_a, a), (doc_b, b)| {
        b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal).then_with(|| doc_b.cmp(doc_a))
    });
}

fn writable(id: &str) -> Result<()> {
    if id.is_empty() || id.contains(char::is_whitespace) {
        return Err(Error::IdNotWritable { id: id.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docs(pairs: &[(&str, f32)]) -> Vec<(String, f32)> {
        pairs.iter().map(|&(doc, score)| (doc.to_owned(), score)).collect()
    }

    #[test]
    fn ties_put_the_greater_id_first() {
        let mut run = Run::new();
        run.insert("q", docs(&[("a", 0.0), ("c", -0.0), ("b", 1.0), ("aa", 0.0)])).unwrap();
        let order: Vec<&str> = run.get("q").unwrap().iter().map(|(d, _)| d.as_str()).collect();
        assert_eq!(order, ["b", "c", "aa", "a"]);
    }

    #[test]
    fn bad_rankings_are_refused() {
        let mut run = Run::new();
        assert!(matches!(run.insert("q", docs(&[("a", 1.0), ("a", 2.0)])), Err(Error::DuplicateDoc { .. })));
        assert!(matches!(run.insert("q", docs(&[("a", f32::NAN)])), Err(Error::NanScore { .. })));
        run.insert("q", docs(&[])).unwrap();
        assert!(matches!(run.insert("q", docs(&[])), Err(Error::DuplicateQuery { .. })));
    }

    #[test]
    fn files_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.trec");
        let mut run = Run::new();
        run.insert("q1", docs(&[("a", 0.1), ("b", 1e-30), ("c", -3.25)])).unwrap();
        run.insert("q2", docs(&[("ä", 7.0)])).unwrap();
        run.write_trec(&path, "test").unwrap();
        assert_eq!(Run::read_trec(&path).unwrap(), run);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);

        run.insert("q 3", docs(&[("a", 0.1)])).unwrap();
        assert!(matches!(run.write_trec(&path, "test"), Err(Error::IdNotWritable { .. })));
        assert_eq!(Run::read_trec(&path).unwrap().len(), 2, "the old file stays");
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.trec");
        for (text, part) in [
            ("q1 Q0 a 1 0.5\n", "run.trec:1: 5 columns"),
            ("q1 Q0 a 1 0.5 x\nq1 Q0 b 2 high x\n", "run.trec:2: score \"high\""),
            ("q1 Q0 a 1 0.5 x\nq1 Q0 a 2 0.4 x\n", "run.trec:2: the run returns document \"a\" twice"),
            ("q1 Q0 a 1 nan x\n", "run.trec:1: the score of document \"a\""),
        ] {
            fs_err::write(&path, text).unwrap();
            let message = Run::read_trec(&path).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.trec");
        let mut want = Run::new();
        want.insert("q1", docs(&[("a", 2.0), ("b", 0.5)])).unwrap();
        for text in [
            "q1 Q0 a 1 2 x\nq1 Q0 b 2 .5 x\n",
            "# by us\n  q1\tQ0\tb\t0\t5e-1\tx\r\nq1  Q0 a 1 2.0 my run, the best\n",
            "\u{feff}q1 0 a 1 +2.0 x extra\n\nq1 0 b 1 0.5 x\n",
        ] {
            fs_err::write(&path, text).unwrap();
            assert_eq!(Run::read_trec(&path).unwrap(), want, "{text:?}");
        }
    }

    #[test]
    fn identical_ids_can_be_dropped() {
        let mut run = Run::new();
        run.insert("a", docs(&[("a", 2.0), ("b", 1.0)])).unwrap();
        assert_eq!(run.drop_identical_ids(), 1);
        assert_eq!(run.get("a").unwrap(), docs(&[("b", 1.0)]));
    }
}
