//! Rows that judge or score passages: pairs with a label, lists of documents with labels or scores, NLI pairs.
//!
//! A label of 1 or 0 is a judgement: the passage is relevant to the query, or not. Any other number is a score, and a
//! score is no judgement: a contrastive loss would take a pair scored 0.1 for a positive like one scored 0.9. What
//! becomes of scores is said by [`PairLabels`]; where it is not said, they are refused.
//!
//! | row | columns |
//! |---|---|
//! | pair | a query, one passage, and one label: a number, true or false, or an NLI class |
//! | list | a query, `docs` or `documents`, and `labels` or `scores`, one per document |
//! | list of ids | `query_id`, `document_ids`, and `scores`, with the texts in files of their own (PyLate) |
//!
//! Judged pairs are grouped by query: an example for each passage that is relevant, with all that are not.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::bad_rows::{Fault, Problem};
use crate::columns::{self, QUERY};
use crate::format::spec::Reading;
use crate::ids::lookup;
use crate::read::corpora::queries;
use crate::read::rows::{Holder, Place, Rows};
use crate::reads::EXAMPLES;
use crate::record::text_key;
use crate::source::Fallible;
use crate::stream::Examples;
use crate::{BadRows, Error, Passage, Query, Result, RetrievalExample};

type Row = Map<String, Value>;

/// What the labels of pairs and of lists of documents mean.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum PairLabels {
    /// Judgements, 1 or 0. Scores are refused.
    #[default]
    Judgements,
    /// Scores, kept for a loss that learns from them: each pair is an example of its own.
    Scores,
    /// Scores that make a passage relevant from this one on.
    AtLeast(f32),
    /// NLI classes: entailment is relevant, contradiction is not, neutral pairs are left out and counted.
    Nli,
}

impl PairLabels {
    /// What settings say: a threshold, or NLI.
    ///
    /// # Errors
    /// Both of them, or a threshold that is no number; the reason.
    pub fn of(min_score: Option<f64>, nli: bool) -> std::result::Result<Self, String> {
        match (min_score, nli) {
            (Some(_), true) => Err("NLI classes have no threshold: give one of min_score and nli".into()),
            (Some(least), _) if !least.is_finite() => Err(format!("min_score: {least} is no threshold")),
            (Some(least), false) => Ok(Self::AtLeast(least as f32)),
            (None, true) => Ok(Self::Nli),
            (None, false) => Ok(Self::Judgements),
        }
    }
}

/// Columns of lists of documents, and of their ids.
pub(crate) const DOCUMENTS: [&str; 2] = ["docs", "documents"];
pub(crate) const DOCUMENT_IDS: [&str; 3] = ["document_ids", "doc_ids", "passage_ids"];
/// NLI classes, by their numbers in SNLI and MultiNLI.
const CLASSES: [&str; 3] = ["entailment", "neutral", "contradiction"];

/// Whether a column takes part in an example.
pub(crate) fn is_known(column: &str) -> bool {
    columns::is_known(column) || DOCUMENTS.contains(&column) || DOCUMENT_IDS.contains(&column)
}

/// What a row is.
#[derive(Debug, PartialEq)]
pub(crate) enum Judged {
    /// An example as it is.
    Example(RetrievalExample),
    /// A pair that is judged.
    Pair(Query, Passage, bool),
    /// A pair that is left out: neutral, or without a class.
    Neutral,
    /// A query with documents of which none is relevant.
    Unjudged,
}

/// Reads a row.
pub(crate) fn read(mut row: Row, labels: PairLabels) -> Result<Judged, Fault> {
    if let Some(column) = present(&row, &DOCUMENTS)
        && !columns::has_positive(&row)
    {
        return list(&mut row, column, labels);
    }
    let Some((column, value)) = lone_label(&row) else { return columns::example(row).map(Judged::Example) };
    let label = label(column, &value)?;
    for name in columns::SCORES {
        row.remove(name);
    }
    let mut example = columns::example(row)?;
    if example.positives.len() != 1 || !example.negatives.is_empty() {
        let detail = format!("column {column:?} is one label for {} passages", example.positives.len());
        return Err(Fault::new(Problem::ScoreCount, detail));
    }
    let relevant = match (labels, label) {
        (PairLabels::Nli, label) => match nli(column, label)? {
            Some(relevant) => relevant,
            None => return Ok(Judged::Neutral),
        },
        (_, Label::Class(class)) => return Err(refused(column, &format!("{:?}", CLASSES[class]))),
        (PairLabels::Scores, Label::Number(score)) => {
            example.scores = Some(vec![score]);
            return Ok(Judged::Example(example));
        }
        (PairLabels::AtLeast(least), Label::Number(score)) => score >= least,
        (PairLabels::Judgements, Label::Number(score)) => judgement(column, score)?,
    };
    let passage = example.positives.remove(0);
    Ok(Judged::Pair(example.query, passage, relevant))
}

/// A query with documents and a label or score each.
fn list(row: &mut Row, column: &'static str, labels: PairLabels) -> Result<Judged, Fault> {
    let passages = columns::passages(column, row.remove(column))?;
    let Some(of) = present(row, &columns::SCORES) else {
        let names = columns::SCORES.join(", ");
        let detail = format!("{column:?} has no labels or scores beside it (looked for {names})");
        return Err(Fault::new(Problem::MissingColumn, detail));
    };
    let value = parsed_list(row.get(of).cloned().unwrap_or_default());
    let Value::Array(list) = value else {
        let detail =
            format!("column {of:?}: expected one number per document, got {}", columns::kind(&value));
        return Err(Fault::new(Problem::WrongType, detail));
    };
    let scores = list
        .iter()
        .map(|value| match label(of, value)? {
            Label::Number(score) => Ok(score),
            Label::Class(class) => Err(refused(of, &format!("{:?}", CLASSES[class]))),
        })
        .collect::<Result<Vec<f32>, Fault>>()?;
    if scores.len() != passages.len() {
        let detail = format!(
            "column {of:?} holds {} numbers for {} documents in {column:?}",
            scores.len(),
            passages.len()
        );
        return Err(Fault::new(Problem::ScoreCount, detail));
    }
    let judged = scores.iter().all(|score| [0.0, 1.0].contains(score));
    let relevant: Vec<bool> = match labels {
        PairLabels::AtLeast(least) => scores.iter().map(|score| *score >= least).collect(),
        PairLabels::Nli => {
            let detail = "a list of documents has no NLI classes: leave nli out for it";
            return Err(Fault::new(Problem::WrongType, detail));
        }
        _ if judged => scores.iter().map(|score| *score == 1.0).collect(),
        PairLabels::Scores => {
            // A loss over scores compares all of them; the best one stands first.
            let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
            (0..scores.len()).map(|i| i == best).collect()
        }
        PairLabels::Judgements => {
            let other = scores.iter().find(|score| ![0.0, 1.0].contains(*score)).copied().unwrap_or_default();
            return Err(refused(of, &other.to_string()));
        }
    };
    let query = columns::query_of(row)?;
    let mut example = RetrievalExample { query, ..RetrievalExample::default() };
    let (mut of_positives, mut of_negatives) = (Vec::new(), Vec::new());
    for ((passage, score), relevant) in passages.into_iter().zip(scores).zip(relevant) {
        let (to, with) = match relevant {
            true => (&mut example.positives, &mut of_positives),
            false => (&mut example.negatives, &mut of_negatives),
        };
        to.push(passage);
        with.push(score);
    }
    if example.positives.is_empty() {
        return Ok(Judged::Unjudged);
    }
    if labels != PairLabels::Judgements {
        example.scores = Some([of_positives, of_negatives].concat());
    }
    Ok(Judged::Example(example))
}

/// A label that a row gives its one passage.
enum Label {
    Number(f32),
    Class(usize),
}

/// The label of a pair: one value beside a passage and no negatives, also as a list of one.
fn lone_label(row: &Row) -> Option<(&'static str, Value)> {
    if columns::has_negative(row) || !columns::has_positive(row) || present(row, &["pos_scores"]).is_some() {
        return None;
    }
    let column = present(row, &columns::SCORES)?;
    // Beside an empty list of negatives, one score is the teacher's of the one passage, as `data convert` writes it.
    let listed = columns::NEGATIVE.iter().any(|name| row.get(*name).is_some_and(Value::is_array));
    match row.get(column)? {
        Value::Array(_) if listed => None,
        Value::Array(list) if list.len() == 1 => Some((column, list[0].clone())),
        Value::Array(_) => None,
        value => Some((column, value.clone())),
    }
}

fn label(column: &str, value: &Value) -> Result<Label, Fault> {
    let number = |n: f64| Some(Label::Number(n as f32)).filter(|_| (n as f32).is_finite());
    let found = match value {
        Value::Bool(yes) => Some(Label::Number(f32::from(u8::from(*yes)))),
        Value::Number(n) => n.as_f64().and_then(number),
        Value::String(text) => {
            let text = text.trim().to_lowercase();
            let class = CLASSES.iter().position(|class| *class == text).map(Label::Class);
            class.or_else(|| match text.as_str() {
                "true" => Some(Label::Number(1.0)),
                "false" => Some(Label::Number(0.0)),
                // Without a majority among the annotators.
                "-" => Some(Label::Number(-1.0)),
                text => text.parse().ok().and_then(number),
            })
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let detail = format!(
            "column {column:?}: expected a finite number, true or false, or an NLI class ({}), got {}",
            CLASSES.join(", "),
            match value {
                Value::String(text) => format!("{text:?}"),
                other => columns::kind(other),
            }
        );
        Fault::new(Problem::WrongType, detail)
    })
}

/// Whether a number is a judgement, and which.
fn judgement(column: &str, score: f32) -> Result<bool, Fault> {
    match score {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => Err(refused(column, &other.to_string())),
    }
}

/// Whether an NLI class is relevant; `None` for a pair that is left out.
fn nli(column: &str, label: Label) -> Result<Option<bool>, Fault> {
    let class = match label {
        Label::Class(class) => Some(class),
        Label::Number(-1.0) => None,
        Label::Number(n) if [0.0, 1.0, 2.0].contains(&n) => Some(n as usize),
        Label::Number(n) => {
            let detail = format!(
                "column {column:?} is {n}, which is no NLI class (0 entailment, 1 neutral, 2 contradiction, or these \
                 names; -1 for none)"
            );
            return Err(Fault::new(Problem::Graded, detail));
        }
    };
    Ok(match class {
        Some(0) => Some(true),
        Some(2) => Some(false),
        _ => None,
    })
}

/// A label that is no judgement, and what can be done.
fn refused(column: &str, value: &str) -> Fault {
    let detail = format!(
        "column {column:?} is {value}: only 1 and 0 say whether a passage is relevant, and a contrastive loss would take \
         the pair for a positive like any other. Give a threshold from which on it is one (min_score = 0.7 in [data], \
         --min-score 0.7); or, for NLI classes, nli = true (--nli): entailment is a positive, contradiction a hard \
         negative, neutral is left out; or train a retriever on the scores, with [loss.cosent] or \
         [loss.cosine_similarity]"
    );
    Fault::new(Problem::Graded, detail)
}

fn present(row: &Row, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| row.get(*name).is_some_and(|value| !value.is_null()))
}

/// A list, also where it is written as a text (`"[1, 2]"`, `"['a', 'b']"`).
fn parsed_list(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    if !text.trim_start().starts_with('[') {
        return value;
    }
    let json = |text: &str| serde_json::from_str::<Vec<Value>>(text).ok();
    json(text).or_else(|| json(&text.replace('\'', "\""))).map_or(value.clone(), Value::Array)
}

/// Examples of rows with named columns, whatever holds them.
pub(crate) fn examples(from: &Reading<'_>, files: Vec<PathBuf>, holder: Holder) -> Result<Examples> {
    let labels = from.labels;
    let rows = |files| Rows { files, holder, reads: &EXAMPLES, strict: true };
    let silent = from.bad.silenced();
    let mut first = rows(files.clone()).stream(from.path, &silent, |row, _| Ok(by_id(&row)), |_| Ok(()))?;
    let named = match first.next() {
        Some(Ok(true)) => Some(Named::read(rows(files.clone()), from)?),
        _ => None,
    };
    let parse = move |mut row: Row, _: Place| {
        if let Some(named) = &named {
            named.fill(&mut row)?;
        }
        read(row, labels)
    };
    Ok(grouped(rows(files).stream(from.path, from.bad, parse, |_| Ok(()))?, from.bad))
}

/// Whether a row names its documents by id.
fn by_id(row: &Row) -> bool {
    present(row, &DOCUMENT_IDS).is_some() && present(row, &DOCUMENTS).is_none() && !columns::has_positive(row)
}

/// The texts of rows that name queries and documents by id.
struct Named {
    passages: HashMap<String, Passage>,
    queries: HashMap<String, String>,
}

impl Named {
    fn read(rows: Rows, from: &Reading<'_>) -> Result<Self> {
        let (mut documents, mut asked) = (HashSet::new(), HashSet::new());
        // Rows that cannot be read are reported by the second reading.
        let silent = from.bad.silenced();
        let both = |row: Row, _: Place| Ok((ids(&row)?, query_id(&row)?));
        for row in rows.stream(from.path, &silent, both, |_| Ok(()))? {
            let (ids, query) = row?;
            documents.extend(ids);
            asked.extend(query);
        }
        let missing = |what: &str, key: &str| Error::Unsupported {
            path: from.path.to_owned(),
            reason: format!(
                "the rows name {what} by id; give the file they are in ({key} in [data], --{key})"
            ),
        };
        let corpus = from.corpus.ok_or_else(|| missing("documents", "corpus"))?;
        let passages = lookup(corpus()?, &documents)?;
        let mut texts = HashMap::new();
        if !asked.is_empty() {
            let path: &Path = from.queries.ok_or_else(|| missing("queries", "queries"))?;
            for query in queries(path, from.bad)? {
                let query = query?;
                if asked.contains(&query.id) {
                    texts.insert(query.id, query.text);
                }
            }
        }
        Ok(Self { passages, queries: texts })
    }

    /// Puts the texts into a row.
    fn fill(&self, row: &mut Row) -> Result<(), Fault> {
        if let Some(id) = query_id(row)? {
            let Some(text) = self.queries.get(&id) else {
                return Err(Fault::new(Problem::MissingQuery, format!("there is no query {id:?}")));
            };
            row.insert("query".into(), text.as_str().into());
        }
        let named = ids(row)?;
        let documents = named.iter().map(|id| {
            let passage = self.passages.get(id).ok_or_else(|| {
                Fault::new(Problem::MissingPassage, format!("the corpus has no passage {id:?}"))
            })?;
            Ok(json!({"id": passage.id, "title": passage.title, "text": passage.text}))
        });
        let documents = documents.collect::<Result<Vec<_>, Fault>>()?;
        row.insert(DOCUMENTS[0].into(), Value::Array(documents));
        Ok(())
    }
}

/// The documents that a row names.
fn ids(row: &Row) -> Result<Vec<String>, Fault> {
    let Some(column) = present(row, &DOCUMENT_IDS) else { return Ok(Vec::new()) };
    let list = parsed_list(row.get(column).cloned().unwrap_or_default());
    columns::ids(&[(column.to_owned(), list)].into_iter().collect(), column)
}

/// The query that a row names; none where it has the text.
fn query_id(row: &Row) -> Result<Option<String>, Fault> {
    if present(row, &QUERY).is_some() {
        return Ok(None);
    }
    match present(row, &columns::QUERY_ID) {
        Some(column) => Ok(columns::ids(row, column)?.pop()),
        None => Err(columns::missing("query", &[&QUERY[..], &columns::QUERY_ID].concat(), row)),
    }
}

/// The judged pairs of a query.
#[derive(Default)]
struct Group {
    query: Query,
    positives: Vec<Passage>,
    negatives: Vec<Passage>,
}

/// Examples, with judged pairs grouped by query. They come when all rows are read; queries without a relevant passage
/// are counted.
pub(crate) fn grouped(
    mut rows: impl Iterator<Item = Result<Judged>> + Send + 'static,
    bad: &BadRows,
) -> Examples {
    let bad = bad.clone();
    let (mut groups, mut at): (Vec<Group>, HashMap<u64, usize>) = (Vec::new(), HashMap::new());
    let mut ready: Option<std::vec::IntoIter<Group>> = None;
    let mut current = Group::default();
    Box::new(Fallible::new(move || {
        loop {
            if let Some(groups) = &mut ready {
                while current.positives.is_empty() {
                    match groups.next() {
                        None => return Ok(None),
                        Some(mut next) => {
                            // The last one is taken first.
                            next.positives.reverse();
                            bad.note(|report| report.unjudged += u64::from(next.positives.is_empty()));
                            current = next;
                        }
                    }
                }
                let positives = current.positives.pop().into_iter().collect();
                let (query, negatives) = (current.query.clone(), current.negatives.clone());
                return Ok(Some(RetrievalExample {
                    query,
                    positives,
                    negatives,
                    ..RetrievalExample::default()
                }));
            }
            match rows.next().transpose()? {
                Some(Judged::Example(example)) => return Ok(Some(example)),
                Some(Judged::Neutral) => bad.note(|report| report.neutral += 1),
                Some(Judged::Unjudged) => bad.note(|report| report.unjudged += 1),
                Some(Judged::Pair(query, passage, relevant)) => {
                    // Pairs often have ids of their own, so queries are told apart by their text.
                    let place = *at.entry(text_key(&query.text)).or_insert_with(|| {
                        groups.push(Group { query, ..Group::default() });
                        groups.len() - 1
                    });
                    let group = &mut groups[place];
                    if relevant { group.positives.push(passage) } else { group.negatives.push(passage) }
                }
                None => ready = Some(std::mem::take(&mut groups).into_iter()),
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadRowPolicy, ReadOptions, read_examples};

    /// Query, positives, negatives, scores.
    type Flat = (String, Vec<String>, Vec<String>, Option<Vec<f32>>);

    fn read_file(text: &str, labels: PairLabels, bad: &BadRows) -> Result<Vec<Flat>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        fs_err::write(&path, text).unwrap();
        let options = ReadOptions { labels, ..ReadOptions::default() };
        let texts = |list: Vec<Passage>| list.into_iter().map(|p| p.text).collect();
        let rows = read_examples(&path, &options, bad)?;
        rows.map(|e| e.map(|e| (e.query.text, texts(e.positives), texts(e.negatives), e.scores))).collect()
    }

    fn flat(query: &str, positives: &[&str], negatives: &[&str]) -> Flat {
        let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        (query.into(), owned(positives), owned(negatives), None)
    }

    #[test]
    fn judged_pairs_are_grouped_by_query() {
        let rows = "{\"id\":1,\"sentence1\":\"q\",\"sentence2\":\"a\",\"label\":1}\n\
                    {\"id\":2,\"sentence1\":\"q\",\"sentence2\":\"b\",\"label\":0}\n\
                    {\"id\":3,\"sentence1\":\"r\",\"sentence2\":\"c\",\"label\":0}\n\
                    {\"id\":4,\"sentence1\":\"q\",\"sentence2\":\"d\",\"label\":1.0}\n";
        let bad = BadRows::default();
        let want = [flat("q", &["a"], &["b"]), flat("q", &["d"], &["b"])];
        assert_eq!(read_file(rows, PairLabels::Judgements, &bad).unwrap(), want);
        assert_eq!((bad.report().rows, bad.report().unjudged), (4, 1));
        for row in [
            r#"{"query":"q","passage":"p","label":true}"#,
            r#"{"premise":"q","hypothesis":"p","label":"1"}"#,
            r#"{"question1":"q","question2":"p","is_duplicate":1}"#,
            r#"{"text1":"q","text2":"p","label":[1]}"#,
        ] {
            let read = read_file(row, PairLabels::Judgements, &BadRows::default());
            assert_eq!(read.unwrap(), [flat("q", &["p"], &[])], "{row}");
        }
    }

    #[test]
    fn scores_are_no_judgements() {
        let dir = tempfile::tempdir().unwrap();
        for row in [
            r#"{"sentence1":"q","sentence2":"p","score":0.1}"#,
            r#"{"sentence1":"q","sentence2":"p","score":0.9}"#,
            r#"{"sentence1":"q","sentence2":"p","label":2}"#,
            r#"{"premise":"q","hypothesis":"p","label":"contradiction"}"#,
            r#"{"query":"q","docs":["a","b"],"labels":[2,0]}"#,
            r#"{"query":"q","documents":["a","b"],"scores":[0.5,0.1]}"#,
        ] {
            // It is the file that is not understood: setting rows aside is no way out.
            let skip = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad") });
            for bad in [BadRows::default(), skip] {
                let e = read_file(row, PairLabels::Judgements, &bad).unwrap_err().to_string();
                assert!(e.contains("x.jsonl:1") && !e.contains("mend the row"), "{e}");
                for remedy in ["min_score", "nli = true", "loss.cosent"] {
                    assert!(e.contains(remedy), "{e}");
                }
            }
        }
        // A teacher's score of a positive is none of a pair.
        let row = r#"{"query":"q","pos":["p"],"pos_scores":[0.1],"neg":[]}"#;
        let read = read_file(row, PairLabels::Judgements, &BadRows::default()).unwrap();
        assert_eq!(read[0].3, Some(vec![0.1]));
    }

    #[test]
    fn scores_as_thresholds_and_as_they_are() {
        let rows = "{\"sentence1\":\"q\",\"sentence2\":\"a\",\"score\":4.2}\n\
                    {\"sentence1\":\"q\",\"sentence2\":\"b\",\"score\":0.1}\n";
        let read = |labels| read_file(rows, labels, &BadRows::default()).unwrap();
        assert_eq!(read(PairLabels::AtLeast(4.2)), [flat("q", &["a"], &["b"])]);
        let scored = |p: &str, score| ("q".to_string(), vec![p.to_string()], vec![], Some(vec![score]));
        assert_eq!(read(PairLabels::Scores), [scored("a", 4.2), scored("b", 0.1)]);
    }

    #[test]
    fn nli_classes_make_triplets() {
        let names = ["entailment", "neutral", "contradiction", "-"];
        for numbers in [true, false] {
            let rows: Vec<String> = [0i64, 1, 2, -1]
                .iter()
                .zip(names)
                .map(|(n, name)| {
                    let label = if numbers { n.to_string() } else { format!("\"{name}\"") };
                    format!("{{\"premise\":\"q\",\"hypothesis\":\"{name}\",\"label\":{label}}}")
                })
                .collect();
            let bad = BadRows::default();
            let read = read_file(&rows.join("\n"), PairLabels::Nli, &bad).unwrap();
            assert_eq!(read, [flat("q", &["entailment"], &["contradiction"])]);
            assert_eq!(bad.report().neutral, 2);
            assert!(bad.report().to_string().contains("2 neutral pairs"), "{}", bad.report());
        }
        let row = r#"{"premise":"q","hypothesis":"p","label":3}"#;
        let e = read_file(row, PairLabels::Nli, &BadRows::default()).unwrap_err().to_string();
        assert!(e.contains("no NLI class"), "{e}");
    }

    #[test]
    fn lists_of_documents() {
        let row = r#"{"query":"q","docs":["a","b","c"],"labels":[0,1,0]}"#;
        let read = |row: &str, labels| read_file(row, labels, &BadRows::default());
        assert_eq!(read(row, PairLabels::Judgements).unwrap(), [flat("q", &["b"], &["a", "c"])]);
        let row = r#"{"query":"q","documents":["a","b","c"],"scores":"[0.2, 0.9, 0.3]"}"#;
        let (query, positives, negatives, _) = flat("q", &["b"], &["a", "c"]);
        let scores = Some(vec![0.9, 0.2, 0.3]);
        assert_eq!(read(row, PairLabels::Scores).unwrap(), [(query, positives, negatives, scores)]);
        assert_eq!(read(row, PairLabels::AtLeast(0.25)).unwrap()[0].1, ["b", "c"]);
        let bad = BadRows::default();
        let none = r#"{"query":"q","docs":["a"],"labels":[0]}"#;
        assert!(read_file(none, PairLabels::Judgements, &bad).unwrap().is_empty());
        assert_eq!(bad.report().unjudged, 1);
        for (row, words) in [
            (r#"{"query":"q","docs":["a"],"labels":[1,0]}"#, "2 numbers for 1 documents"),
            (r#"{"query":"q","docs":["a"]}"#, "no labels or scores"),
            (r#"{"docs":["a"],"labels":[1]}"#, "no column for the query"),
        ] {
            let e = read(row, PairLabels::Judgements).unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        }
    }

    #[test]
    fn documents_and_queries_by_id() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        let train = put(
            "train.jsonl",
            "{\"query_id\":7,\"document_ids\":[\"a\",\"b\"],\"scores\":[0.1,0.8]}\n\
             {\"query_id\":\"8\",\"document_ids\":\"['a', 'b']\",\"scores\":\"[0.9, 0.2]\"}\n",
        );
        let corpus = put(
            "documents.jsonl",
            "{\"document_id\":\"a\",\"text\":\"A\"}\n{\"document_id\":\"b\",\"text\":\"B\"}\n",
        );
        let asked =
            put("queries.jsonl", "{\"query_id\":7,\"text\":\"Q\"}\n{\"query_id\":8,\"text\":\"R\"}\n");
        let labels = PairLabels::Scores;
        let options =
            ReadOptions { corpus: Some(corpus), queries: Some(asked), labels, ..ReadOptions::default() };
        let read: Vec<RetrievalExample> =
            read_examples(&train, &options, &BadRows::default()).unwrap().collect::<Result<_>>().unwrap();
        let flat: Vec<_> = read
            .iter()
            .map(|e| (e.query.text.as_str(), e.positives[0].id.as_str(), e.scores.clone()))
            .collect();
        assert_eq!(flat, [("Q", "b", Some(vec![0.8, 0.1])), ("R", "a", Some(vec![0.9, 0.2]))]);
        let options = ReadOptions { labels, ..ReadOptions::default() };
        let e = read_examples(&train, &options, &BadRows::default()).err().unwrap().to_string();
        assert!(e.contains("name documents by id") && e.contains("--corpus"), "{e}");
    }
}
