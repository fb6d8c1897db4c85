//! CSV with a header and the columns of JSON Lines.

use super::spec::{Reading, Spec};
use crate::Result;
use crate::read::named;
use crate::read::rows::Holder;
use crate::source::shards;
use crate::stream::{Examples, Passages};

pub(crate) const CSV: Spec = Spec {
    name: "csv",
    files: EXTENSIONS,
    shards: Some("csv"),
    examples: Some(examples),
    corpus: Some(corpus),
    ..Spec::NONE
};

const EXTENSIONS: &[&str] = &["csv"];

/// Examples of a file, or of the shards in a directory.
fn examples(from: &Reading<'_>) -> Result<Examples> {
    named::examples(from, shards(from.path, EXTENSIONS)?, Holder::Table)
}

/// Passages of a file, or of the shards in a directory.
fn corpus(from: &Reading<'_>) -> Result<Passages> {
    named::corpus(from, shards(from.path, EXTENSIONS)?, Holder::Table)
}
