//! Context budgeting: a prompt that is too long loses passages, from the least relevant up, and nothing else.

use crate::cuts::Tally;
use crate::rag::Context;
use crate::{Error, Result, Tokenizer};

/// What became of the passages of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budgeted {
    /// The passages to show, in their order, shortened ones with their new text.
    pub contexts: Vec<Context>,
    /// Ids of passages that are there as a whole.
    pub kept: Vec<String>,
    /// Ids of passages that were shortened.
    pub shortened: Vec<String>,
    /// Ids of passages that were left out.
    pub dropped: Vec<String>,
    /// Tokens of the whole, as `measure` gave them.
    pub tokens: usize,
    /// Tokens of shortened and dropped passages that are not in the prompt.
    pub unread: usize,
    /// Whether the whole is within the limit. It is not where question, instruction and answer alone are over it.
    pub fits: bool,
}

/// Most tokens that a passage brings beside its text and title: number, colon, separator.
const AROUND_PASSAGE: usize = 16;

/// Fits passages, the most relevant first, into a prompt of at most `max_tokens`.
///
/// `measure` gives the tokens of everything with the passages given: prompt, question, answer, special tokens. It is
/// the judge; the passages' own token counts, of which each is taken once, only say how much to cut before it is
/// asked again. The last passage is shortened at the end of a sentence or else of a word, and dropped where less than
/// `min_passage_tokens` would be left of it; then the one before.
pub fn fit_contexts(
    tokenizer: &Tokenizer,
    contexts: &[Context],
    max_tokens: usize,
    min_passage_tokens: usize,
    mut measure: impl FnMut(&[Context]) -> Result<usize>,
) -> Result<Budgeted> {
    let mut shown = contexts.to_vec();
    let mut tokens = measure(&shown)?;
    // The byte where each token of the passage at the end begins and ends: only that one is ever cut.
    let mut last: Option<Vec<(usize, usize)>> = None;
    while tokens > max_tokens && !shown.is_empty() {
        let excess = tokens - max_tokens;
        let end = shown.len() - 1;
        let offsets = match last.take() {
            Some(offsets) => offsets,
            None => tokenizer.offsets(&shown[end].text)?,
        };
        let room = offsets.len().saturating_sub(excess);
        // Cuts to fewer bytes than before, so the loop ends.
        let cut =
            (room >= min_passage_tokens.max(1)).then(|| cut_at(&shown[end].text, &offsets, room)).flatten();
        match cut {
            Some((bytes, left)) if left >= min_passage_tokens => {
                shown[end].text.truncate(bytes);
                last = Some(offsets[..left].to_vec());
            }
            _ => {
                let cost = |text: usize, title: Option<&str>| -> Result<usize> {
                    Ok(text + tokenizer.count(title.unwrap_or_default())? + AROUND_PASSAGE)
                };
                let mut over = excess.saturating_sub(cost(offsets.len(), shown[end].title.as_deref())?);
                shown.pop();
                // While more is over than the next passage can account for, it goes without asking: else a prompt of
                // many passages is tokenised as often as it loses one.
                while let Some(context) = shown.last().filter(|_| over > 0) {
                    let offsets = tokenizer.offsets(&context.text)?;
                    let cost = cost(offsets.len(), context.title.as_deref())?;
                    if over < cost {
                        last = Some(offsets);
                        break;
                    }
                    over -= cost;
                    shown.pop();
                }
            }
        }
        tokens = measure(&shown)?;
    }
    let mut result = Budgeted { tokens, fits: tokens <= max_tokens, ..Budgeted::default() };
    for (index, context) in contexts.iter().enumerate() {
        let list = match shown.get(index) {
            None => {
                result.unread += tokenizer.count(&context.text)?;
                &mut result.dropped
            }
            Some(now) if now.text.len() < context.text.len() => {
                result.unread += tokenizer.count(&context.text[now.text.len()..])?;
                &mut result.shortened
            }
            Some(_) => &mut result.kept,
        };
        list.push(context.id.clone());
    }
    let tally = Tally::default();
    tally.text(tokens + result.unread, tokens);
    tally.close(Some(max_tokens));
    result.contexts = shown;
    Ok(result)
}

/// Where to cut a text so that at most `room` tokens are left: the bytes and tokens kept. The last end of a sentence
/// is taken if it keeps two thirds of what could be kept, else the last end of a word, else the end of a token.
fn cut_at(text: &str, offsets: &[(usize, usize)], room: usize) -> Option<(usize, usize)> {
    let mut limit = offsets.get(room.checked_sub(1)?)?.1.min(text.len());
    while !text.is_char_boundary(limit) {
        limit -= 1;
    }
    let head = &text[..limit];
    let at_word_end = text[limit..].chars().next().is_none_or(char::is_whitespace);
    let sentence = head
        .char_indices()
        .filter(|&(i, c)| {
            let after = i + c.len_utf8();
            matches!(c, '.' | '!' | '?') && text[after..].chars().next().is_none_or(char::is_whitespace)
                || matches!(c, '。' | '！' | '？' | '\n')
        })
        .map(|(i, c)| i + c.len_utf8())
        .next_back()
        .filter(|&bytes| bytes * 3 >= limit * 2);
    let word = match at_word_end {
        true => Some(limit),
        false => head.rfind(char::is_whitespace),
    };
    let bytes = head[..sentence.or(word).unwrap_or(limit)].trim_end().len();
    let left = offsets.iter().take_while(|&&(_, end)| end <= bytes).count();
    (bytes > 0 && bytes < text.len() && left > 0).then_some((bytes, left))
}

impl Tokenizer {
    /// Where each token of a text, without special tokens, begins and ends in it, in bytes.
    pub fn offsets(&self, text: &str) -> Result<Vec<(usize, usize)>> {
        let encoding =
            self.inner.encode(text, false).map_err(|e| Error::Encode { index: 0, reason: e.to_string() })?;
        Ok(encoding.get_offsets().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ByteBpeOptions, train_byte_bpe};

    fn tokenizer() -> Tokenizer {
        let corpus = ["the cat sat on the mat. the dog slept.", "a question? an answer."];
        train_byte_bpe(corpus, &ByteBpeOptions { vocab_size: 290, min_frequency: 1, ..Default::default() })
            .unwrap()
    }

    fn contexts(texts: &[String]) -> Vec<Context> {
        texts.iter().enumerate().map(|(i, t)| Context::new(i.to_string(), None, t.clone())).collect()
    }

    proptest! {
        #[test]
        fn within_the_limit_and_from_the_end(
            texts in prop::collection::vec("([a-z]{1,6}[ .é]{1,2}){0,20}", 0..6),
            limit in 0usize..150,
            least in 0usize..8,
        ) {
            let tokenizer = tokenizer();
            let render = |shown: &[Context]| {
                let texts: Vec<&str> = shown.iter().map(|c| c.text.as_str()).collect();
                format!("answer: {} question? answer.", texts.join("\n"))
            };
            let measure = |shown: &[Context]| tokenizer.count(&render(shown));
            let contexts = contexts(&texts);
            let fitted = fit_contexts(&tokenizer, &contexts, limit, least, measure).unwrap();
            let total = tokenizer.count(&render(&fitted.contexts)).unwrap();
            prop_assert_eq!(total, fitted.tokens);
            prop_assert_eq!(fitted.fits, total <= limit);
            prop_assert!(fitted.fits || fitted.contexts.is_empty());
            // Whole ones first, then at most one that is cut, then the dropped.
            prop_assert!(fitted.shortened.len() <= 1);
            let order = [fitted.kept.clone(), fitted.shortened, fitted.dropped].concat();
            prop_assert_eq!(order, contexts.iter().map(|c| c.id.clone()).collect::<Vec<_>>());
            for (now, before) in fitted.contexts.iter().zip(&contexts) {
                prop_assert!(before.text.starts_with(&now.text));
            }
            // Nothing is cut without need.
            if tokenizer.count(&render(&contexts)).unwrap() <= limit {
                prop_assert_eq!(fitted.kept.len(), contexts.len());
            }
        }
    }

    #[test]
    fn a_prompt_far_over_the_limit_is_not_tokenised_for_each_passage() {
        let tokenizer = tokenizer();
        let contexts = contexts(&vec!["the cat sat on the mat. the dog slept. ".repeat(8); 60]);
        let mut asked = 0;
        let fitted = fit_contexts(&tokenizer, &contexts, 400, 8, |shown| {
            asked += 1;
            tokenizer.count(&shown.iter().map(|c| c.text.as_str()).collect::<Vec<_>>().join("\n\n"))
        })
        .unwrap();
        assert!(fitted.fits && fitted.tokens > 300, "{}", fitted.tokens);
        assert!(asked < 25, "{asked} for 60 passages");
    }

    #[test]
    fn cuts_at_sentence_and_word_ends() {
        let tokenizer = tokenizer();
        let text = "the cat sat on the mat. the dog slept.";
        let offsets = tokenizer.offsets(text).unwrap();
        let until = |word: &str| {
            let byte = text.find(word).unwrap() + word.len();
            offsets.iter().position(|&(_, end)| end >= byte).unwrap() + 1
        };
        let cut = |room: usize| &text[..cut_at(text, &offsets, room).unwrap().0];
        assert_eq!(cut(until("dog")), "the cat sat on the mat.");
        assert_eq!(cut(until("on")), "the cat sat on");
    }
}
