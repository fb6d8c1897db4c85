//! MS MARCO: a directory of `collection.tsv`, queries and qrels; or a file of triples, as text or as ids.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::spec::{Reading, Spec};
use super::text;
use crate::bad_rows::{Fault, Problem};
use crate::collection::parts::{Answers, Parts, Places};
use crate::ids::{fetch, lookup};
use crate::read::rows::Holder;
use crate::read::table::has_header;
use crate::read::{corpora, named};
use crate::reads::EXAMPLES;
use crate::source::{find, listing, require, rows_of};
use crate::stream::{Examples, NumberedQrels, Passages, Queries};
use crate::{BadRows, Error, Passage, Query, Result, RetrievalExample};

pub(crate) const MS_MARCO: Spec = Spec {
    name: "ms-marco",
    aliases: &["msmarco"],
    files: &["tsv"],
    folder: Some(|dir| find(dir, "collection.tsv").is_some()),
    collection: Some(|path| Ok(if path.is_dir() { Some(Box::new(Folder::open(path)?)) } else { None })),
    examples: Some(triples),
    // A .tsv file given as a corpus is one, whatever else MS MARCO calls by that name.
    corpus: Some(text::tsv),
    ..Spec::NONE
};

/// A directory of `collection.tsv`, `queries.<split>.tsv` and `qrels.<split>.tsv`.
#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    collection: PathBuf,
}

impl Folder {
    fn open(dir: &Path) -> Result<Self> {
        Ok(Self { collection: require(dir, "collection.tsv")?, dir: dir.to_owned() })
    }

    /// The files of a part by split, sorted; `queries.tsv` is that of the split without a name.
    fn files(&self, part: &str) -> Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::new();
        for entry in fs_err::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let stem = name.trim_end_matches(".gz").trim_end_matches(".zst").strip_suffix(".tsv");
            let split = stem.and_then(|s| s.strip_prefix(part)).map(|s| s.strip_prefix('.').unwrap_or(s));
            if let Some(split) = split {
                files.insert(split.to_owned(), path);
            }
        }
        Ok(files)
    }
}

impl Parts for Folder {
    /// Those of the files of judgements; `None` where there is `qrels.tsv` alone.
    fn splits(&self) -> Result<Option<Vec<String>>> {
        let splits: Vec<String> = self.files("qrels")?.into_keys().collect();
        Ok(if splits == [""] { None } else { Some(splits.into_iter().filter(|s| !s.is_empty()).collect()) })
    }

    fn corpus(&self, bad: &BadRows) -> Result<Passages> {
        text::of_tsv(vec![self.collection.clone()], bad)
    }

    fn queries(&self, split: Option<&str>, bad: &BadRows) -> Result<Queries> {
        let files = match split {
            Some(split) => vec![split_file(&self.dir, "queries", split)?],
            None => self.files("queries")?.into_values().collect(),
        };
        let streams: Vec<Queries> =
            files.iter().map(|file| corpora::queries(file, bad)).collect::<Result<_>>()?;
        Ok(Box::new(streams.into_iter().flatten()))
    }

    fn qrels(&self, split: &str, bad: &BadRows) -> Result<NumberedQrels> {
        Ok(corpora::qrels(&split_file(&self.dir, "qrels", split)?, bad))
    }

    fn places(&self, split: &str) -> Result<Places> {
        let file = |part| split_file(&self.dir, part, split);
        Ok(Places { qrels: file("qrels")?, queries: file("queries")?, key: None })
    }

    fn answers(&self, _: &BadRows) -> Result<Option<Answers>> {
        Ok(None)
    }
}

/// Examples of a file with a header, or of triples without one, as text or as ids.
pub(crate) fn triples(from: &Reading<'_>) -> Result<Examples> {
    match (from.corpus, from.queries) {
        (Some(corpus), Some(queries)) => by_id(from, corpus, queries),
        (None, None) if has_header(from.path, &EXAMPLES, from.bad)? => {
            named::examples(from, vec![from.path.to_owned()], Holder::Table)
        }
        (None, None) => by_text(from),
        (corpus, _) => Err(Error::Unsupported {
            path: from.path.to_owned(),
            reason: format!(
                "triples of ids need both a corpus and queries; the {} missing",
                if corpus.is_none() { "corpus is" } else { "queries are" }
            ),
        }),
    }
}

/// `queries.train.tsv`, or `queries.tsv` for a directory of one split.
fn split_file(dir: &Path, part: &str, split: &str) -> Result<PathBuf> {
    let names = [format!("{part}.{split}.tsv"), format!("{part}.tsv")];
    names.iter().find_map(|name| find(dir, name)).ok_or_else(|| Error::Missing {
        path: dir.join(&names[0]),
        remedy: format!("{} holds {}", dir.display(), listing(dir)),
    })
}

fn columns_of(line: &str) -> Result<(&str, &str, Option<&str>), Fault> {
    let mut parts = line.split('\t');
    let (query, positive, negative) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (positive, parts.next()) {
        (Some(positive), None) => Ok((query, positive, negative)),
        _ => {
            let detail = format!(
                "expected query, positive, negative, or a header that names columns ({}); got {} columns",
                EXAMPLES.understood(),
                line.split('\t').count()
            );
            Err(Fault::new(Problem::MissingColumn, detail))
        }
    }
}

/// `query \t positive \t negative`, the last optional.
fn by_text(from: &Reading<'_>) -> Result<Examples> {
    let path = from.path.to_owned();
    if !from.bad.is_silent() {
        tracing::info!(
            "{}: no header; columns are query, positive and negative by their place",
            path.display()
        );
    }
    Ok(Box::new(rows_of(vec![path.clone()], from.bad, move |number, line| {
        let (query, positive, negative) = columns_of(line)?;
        if number == 1 && [query, positive].iter().all(|s| s.parse::<u64>().is_ok()) {
            let detail = format!("{} holds ids; give the corpus and the queries they are in", path.display());
            return Err(Fault::new(Problem::WrongType, detail));
        }
        let text = |what: &str, text: &str| match text.trim() {
            "" => Err(Fault::new(Problem::EmptyText, format!("the {what} is empty"))),
            text => Ok(text.to_owned()),
        };
        Ok(Some(RetrievalExample {
            query: Query::from_text(text("query", query)?),
            positives: vec![Passage::from_text(None, text("positive", positive)?)],
            negatives: match negative {
                Some(negative) => vec![Passage::from_text(None, text("negative", negative)?)],
                None => Vec::new(),
            },
            ..RetrievalExample::default()
        }))
    })))
}

/// `qid \t pid \t pid`.
fn by_id(from: &Reading<'_>, corpus: &dyn Fn() -> Result<Passages>, query_file: &Path) -> Result<Examples> {
    let (files, bad) = (vec![from.path.to_owned()], from.bad);
    let (mut needed, mut wanted) = (HashSet::new(), HashSet::new());
    let silent = bad.silenced();
    // Names say nothing here: ids are by their place.
    let header = has_header(from.path, &EXAMPLES, &silent)?;
    for ids in rows_of(files.clone(), &silent, |number, line| {
        if header && number == 1 {
            return Ok(None);
        }
        let (query, positive, negative) = columns_of(line)?;
        Ok(Some((query.to_owned(), positive.to_owned(), negative.map(str::to_owned))))
    }) {
        let (query, positive, negative) = ids?;
        wanted.insert(query);
        needed.insert(positive);
        needed.extend(negative);
    }
    let passages = lookup(corpus()?, &needed)?;
    let mut queries: HashMap<String, Query> = HashMap::new();
    for query in corpora::queries(query_file, bad)? {
        let query = query?;
        if wanted.contains(&query.id) {
            queries.insert(query.id.clone(), query);
        }
    }
    Ok(Box::new(rows_of(files, bad, move |number, line| {
        if header && number == 1 {
            return Ok(None);
        }
        let (query, positive, negative) = columns_of(line)?;
        let Some(query) = queries.get(query) else {
            return Err(Fault::new(Problem::MissingQuery, format!("there is no query {query:?}")));
        };
        Ok(Some(RetrievalExample {
            query: query.clone(),
            positives: fetch(&passages, vec![positive.to_owned()])?,
            negatives: fetch(&passages, negative.map(str::to_owned).into_iter().collect())?,
            ..RetrievalExample::default()
        }))
    })))
}
