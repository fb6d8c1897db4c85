//! MS MARCO: a directory of `collection.tsv`, queries and qrels; or a file of triples, as text or as ids.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::beir::join;
use super::corpus::tsv_queries;
use super::ids::fetch;
use super::{Examples, Passages, ReadOptions, is_jsonl, lookup, read_corpus};
use crate::bad_rows::{Fault, Problem};
use crate::source::{find, listing, require, rows_of};
use crate::{BadRows, Error, Format, Passage, Query, Result, RetrievalExample};

/// Examples of the directory's split, or of the file of triples.
pub(crate) fn examples(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Examples> {
    if path.is_dir() {
        let split = options.split();
        let collection = require(path, "collection.tsv")?;
        let queries = split_file(path, "queries", split)?;
        let qrels = split_file(path, "qrels", split)?;
        let corpus = || read_corpus(&collection, &ReadOptions::format(Format::Tsv), bad);
        return Ok(Box::new(join(&qrels, &queries, corpus, bad, bad)?.into_iter().map(Ok)));
    }
    let files = vec![path.to_owned()];
    match (&options.corpus, &options.queries) {
        (Some(corpus), Some(queries)) => by_id(files, corpus, queries, bad),
        (None, None) => by_text(path, files, bad),
        (corpus, _) => Err(Error::Unsupported {
            path: path.to_owned(),
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
            let detail =
                format!("expected query, positive, negative; got {} columns", line.split('\t').count());
            Err(Fault::new(Problem::MissingColumn, detail))
        }
    }
}

/// `query \t positive \t negative`, the last optional.
fn by_text(path: &Path, files: Vec<PathBuf>, bad: &BadRows) -> Result<Examples> {
    let path = path.to_owned();
    Ok(Box::new(rows_of(files, bad, move |number, line| {
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
fn by_id(files: Vec<PathBuf>, corpus: &Path, query_file: &Path, bad: &BadRows) -> Result<Examples> {
    let (mut needed, mut wanted) = (HashSet::new(), HashSet::new());
    let silent = BadRows::silent();
    for ids in rows_of(files.clone(), &silent, |_, line| {
        let (query, positive, negative) = columns_of(line)?;
        Ok(Some((query.to_owned(), positive.to_owned(), negative.map(str::to_owned))))
    }) {
        let (query, positive, negative) = ids?;
        wanted.insert(query);
        needed.insert(positive);
        needed.extend(negative);
    }
    let format = if corpus.extension().is_some_and(|e| e == "tsv") { Some(Format::Tsv) } else { None };
    let stream: Passages = read_corpus(corpus, &ReadOptions { format, ..ReadOptions::default() }, bad)?;
    let passages = lookup(stream, &needed)?;
    let mut queries: HashMap<String, Query> = HashMap::new();
    let stream: Box<dyn Iterator<Item = Result<Query>>> = match is_jsonl(query_file) {
        true => super::beir::queries(query_file, bad)?,
        false => tsv_queries(query_file, bad)?,
    };
    for query in stream {
        let query = query?;
        if wanted.contains(&query.id) {
            queries.insert(query.id.clone(), query);
        }
    }
    Ok(Box::new(rows_of(files, bad, move |_, line| {
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
