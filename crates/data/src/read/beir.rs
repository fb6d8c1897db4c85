//! BEIR directories: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`, each optionally compressed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Examples, Passages, lookup};
use crate::bad_rows::{BadRow, Fault, Problem};
use crate::columns;
use crate::source::{find, listing, require, rows_of};
use crate::{BadRows, Error, Qrel, Query, Result, RetrievalExample};

/// A BEIR directory. Opening reads nothing; each part is streamed when asked for.
#[derive(Debug, Clone)]
pub struct Beir {
    dir: PathBuf,
    corpus: PathBuf,
    queries: PathBuf,
}

impl Beir {
    /// Finds the parts of the directory.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        Ok(Self {
            corpus: require(dir, "corpus.jsonl")?,
            queries: require(dir, "queries.jsonl")?,
            dir: dir.to_owned(),
        })
    }

    /// The names of the splits, sorted.
    pub fn splits(&self) -> Result<Vec<String>> {
        let qrels = self.dir.join("qrels");
        let mut splits = Vec::new();
        if qrels.is_dir() {
            for entry in fs_err::read_dir(&qrels)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                let stem = name.trim_end_matches(".gz").trim_end_matches(".zst").strip_suffix(".tsv");
                splits.extend(stem.filter(|s| !s.starts_with('.')).map(str::to_owned));
            }
        }
        splits.sort();
        Ok(splits)
    }

    /// Streams the corpus. Memory holds a hash per id, for telling duplicates.
    pub fn corpus(&self, bad: &BadRows) -> Result<Passages> {
        super::corpus::jsonl(vec![self.corpus.clone()], bad)
    }

    /// Streams the queries of all splits.
    pub fn queries(&self, bad: &BadRows) -> Result<Box<dyn Iterator<Item = Result<Query>> + Send>> {
        queries(&self.queries, bad)
    }

    /// Streams the judgements of a split, irrelevant ones included.
    pub fn qrels(&self, split: &str, bad: &BadRows) -> Result<Box<dyn Iterator<Item = Result<Qrel>> + Send>> {
        Ok(Box::new(numbered_qrels(vec![self.qrels_path(split)?], bad).map(|r| r.map(|(_, qrel)| qrel))))
    }

    /// One example per query of the split, with all its relevant passages. Memory holds the queries and judged
    /// passages of the split.
    pub fn examples(&self, split: &str, bad: &BadRows) -> Result<Examples> {
        self.examples_quiet(split, bad, bad)
    }

    /// Like [`Beir::examples`], with the rows of corpus and queries reported apart, for readers of several splits.
    pub(crate) fn examples_quiet(&self, split: &str, bad: &BadRows, shared: &BadRows) -> Result<Examples> {
        let qrels = self.qrels_path(split)?;
        let judged = join(&qrels, &self.queries, || self.corpus(shared), bad, shared)?;
        Ok(Box::new(judged.into_iter().map(Ok)))
    }

    fn qrels_path(&self, split: &str) -> Result<PathBuf> {
        let folder = self.dir.join("qrels");
        find(&folder, &format!("{split}.tsv")).ok_or_else(|| Error::Missing {
            path: folder.join(format!("{split}.tsv")),
            remedy: match self.splits() {
                Ok(splits) if !splits.is_empty() => format!("the splits are {}", splits.join(", ")),
                _ => format!("{} holds {}", self.dir.display(), listing(&self.dir)),
            },
        })
    }
}

/// Streams a `queries.jsonl`.
pub(crate) fn queries(path: &Path, bad: &BadRows) -> Result<Box<dyn Iterator<Item = Result<Query>> + Send>> {
    let mut seen = HashSet::new();
    Ok(Box::new(rows_of(vec![path.to_owned()], bad, move |_, line| {
        let query = columns::query(&columns::parse_object(line)?)?;
        unique(&mut seen, &query.id)?;
        Ok(Some(query))
    })))
}

/// Streams judgements with their line numbers. Three columns (query, passage, grade), TREC's four, or two.
pub(crate) fn numbered_qrels(
    files: Vec<PathBuf>,
    bad: &BadRows,
) -> impl Iterator<Item = Result<(u64, Qrel)>> + Send + use<> {
    rows_of(files, bad, |line_number, line| {
        let parts: Vec<&str> = match line.contains('\t') {
            true => line.split('\t').map(str::trim).collect(),
            false => line.split_whitespace().collect(),
        };
        let (query, passage, grade) = match parts[..] {
            [query, passage] => (query, passage, "1"),
            [query, passage, grade] | [query, _, passage, grade] => (query, passage, grade),
            _ => {
                let detail = format!("expected query, passage and grade; got {} columns", parts.len());
                return Err(Fault::new(Problem::MissingColumn, detail));
            }
        };
        match grade.parse::<f64>() {
            // Some data sets write grades as 1.0.
            Ok(grade) if grade.fract() == 0.0 && grade.abs() < 1e9 => Ok(Some((
                line_number,
                Qrel { query: query.into(), passage: passage.into(), grade: grade as i32 },
            ))),
            _ if line_number == 1 => Ok(None),
            _ => Err(Fault::new(Problem::WrongType, format!("the grade {grade:?} is not a whole number"))),
        }
    })
}

/// Joins judgements with queries and passages: one example per query with at least one relevant passage. Judgements
/// are reported to `bad`, queries to `shared`.
pub(crate) fn join(
    qrels: &Path,
    query_file: &Path,
    corpus: impl FnOnce() -> Result<Passages>,
    bad: &BadRows,
    shared: &BadRows,
) -> Result<Vec<RetrievalExample>> {
    let judgements: Vec<(u64, Qrel)> = numbered_qrels(vec![qrels.to_owned()], bad).collect::<Result<_>>()?;
    let needed: HashSet<String> =
        judgements.iter().filter(|(_, q)| q.grade > 0).map(|(_, q)| q.passage.clone()).collect();
    let wanted: HashSet<&str> = judgements.iter().map(|(_, q)| q.query.as_str()).collect();

    let mut list = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    let stream: Box<dyn Iterator<Item = Result<Query>>> = match super::is_jsonl(query_file) {
        true => queries(query_file, shared)?,
        false => super::corpus::tsv_queries(query_file, shared)?,
    };
    for query in stream {
        let query = query?;
        if wanted.contains(query.id.as_str()) {
            place.insert(query.id.clone(), list.len());
            list.push(RetrievalExample { query, ..RetrievalExample::default() });
        }
    }
    let passages = lookup(corpus()?, &needed)?;

    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (line, qrel) in &judgements {
        let reject = |problem, detail| {
            let row = format!("{}\t{}\t{}", qrel.query, qrel.passage, qrel.grade);
            bad.note(|report| report.rows -= 1);
            bad.bad(BadRow { path: qrels.to_owned(), line: *line, problem, detail, row })
        };
        let Some(&index) = place.get(&qrel.query) else {
            reject(Problem::MissingQuery, format!("{} has no query {:?}", query_file.display(), qrel.query))?;
            continue;
        };
        if !seen.insert((&qrel.query, &qrel.passage)) {
            reject(Problem::DuplicateId, format!("query and passage {:?} were judged before", qrel.passage))?;
            continue;
        }
        if qrel.grade <= 0 {
            continue;
        }
        match passages.get(&qrel.passage) {
            Some(passage) => list[index].positives.push(passage.clone()),
            None => reject(Problem::MissingPassage, format!("the corpus has no passage {:?}", qrel.passage))?,
        }
    }
    let before = list.len();
    list.retain(|example| !example.positives.is_empty());
    bad.note(|report| report.unjudged += (before - list.len()) as u64);
    Ok(list)
}

/// Refuses an id that was seen before. Ids are kept as hashes: a corpus may have more of them than fit as text.
pub(crate) fn unique(seen: &mut HashSet<u64>, id: &str) -> Result<(), Fault> {
    if seen.insert(xxhash_rust::xxh3::xxh3_64(id.as_bytes())) {
        Ok(())
    } else {
        Err(Fault::new(Problem::DuplicateId, format!("the id {id:?} was used before")))
    }
}
