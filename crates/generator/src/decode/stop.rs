//! Text as it grows: stop strings across token borders, and streaming without half characters.

use super::{Decoding, Detokenize};
use crate::Result;

/// Finds stop strings at the end of growing sequences.
pub(super) struct Stops<'a> {
    stops: &'a [String],
    detokenize: Option<Detokenize<'a>>,
    window: usize,
}

impl<'a> Stops<'a> {
    pub(super) fn new(d: &'a Decoding, detokenize: Option<Detokenize<'a>>) -> Self {
        // A token has at least a byte, save for special ones; the margin is for those, and for decoders that treat the
        // first token of a text in their own way.
        let window = d.stop_strings.iter().map(String::len).max().unwrap_or(0) + 16;
        Self { stops: &d.stop_strings, detokenize, window }
    }

    /// Which stop string the generated text has, now that its last token is there.
    pub(super) fn hit(&self, generated: &[u32]) -> Result<Option<usize>> {
        let Some(detokenize) = self.detokenize.filter(|_| !self.stops.is_empty()) else { return Ok(None) };
        let text = detokenize(&generated[generated.len().saturating_sub(self.window)..])?;
        Ok(first_stop(&text, self.stops).map(|(which, _)| which))
    }
}

/// The stop string that comes first in a text, and where.
fn first_stop(text: &str, stops: &[String]) -> Option<(usize, usize)> {
    let found = stops.iter().enumerate().filter_map(|(i, s)| Some((i, text.find(s.as_str())?)));
    found.min_by_key(|(_, at)| *at)
}

/// A text up to the first stop string in it.
pub fn cut_at_stop<'t>(text: &'t str, stops: &[String]) -> &'t str {
    first_stop(text, stops).map_or(text, |(_, at)| &text[..at])
}

/// Turns tokens to text piece by piece. No piece ends within a character, or with what may be the start of a stop
/// string; a stop string and what follows it never come out.
pub struct TextStream<'a> {
    detokenize: Detokenize<'a>,
    stops: &'a [String],
    tokens: Vec<u32>,
    /// Tokens before this are not decoded again.
    from: usize,
    /// Tokens before this have been turned to text.
    done: usize,
    /// Text that is held back.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A new text.
    pub fn new(detokenize: Detokenize<'a>, stops: &'a [String]) -> Self {
        Self { detokenize, stops, tokens: vec![], from: 0, done: 0, held: String::new(), stopped: false }
    }

    /// Adds a token; gives what text can be shown since the last call, often none.
    ///
    /// # Errors
    /// The detokeniser's.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        // Decoded with the tokens before it: a token may look different at the start of a text.
        let before = (self.detokenize)(&self.tokens[self.from..self.done])?;
        let now = (self.detokenize)(&self.tokens[self.from..])?;
        if now.ends_with('\u{FFFD}') || now.len() <= before.len() {
            return Ok(String::new());
        }
        // A decoder that rewrites what it gave before (joining, cleaning up) can only be followed from where it agrees.
        self.held.push_str(
            now.strip_prefix(before.as_str()).unwrap_or_else(|| now.get(before.len()..).unwrap_or("")),
        );
        (self.from, self.done) = (self.done, self.tokens.len());
        Ok(self.release(false))
    }

    /// The rest, at the end of the sequence.
    ///
    /// # Errors
    /// The detokeniser's.
    pub fn finish(mut self) -> Result<String> {
        let before = (self.detokenize)(&self.tokens[self.from..self.done])?;
        let now = (self.detokenize)(&self.tokens[self.from..])?;
        self.held.push_str(now.get(before.len()..).unwrap_or(""));
        Ok(self.release(true))
    }

    fn release(&mut self, all: bool) -> String {
        if self.stopped {
            return String::new();
        }
        if let Some((_, at)) = first_stop(&self.held, self.stops) {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let start_of_stop = |at: &usize| self.stops.iter().any(|s| s.starts_with(&self.held[*at..]));
        let keep_from = self.held.char_indices().map(|(i, _)| i).find(start_of_stop);
        let rest = match keep_from.filter(|_| !all) {
            Some(at) => self.held.split_off(at),
            None => String::new(),
        };
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token is a byte.
    fn bytes(tokens: &[u32]) -> Result<String> {
        let bytes: Vec<u8> = tokens.iter().map(|&t| t as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn streamed(text: &str, stops: &[String]) -> Vec<String> {
        let mut stream = TextStream::new(&bytes, stops);
        let mut pieces: Vec<String> = text.bytes().map(|b| stream.push(u32::from(b)).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn pieces_are_whole_characters_and_join_to_the_text() {
        let pieces = streamed("naïve 日本", &[]);
        assert_eq!(pieces.concat(), "naïve 日本");
        assert!(pieces.iter().all(|p| !p.contains('\u{FFFD}')));
        assert!(pieces.iter().filter(|p| !p.is_empty()).count() > 5, "it streams");
    }

    #[test]
    fn stop_strings_do_not_come_out_and_their_starts_come_late() {
        let stops = ["###".to_string(), "END".to_string()];
        assert_eq!(streamed("a#b##c###d", &stops).concat(), "a#b##c");
        assert_eq!(streamed("an EN is no ENd", &stops).concat(), "an EN is no ENd");
        assert_eq!(streamed("tail #", &stops).concat(), "tail #");
        assert_eq!(streamed("tail #", &stops).last().unwrap(), "#");
        assert_eq!(cut_at_stop("xENDy###", &stops), "x");
        assert_eq!(cut_at_stop("nothing", &stops), "nothing");
    }
}
