//! DPR: one JSON array of questions with `answers`, `positive_ctxs`, `hard_negative_ctxs`, `negative_ctxs`; or of any other
//! rows of examples or passages.

use super::head::Head;
use super::spec::{Reading, Spec, Writer};
use crate::Result;
use crate::read::named;
use crate::read::rows::Holder;
use crate::stream::{Examples, Passages};
use crate::write::rows;

pub(crate) const DPR: Spec = Spec {
    name: "dpr",
    files: &["json"],
    content: Some(Head::is_array),
    examples: Some(examples),
    corpus: Some(corpus),
    writer: Some(Writer::Examples(|path, examples| rows::array(path, examples, rows::dpr))),
    ..Spec::NONE
};

fn examples(from: &Reading<'_>) -> Result<Examples> {
    named::examples(from, vec![from.path.to_owned()], Holder::Array)
}

/// Passages, an object each.
fn corpus(from: &Reading<'_>) -> Result<Passages> {
    named::corpus(from, vec![from.path.to_owned()], Holder::Array)
}
