//! Tevatron JSONL: passages inline (version 1), or as ids into a corpus (version 2).
//!
//! The corpus may be larger than memory. The examples are read twice: once for the ids, so that only the passages in
//! use are kept, and once for the examples.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::jsonl;
use super::spec::{Reading, Spec, Writer};
use crate::bad_rows::{Fault, Problem};
use crate::columns;
use crate::ids::{fetch, lookup};
use crate::pairs;
use crate::source::{JSONL, rows_of, shards};
use crate::stream::Examples;
use crate::write::rows;
use crate::{BadRows, Error, Result, RetrievalExample};

pub(crate) const TEVATRON: Spec = Spec {
    name: "tevatron",
    examples: Some(examples),
    corpus: Some(jsonl::corpus),
    writer: Some(Writer::Examples(|path, examples| rows::lines(path, examples, rows::tevatron))),
    ..Spec::NONE
};

const POSITIVE_IDS: &str = "positive_document_ids";
const NEGATIVE_IDS: &str = "negative_document_ids";

/// Tevatron JSONL, with passages inline (version 1) or as ids (version 2).
fn examples(from: &Reading<'_>) -> Result<Examples> {
    let files = shards(from.path, JSONL)?;
    let passages = match needed(&files)? {
        needed if needed.is_empty() => HashMap::new(),
        needed => {
            let corpus = from.corpus.ok_or_else(|| Error::Unsupported {
                path: from.path.to_owned(),
                reason: format!("the rows name passages by id ({POSITIVE_IDS}); give the corpus they are in"),
            })?;
            lookup(corpus()?, &needed)?
        }
    };
    let labels = from.labels;
    let rows = rows_of(files, from.bad, move |_, line| {
        let row = columns::parse_object(line)?;
        if !row.contains_key(POSITIVE_IDS) {
            return pairs::read(row, labels).map(Some);
        }
        let query = columns::query(&row)?;
        let positives = fetch(&passages, columns::ids(&row, POSITIVE_IDS)?)?;
        let negatives = fetch(&passages, columns::ids(&row, NEGATIVE_IDS)?)?;
        if positives.is_empty() {
            return Err(Fault::new(Problem::NotRelevant, format!("{POSITIVE_IDS} is empty")));
        }
        let scores = columns::scores(&row, positives.len(), negatives.len())?;
        let example = RetrievalExample { query, positives, negatives, scores, answers: Vec::new() };
        Ok(Some(pairs::Judged::Example(example)))
    });
    Ok(pairs::grouped(rows, from.bad))
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
