//! Examples whose passages are ids into a corpus: Tevatron 2, and what it shares with MS MARCO's triples.
//!
//! The corpus may be larger than memory. The examples are read twice: once for the ids, so that only the passages in
//! use are kept, and once for the examples.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Examples, ReadOptions, lookup, read_corpus};
use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::source::{rows_of, shards};
use crate::{BadRows, Error, Passage, Result, RetrievalExample};

const POSITIVE_IDS: &str = "positive_document_ids";
const NEGATIVE_IDS: &str = "negative_document_ids";

/// Tevatron JSONL, with passages inline (version 1) or as ids (version 2).
pub(crate) fn tevatron(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Examples> {
    let files = shards(path, super::JSONL)?;
    let passages = match needed(&files)? {
        needed if needed.is_empty() => HashMap::new(),
        needed => {
            let corpus = options.corpus.as_ref().ok_or_else(|| Error::Unsupported {
                path: path.to_owned(),
                reason: format!("the rows name passages by id ({POSITIVE_IDS}); give the corpus they are in"),
            })?;
            lookup(read_corpus(corpus, &ReadOptions::default(), bad)?, &needed)?
        }
    };
    Ok(Box::new(rows_of(files, bad, move |_, line| {
        let row = columns::parse_object(line)?;
        if !row.contains_key(POSITIVE_IDS) {
            return columns::example(row).map(Some);
        }
        let query = columns::query(&row)?;
        let positives = fetch(&passages, columns::ids(&row, POSITIVE_IDS)?)?;
        let negatives = fetch(&passages, columns::ids(&row, NEGATIVE_IDS)?)?;
        if positives.is_empty() {
            return Err(Fault::new(Problem::NotRelevant, format!("{POSITIVE_IDS} is empty")));
        }
        let scores = columns::scores(&row, positives.len(), negatives.len())?;
        Ok(Some(RetrievalExample { query, positives, negatives, scores, answers: Vec::new() }))
    })))
}

/// The ids that rows name. Rows that cannot be read are reported by the second reading.
fn needed(files: &[PathBuf]) -> Result<HashSet<String>> {
    let silent = BadRows::silent();
    let mut all = HashSet::new();
    for ids in rows_of(files.to_vec(), &silent, |_, line| {
        let row = columns::parse_object(line)?;
        Ok(Some([columns::ids(&row, POSITIVE_IDS)?, columns::ids(&row, NEGATIVE_IDS)?].concat()))
    }) {
        all.extend(ids?);
    }
    Ok(all)
}

/// The passages of ids.
pub(crate) fn fetch(passages: &HashMap<String, Passage>, ids: Vec<String>) -> Result<Vec<Passage>, Fault> {
    ids.into_iter()
        .map(|id| match passages.get(&id) {
            Some(passage) => Ok(passage.clone()),
            None => Err(Fault::new(Problem::MissingPassage, format!("the corpus has no passage {id:?}"))),
        })
        .collect()
}
