//! Where the passages of a prompt stand among its tokens.

use super::{PrepareReport, Preparer, Put};
use crate::error::Result;
use ragduet_data::RagRecord;
use ragduet_text::{Context, RagPrompt, TrainExample, Untrainable};

/// Where a passage stands in an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The passage's name.
    pub id: String,
    /// Its tokens; of passages read apart (fusion in the decoder) all that is read with it.
    pub tokens: std::ops::Range<usize>,
}

impl Preparer<'_> {
    /// [`Preparer::example`] with the places of its tokens that each passage shown stands in.
    pub fn example_with_places(
        &self,
        record: &RagRecord,
        epoch: u64,
        report: &mut PrepareReport,
    ) -> Result<std::result::Result<(TrainExample, Vec<Place>), Untrainable>> {
        let answers: Vec<String> = record.learned_answer().map(str::to_owned).into_iter().collect();
        let (built, contexts, template) = self.built(record, &answers, epoch, report)?;
        let Some(example) = built.ok().and_then(|all| all.into_iter().next()) else {
            return Ok(Err(Untrainable::NoAnswer));
        };
        let places = self.places(record, &template, &contexts, &example)?;
        Ok(Ok((example, places)))
    }

    /// Where passages stand in an example's prompt.
    fn places(
        &self,
        record: &RagRecord,
        template: &RagPrompt,
        contexts: &[Context],
        example: &TrainExample,
    ) -> Result<Vec<Place>> {
        let (text, rendered) = match self.put(record, template, contexts)? {
            Put::Texts(_) => {
                let mut at = 0;
                let place = |(c, n): (&Context, &usize)| {
                    at += n;
                    Place { id: c.id.clone(), tokens: at - n..at }
                };
                return Ok(contexts.iter().zip(&example.parts).map(place).collect());
            }
            Put::Messages(chat, messages) => (chat.render(&messages, super::tools(record), true)?.text, true),
            Put::Text(text) => (text, false),
        };
        let offsets = self.tokenizer.offsets(&text)?;
        // Special tokens in front of the text; templates write them themselves.
        let front = if rendered { 0 } else { self.tokenizer.prompt_ids(&text)?.len() - offsets.len() };
        // From the end: few-shot examples in front may show the same passages.
        let mut to = text.len();
        let mut out = Vec::with_capacity(contexts.len());
        for c in contexts.iter().rev() {
            // A template may change a passage's text (a filter of its own): then there is no place to name.
            let Some(at) = text[..to].rfind(&c.text) else { continue };
            let end = at + c.text.len();
            to = at;
            let first = offsets.partition_point(|&(_, end)| end <= at);
            let last = offsets.partition_point(|&(start, _)| start < end);
            out.push(Place { id: c.id.clone(), tokens: first + front..last + front });
        }
        out.reverse();
        Ok(out)
    }
}
