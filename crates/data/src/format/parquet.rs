//! Parquet with the columns of JSON Lines.

use std::collections::HashSet;

use super::spec::{Reading, Spec, Writer};
use crate::Result;
use crate::columns;
use crate::ids::unique;
use crate::read::parquet::Rows;
use crate::source::Fallible;
use crate::stream::{Examples, Passages};
use crate::write::parquet;

pub(crate) const PARQUET: Spec = Spec {
    name: "parquet",
    files: &["parquet"],
    shards: Some("parquet"),
    output: &["parquet"],
    examples: Some(examples),
    corpus: Some(corpus),
    writer: Some(Writer::Examples(|path, examples| parquet::examples(path, examples))),
    ..Spec::NONE
};

/// Examples of a file, or of the shards in a directory.
fn examples(from: &Reading<'_>) -> Result<Examples> {
    let mut rows = Rows::of_columns(from.path, from.bad, columns::is_known)?;
    Ok(Box::new(Fallible::new(move || rows.next_row(columns::example))))
}

/// Passages of a file, or of the shards in a directory.
fn corpus(from: &Reading<'_>) -> Result<Passages> {
    let mut rows = Rows::of_columns(from.path, from.bad, columns::is_known)?;
    let (mut seen, mut number) = (HashSet::new(), 0u64);
    Ok(Box::new(Fallible::new(move || {
        rows.next_row(|row| {
            number += 1;
            let passage = columns::corpus_passage(row, number)?;
            unique(&mut seen, &passage.id)?;
            Ok(passage)
        })
    })))
}
