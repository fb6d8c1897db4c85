//! JSON Lines with the columns of [`columns`](crate::columns), FlagEmbedding's among them.

use super::spec::{Reading, Spec, Writer};
use crate::Result;
use crate::read::named;
use crate::read::rows::Holder;
use crate::source::{JSONL as EXTENSIONS, shards};
use crate::stream::{Examples, Passages};
use crate::write::rows;

pub(crate) const JSONL: Spec = Spec {
    name: "jsonl",
    files: EXTENSIONS,
    shards: Some("jsonl"),
    output: &["jsonl", "ndjson"],
    examples: Some(examples),
    corpus: Some(corpus),
    writer: Some(Writer::Examples(|path, examples| rows::lines(path, examples, rows::tevatron))),
    ..Spec::NONE
};

pub(crate) const FLAG_EMBEDDING: Spec = Spec {
    name: "flag-embedding",
    aliases: &["flagembedding"],
    examples: Some(examples),
    corpus: Some(corpus),
    writer: Some(Writer::Examples(|path, examples| rows::lines(path, examples, rows::flag_embedding))),
    ..Spec::NONE
};

fn examples(from: &Reading<'_>) -> Result<Examples> {
    named::examples(from, shards(from.path, EXTENSIONS)?, Holder::Lines)
}

/// Passages, a line each.
pub(crate) fn corpus(from: &Reading<'_>) -> Result<Passages> {
    named::corpus(from, shards(from.path, EXTENSIONS)?, Holder::Lines)
}
