//! Parquet with the columns of JSON Lines.

use super::spec::{Reading, Spec, Writer};
use crate::Result;
use crate::read::named;
use crate::read::rows::Holder;
use crate::source::shards;
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
    named::examples(from, shards(from.path, EXTENSIONS)?, Holder::Parquet)
}

/// Passages of a file, or of the shards in a directory.
fn corpus(from: &Reading<'_>) -> Result<Passages> {
    named::corpus(from, shards(from.path, EXTENSIONS)?, Holder::Parquet)
}

const EXTENSIONS: &[&str] = &["parquet"];
