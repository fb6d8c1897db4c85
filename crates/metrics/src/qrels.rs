//! Which documents are relevant to which queries, and how much: the judgements, and the files they come in.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::tsv::for_each_line;
use crate::{Error, Result};

const EXPECTED: &str = "query id, document id, grade (BEIR), or query id, iteration, document id, grade (TREC); grades are \
                        whole numbers";

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

    /// Reads a file of judgements in any of the layouts of [`QrelsLines`].
    ///
    /// # Errors
    /// A file that cannot be read; a line that is no judgement, or contradicts another.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (mut qrels, mut lines) = (Self::new(), QrelsLines::default());
        for_each_line(path, |line, text| {
            let read = lines.read(text).map_err(|problem| Error::BadLine {
                path: path.to_owned(),
                line,
                problem,
                expected: EXPECTED,
            })?;
            match read {
                Some(Judgement { query, doc, grade }) => qrels.insert(query, doc, grade),
                None => Ok(()),
            }
        })?;
        Ok(qrels)
    }
}

/// One judgement of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// Id of the query.
    pub query: &'a str,
    /// Id of the document.
    pub doc: &'a str,
    /// Its grade.
    pub grade: i32,
}

/// Reads lines of judgements, the first of which shows their layout.
///
/// TREC: query, iteration, document, grade. BEIR: query, document, grade, with or without a header; a header's names are
/// taken at their word, so that its columns may stand in any order. MS MARCO's and others' pairs: query, document, which
/// are relevant. Columns are separated by tabs, or by any white space; more columns are passed over, as are comments (lines
/// that begin with `#`) and empty lines. Grades are whole numbers, which some files write as `1.0`.
#[derive(Debug, Clone, Default)]
pub struct QrelsLines {
    layout: Option<Layout>,
}

/// Where query, document and grade stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    query: usize,
    doc: usize,
    grade: Option<usize>,
}

const TREC: Layout = Layout { query: 0, doc: 2, grade: Some(3) };
const BEIR: Layout = Layout { query: 0, doc: 1, grade: Some(2) };
const PAIRS: Layout = Layout { query: 0, doc: 1, grade: None };

// Names of columns in headers, in lower case and without `-` and `_`.
const QUERY: [&str; 6] = ["queryid", "qid", "query", "topic", "topicid", "questionid"];
const DOC: [&str; 9] =
    ["corpusid", "docid", "docno", "pid", "passageid", "documentid", "document", "doc", "passage"];
const GRADE: [&str; 8] = ["score", "grade", "relevance", "rel", "label", "judgment", "judgement", "relevant"];

impl QrelsLines {
    /// The judgement of a line; `None` for a header, a comment and an empty line.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn read<'a>(&mut self, line: &'a str) -> std::result::Result<Option<Judgement<'a>>, String> {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            return Ok(None);
        }
        let spaced: Vec<&str> = line.split_whitespace().collect();
        let tabbed: Vec<&str> = line.split('\t').map(str::trim).collect();
        // Ids may hold spaces where tabs separate; where they separate too little, white space does.
        let both = spaced.get(3).is_some_and(|c| grade(c).is_some())
            && tabbed.iter().skip(2).all(|c| grade(c).is_none());
        let tabs = tabbed.len() >= 3 && !both || spaced.len() < 3 && tabbed.len() == 2;
        let columns = if tabs { tabbed } else { spaced };
        let layout = match self.layout {
            Some(layout) => layout,
            None => {
                if let Some(header) = header(&columns) {
                    self.layout = header;
                    return Ok(None);
                }
                *self.layout.insert(layout(&columns)?)
            }
        };
        let last = layout.grade.unwrap_or(layout.doc).max(layout.doc).max(layout.query);
        if columns.len() <= last {
            return Err(format!("{} columns", columns.len()));
        }
        let (query, doc) = (columns[layout.query], columns[layout.doc]);
        if query.is_empty() || doc.is_empty() {
            return Err("an id is empty".to_owned());
        }
        let grade = layout.grade.map_or(Ok(1), |at| {
            grade(columns[at]).ok_or_else(|| format!("grade {:?} is no whole number", columns[at]))
        })?;
        Ok(Some(Judgement { query, doc, grade }))
    }
}

/// A whole number, also as `1.0`.
fn grade(text: &str) -> Option<i32> {
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && number.abs() < 1e9).then_some(number as i32)
}

/// The layout that a header says, `Some(None)` where it is a header and its names are not known.
fn header(columns: &[&str]) -> Option<Option<Layout>> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let names: Vec<String> = columns.iter().map(|name| plain(name)).collect();
    let find = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
    if let (Some(query), Some(doc)) = (find(&QUERY), find(&DOC)) {
        return Some(Some(Layout { query, doc, grade: find(&GRADE) }));
    }
    // Ids and grades have digits as a rule; a line of words alone is a header.
    let words = columns.len() >= 3
        && columns.iter().all(|c| !c.is_empty() && !c.contains(|c: char| c.is_ascii_digit()));
    words.then_some(None)
}

/// The layout of a line of data.
fn layout(columns: &[&str]) -> std::result::Result<Layout, String> {
    let number = |at: usize| columns.get(at).is_some_and(|text| text.parse::<f64>().is_ok());
    match columns.len() {
        0 | 1 => Err(format!("{} columns", columns.len())),
        2 => Ok(PAIRS),
        3 => Ok(BEIR),
        _ if !number(3) && number(2) => Ok(BEIR),
        _ => Ok(TREC),
    }
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
    fn what_trec_eval_and_others_write_is_read() {
        let want = read("q1 0 d1 2\nq2 0 d2 0\n").unwrap();
        for text in [
            // Comments, empty lines, grades as fractions, runs of spaces, spaces in front, more columns.
            "# judged in 2019\n\n  q1   0  d1 \t 2.0\nq2 0 d2 0\r\n",
            "q1 0 d1 2 annotator-7\nq2 0 d2 0 annotator-9 late\n",
            "q1\td1\t2\nq2\td2\t0\n",
            "q1\t0\td1 2\nq2 0\td2 0\n",
            "q1 d1 2\nq2 d2 0.0\n",
            "q1\td1\t2\tsure\nq2\td2\t0\tnot sure\n",
            "query_id\tcorpus_id\tscore\nq1\td1\t2\nq2\td2\t0\n",
            "qid Q0 docno rel\nq1 0 d1 2\nq2 0 d2 0\n",
            "score\tcorpus-id\tquery-id\n2\td1\tq1\n0\td2\tq2\n",
            "frage\tpassage\tnote\nq1\td1\t2\nq2\td2\t0\n",
        ] {
            assert_eq!(read(text).unwrap(), want, "{text:?}");
        }
        // Pairs are relevant; ids may be numbers, and hold spaces where tabs separate.
        assert_eq!(read("1 7\n2 8\n").unwrap(), read("1 0 7 1\n2 0 8 1").unwrap());
        assert_eq!(read("q 1\td 1\t1\n").unwrap().grade("q 1", "d 1"), Some(1));
        assert_eq!(read("301 0 CR93E-1282 -1").unwrap().grade("301", "CR93E-1282"), Some(-1));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, part) in [
            ("query-id\tcorpus-id\tscore\nq1\td1\n", "qrels.tsv:2: 2 columns"),
            ("query-id\tcorpus-id\tscore\nq1\td1\tx\n", "qrels.tsv:2: grade \"x\""),
            ("q1\td1\t0.5\n", "qrels.tsv:1: grade \"0.5\""),
            ("1 0 7 1\n1 0 9 x\n", "qrels.tsv:2: grade \"x\""),
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
