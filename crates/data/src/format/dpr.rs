//! DPR: one JSON array of questions with `answers`, `positive_ctxs`, `hard_negative_ctxs`, `negative_ctxs`; or of any other
//! rows of examples or passages.

use super::head::Head;
use super::spec::{Reading, Spec, Writer};
use crate::Result;
use crate::pairs;
use crate::read::corpora;
use crate::read::rows::Holder;
use crate::source::shards;
use crate::stream::Examples;
use crate::write::rows;

pub(crate) const DPR: Spec = Spec {
    name: "dpr",
    files: &["json"],
    content: Some(Head::is_array),
    examples: Some(examples),
    corpus: Some(|from| Ok(corpora::objects(shards(from.path, &["json"])?, Holder::Array, from.bad))),
    writer: Some(Writer::Examples(|path, examples| rows::array(path, examples, rows::dpr))),
    ..Spec::NONE
};

fn examples(from: &Reading<'_>) -> Result<Examples> {
    pairs::examples(from, shards(from.path, &["json"])?, Holder::Array)
}
