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
use crate::read::rows::{Holder, Place, Rows};
use crate::reads::EXAMPLES;
use crate::source::{JSONL, shards};
use crate::stream::Examples;
use crate::write::rows;
use crate::{Error, Result, RetrievalExample};
use serde_json::{Map, Value};

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
    let rows = |files: Vec<PathBuf>| Rows { files, holder: Holder::Lines, reads: &EXAMPLES, strict: true };
    let passages = match needed(rows(files.clone()), from)? {
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
    let parse = move |row: Map<String, Value>, _: Place| {
        if !row.contains_key(POSITIVE_IDS) {
            return pairs::read(row, labels);
        }
        let query = columns::query(&row)?;
        let positives = fetch(&passages, columns::ids(&row, POSITIVE_IDS)?)?;
        let negatives = fetch(&passages, columns::ids(&row, NEGATIVE_IDS)?)?;
        if positives.is_empty() {
            return Err(Fault::new(Problem::NotRelevant, format!("{POSITIVE_IDS} is empty")));
        }
        let scores = columns::scores(&row, positives.len(), negatives.len())?;
        let example = RetrievalExample { query, positives, negatives, scores, answers: Vec::new() };
        Ok(pairs::Judged::Example(example))
    };
    Ok(pairs::grouped(rows(files).stream(from.path, from.bad, parse, |_| Ok(()))?, from.bad))
}

/// The ids that rows name. Rows that cannot be read are reported by the second reading.
fn needed(rows: Rows, from: &Reading<'_>) -> Result<HashSet<String>> {
    let mut all = HashSet::new();
    let ids = |row: Map<String, Value>, _: Place| {
        Ok([columns::ids(&row, POSITIVE_IDS)?, columns::ids(&row, NEGATIVE_IDS)?].concat())
    };
    for ids in rows.stream(from.path, &from.bad.silenced(), ids, |_| Ok(()))? {
        all.extend(ids?);
    }
    Ok(all)
}
