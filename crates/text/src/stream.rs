//! Text from ids as they come, and the strings that end it.

use crate::{Result, Tokenizer};

/// Turns ids into pieces of text, one id at a time. The pieces joined are the decoded text: a character whose bytes
/// are spread over several tokens comes out whole, and spaces between words are not lost.
#[derive(Debug, Clone)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special_tokens: bool,
    /// Ids still needed: those of the last piece, for their context, and those not shown yet.
    ids: Vec<u32>,
    shown: usize,
}

impl<'a> DecodeStream<'a> {
    /// Begins behind `context`, the last tokens of the prompt: a decoder drops the space before the first word of a
    /// text, and with context the answer is not the first.
    pub fn new(tokenizer: &'a Tokenizer, context: &[u32], skip_special_tokens: bool) -> Self {
        // More than a few tokens of context change nothing, as decoders look at neighbours only.
        let ids = context[context.len().saturating_sub(6)..].to_vec();
        Self { tokenizer, skip_special_tokens, shown: ids.len(), ids }
    }

    /// The text that is certain with one more id; empty while a character is not whole.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens)?;
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.take(&text)
    }

    /// What is left at the end: bytes of a character that never became whole, as replacement characters.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens)?;
        self.take(&text)
    }

    fn take(&mut self, text: &str) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[..self.shown], self.skip_special_tokens)?;
        // Context that ends within a character, completed by the answer: only the common part was there before.
        let common = match text.strip_prefix(before.as_str()) {
            Some(_) => before.len(),
            None => {
                text.char_indices().zip(before.chars()).find(|((_, a), b)| a != b).map_or(0, |((i, _), _)| i)
            }
        };
        let piece = text[common..].to_owned();
        if !piece.is_empty() {
            self.ids.drain(..self.shown);
            self.shown = self.ids.len();
        } else {
            // Special tokens that are skipped show nothing and give no context.
            self.ids.truncate(self.shown);
        }
        Ok(piece)
    }
}

/// Watches a stream of text for strings that end it. Text that may be the beginning of one is held back.
#[derive(Debug, Clone, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// Watches for any of these; empty ones are ignored.
    pub fn new<S: Into<String>>(stops: impl IntoIterator<Item = S>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|s| !s.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// The text that can be shown after one more piece. Nothing follows a stop string, which itself is not shown.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = self
            .stops
            .iter()
            .filter_map(|stop| {
                (1..stop.len()).rev().find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
            })
            .max();
        let safe = self.held.len() - longest.unwrap_or(0);
        let rest = self.held.split_off(safe);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string was seen.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, at the end of the stream.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ByteBpeOptions, EncodeOptions, train_byte_bpe};

    proptest! {
        #[test]
        fn pieces_joined_are_the_text(text in "[a-c 🦀é東\n]{0,24}") {
            let corpus = ["the cat sat on the mat", "a b c ab bc abc"];
            let options = ByteBpeOptions { vocab_size: 280, min_frequency: 1, ..Default::default() };
            let tokenizer = train_byte_bpe(corpus, &options).unwrap();
            let options = EncodeOptions { strip: false, ..Default::default() };
            let ids = tokenizer.encode(&text, &options).unwrap().ids;
            let mut stream = DecodeStream::new(&tokenizer, &tokenizer.encode("x", &options).unwrap().ids, true);
            let mut joined = String::new();
            for id in ids {
                let piece = stream.push(id).unwrap();
                prop_assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{}", piece);
                joined += &piece;
            }
            joined += &stream.finish().unwrap();
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn stops_do_not_depend_on_the_pieces(text in "[ab]{0,30}", cut in 1usize..5) {
            let mut matcher = StopMatcher::new(["aab", "bbb"]);
            let mut shown = String::new();
            for piece in text.as_bytes().chunks(cut) {
                shown += &matcher.push(std::str::from_utf8(piece).unwrap());
            }
            let stopped = matcher.stopped();
            shown += &matcher.finish();
            let at = ["aab", "bbb"].iter().filter_map(|s| text.find(s)).min();
            prop_assert_eq!(stopped, at.is_some());
            prop_assert_eq!(shown, &text[..at.unwrap_or(text.len())]);
        }
    }
}
