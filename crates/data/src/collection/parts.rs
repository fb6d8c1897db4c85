//! The parts of a collection, as its format reads them, and how judgements are joined with the rest: one rule for what
//! a judgement names and the collection lacks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use crate::bad_rows::{BadRow, Problem};
use crate::ids::lookup;
use crate::stream::{Examples, NumberedQrels, Passages, Queries};
use crate::{BadRows, Qrel, Result, RetrievalExample};

/// Answers by question id.
pub type Answers = HashMap<String, Vec<String>>;

/// Where the parts of a split stand, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The file of the judgements.
    pub(crate) qrels: PathBuf,
    /// The file of the queries.
    pub(crate) queries: PathBuf,
    /// The object that holds the judgements by query, in formats that have one.
    pub(crate) key: Option<&'static str>,
}

/// What a format that holds collections reads.
pub(crate) trait Parts: fmt::Debug + Send + Sync {
    /// The names of the splits, sorted; `None` where the format has no splits.
    fn splits(&self) -> Result<Option<Vec<String>>>;

    /// The passages.
    fn corpus(&self, bad: &BadRows) -> Result<Passages>;

    /// The queries of a split, or all of them; those of other splits may be among them.
    fn queries(&self, split: Option<&str>, bad: &BadRows) -> Result<Queries>;

    /// The judgements of a split, irrelevant ones included.
    fn qrels(&self, split: &str, bad: &BadRows) -> Result<NumberedQrels>;

    /// Where the parts of a split stand.
    fn places(&self, split: &str) -> Result<Places>;

    /// Answers by question, where the collection has them.
    fn answers(&self, bad: &BadRows) -> Result<Option<Answers>>;

    /// An example for each query of the split with a relevant passage. Judgements are reported to `bad`, corpus and
    /// queries to `shared`, for readers of several splits.
    fn examples(&self, split: &str, bad: &BadRows, shared: &BadRows) -> Result<Examples> {
        let mut list = join(self, split, bad, shared)?;
        let before = list.len();
        list.retain(|example| !example.positives.is_empty());
        bad.note(|report| report.unjudged += (before - list.len()) as u64);
        Ok(Box::new(list.into_iter().map(Ok)))
    }
}

/// An example for each judged query of the split with its relevant passages, of which there may be none; where the
/// format has no splits, for each query. Memory holds the queries and the relevant passages.
///
/// Judgements are reported to `bad`, corpus and queries to `shared`.
pub(crate) fn join<P: Parts + ?Sized>(
    parts: &P,
    split: &str,
    bad: &BadRows,
    shared: &BadRows,
) -> Result<Vec<RetrievalExample>> {
    let judgements: Vec<(u64, Qrel)> = parts.qrels(split, bad)?.collect::<Result<_>>()?;
    let needed: HashSet<String> =
        judgements.iter().filter(|(_, q)| q.grade > 0).map(|(_, q)| q.passage.clone()).collect();
    let wanted: HashSet<&str> = judgements.iter().map(|(_, q)| q.query.as_str()).collect();
    let all = parts.splits()?.is_none();

    let mut list = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    for query in parts.queries(Some(split), shared)? {
        let query = query?;
        if all || wanted.contains(query.id.as_str()) {
            place.insert(query.id.clone(), list.len());
            list.push(RetrievalExample { query, ..RetrievalExample::default() });
        }
    }
    let passages = lookup(parts.corpus(shared)?, &needed)?;

    let places = parts.places(split)?;
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    for (line, qrel) in &judgements {
        let reject = |problem, detail: String| {
            let row = format!("{}\t{}\t{}", qrel.query, qrel.passage, qrel.grade);
            let detail = match places.key {
                Some(key) => format!("{key}[{:?}]: {detail}", qrel.query),
                None => detail,
            };
            bad.note(|report| report.rows -= 1);
            let row = BadRow { path: places.qrels.clone(), line: *line, problem, detail, row };
            match problem {
                Problem::MissingQuery | Problem::MissingPassage => bad.missing(row),
                _ => bad.bad(row),
            }
        };
        let Some(&index) = place.get(&qrel.query) else {
            let detail = format!("{} has no query {:?}", places.queries.display(), qrel.query);
            reject(Problem::MissingQuery, detail)?;
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
    Ok(list)
}
