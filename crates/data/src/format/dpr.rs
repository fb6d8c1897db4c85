//! DPR: one JSON array of questions with `answers`, `positive_ctxs`, `hard_negative_ctxs`, `negative_ctxs`.

use super::head::Head;
use super::spec::{Reading, Spec, Writer};
use crate::Result;
use crate::columns;
use crate::read::elements::Elements;
use crate::source::Fallible;
use crate::stream::Examples;
use crate::write::rows;

pub(crate) const DPR: Spec = Spec {
    name: "dpr",
    files: &["json"],
    content: Some(Head::is_array),
    examples: Some(examples),
    writer: Some(Writer::Examples(|path, examples| rows::array(path, examples, rows::dpr))),
    ..Spec::NONE
};

fn examples(from: &Reading<'_>) -> Result<Examples> {
    let mut elements = Elements::open(from.path, None, from.bad)?;
    let bad = from.bad.clone();
    Ok(Box::new(Fallible::new(move || {
        let example = elements.next_element(|_, text| columns::example(columns::parse_object(text)?))?;
        if example.is_some() {
            bad.good();
        }
        Ok(example)
    })))
}
