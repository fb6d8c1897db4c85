//! Examples in words: the prompt as the model reads it, and which part of it is learned.

use crate::error::Result;
use crate::prepare::{PrepareReport, Preparer};
use ragduet_data::{RagRecord, one_line};
use ragduet_text::{Tokenizer, TrainExample};

/// Marks around what is learned.
const MARKS: [&str; 2] = ["⟦", "⟧"];

/// The tokens of an example as text, what is learned between ⟦ and ⟧; stretches are cut in the middle to about `most`
/// characters.
///
/// # Errors
/// Tokens that do not decode.
pub fn as_learned(tokenizer: &Tokenizer, example: &TrainExample, most: usize) -> Result<String> {
    let mut text = String::new();
    let mut from = 0;
    while from < example.ids.len() {
        // The first token has nothing before it, and an encoder's tokens are never learned.
        let learned = |i: usize| example.loss[i] && example.predicted().contains(&i);
        let to =
            (from..example.ids.len()).find(|&i| learned(i) != learned(from)).unwrap_or(example.ids.len());
        let part = middle_cut(&tokenizer.decode(&example.ids[from..to], false)?, most);
        match learned(from) {
            true => text.extend([MARKS[0], part.as_str(), MARKS[1]]),
            false => text.push_str(&part),
        }
        from = to;
    }
    Ok(format!(
        "{} tokens, {} of them learned (between {} and {})\n  {}",
        example.ids.len(),
        example.targets(),
        MARKS[0],
        MARKS[1],
        one_line(&text, usize::MAX)
    ))
}

/// A prompt's tokens as text.
///
/// # Errors
/// Tokens that do not decode.
pub fn as_read(tokenizer: &Tokenizer, ids: &[u32], most: usize) -> Result<String> {
    let text = middle_cut(&tokenizer.decode(ids, false)?, most);
    Ok(format!("{} tokens\n  {}", ids.len(), one_line(&text, usize::MAX)))
}

/// A text without its middle.
fn middle_cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let half = most / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(count - half).collect();
    format!("{head} … {} characters … {tail}", count - 2 * half)
}

impl Preparer<'_> {
    /// A record's example in words; without an answer to learn, its prompt; none where it makes neither.
    ///
    /// # Errors
    /// Prompts that cannot be made.
    pub fn in_words(&self, record: &RagRecord, most: usize) -> Result<Option<String>> {
        let mut report = PrepareReport::default();
        if record.answers.is_empty() {
            let prompt = self.prompt(record, 1, &mut report)?;
            return prompt.map(|p| as_read(self.tokenizer(), &p.ids, most)).transpose();
        }
        let built = self.example(record, 0, &mut report)?;
        built.ok().map(|example| as_learned(self.tokenizer(), &example, most)).transpose()
    }

    /// Logs the first of some records that makes an example.
    ///
    /// # Errors
    /// Prompts that cannot be made.
    pub fn log_first<'a>(&self, records: impl IntoIterator<Item = &'a RagRecord>) -> Result<()> {
        for record in records.into_iter().take(TRIED) {
            if let Some(words) = self.in_words(record, MOST)? {
                tracing::info!("the first example as the model reads it: {words}");
                return Ok(());
            }
        }
        Ok(())
    }

    /// Logs the prompt of the first of some questions.
    ///
    /// # Errors
    /// Prompts that cannot be made.
    pub fn log_first_prompt<'a>(&self, records: impl IntoIterator<Item = &'a RagRecord>) -> Result<()> {
        let mut report = PrepareReport::default();
        for record in records.into_iter().take(TRIED) {
            if let Some(prompt) = self.prompt(record, 1, &mut report)? {
                let words = as_read(self.tokenizer(), &prompt.ids, MOST)?;
                tracing::info!("the first prompt as the model reads it: {words}");
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Records of which the first may be too long.
const TRIED: usize = 20;
/// Characters of a stretch in a log.
const MOST: usize = 600;
