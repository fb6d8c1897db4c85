//! Texts and pairs to ids: prompts in front, cut to length, special tokens around.
//!
//! What is equal to what: with `strip` on, [`Tokenizer::encode_batch`] gives the ids of
//! `SentenceTransformer.tokenize`; with it off, those of a `transformers` tokenizer called with `truncation=True`.

use rayon::prelude::*;

use crate::cuts::{Cuts, Tally};
use crate::layout::Layout;
use crate::tokenizer::{Tokenizer, TruncationSide};
use crate::{Error, Result};

/// The ids of one input. No padding: the attention mask would be all ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment of each token (`token_type_ids`).
    pub type_ids: Vec<u32>,
}

impl Encoding {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token at all (an empty text without special tokens).
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// How single texts are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions<'a> {
    /// Longest result, special tokens included. `None` takes the tokenizer's own limit, or none if it has none.
    pub max_len: Option<usize>,
    /// A prompt put before each text, as text: `"query: "`.
    pub prefix: Option<&'a str>,
    /// Whether the tokenizer's special tokens go around the text.
    pub add_special_tokens: bool,
    /// Whether white space at both ends goes first, as `sentence-transformers` does. Matters to tokenizers that keep
    /// spaces (byte-level BPE), not to BERT.
    pub strip: bool,
}

impl Default for EncodeOptions<'_> {
    fn default() -> Self {
        Self { max_len: None, prefix: None, add_special_tokens: true, strip: true }
    }
}

/// Which text of a pair is cut when the pair is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PairTruncation {
    /// The longer one, until both are equal (`longest_first`).
    #[default]
    LongestFirst,
    /// Only the second, the passage (`only_second`).
    OnlySecond,
}

/// How pairs are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairOptions {
    /// Longest result, special tokens included. `None` takes the tokenizer's own limit, or none if it has none.
    pub max_len: Option<usize>,
    /// Which text is cut.
    pub truncation: PairTruncation,
    /// Whether the tokenizer's special tokens go around the texts.
    pub add_special_tokens: bool,
    /// Whether white space at both ends of each text goes first.
    pub strip: bool,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self { max_len: None, truncation: PairTruncation::default(), add_special_tokens: true, strip: true }
    }
}

// Below this, handing texts to other threads costs more than encoding them.
const MIN_TEXTS_PER_TASK: usize = 8;

impl Tokenizer {
    /// Encodes texts, in parallel.
    pub fn encode_batch<S>(&self, texts: &[S], options: &EncodeOptions<'_>) -> Result<Vec<Encoding>>
    where
        S: AsRef<str> + Sync,
    {
        Ok(self.encode_batch_counted(texts, options)?.0)
    }

    /// [`Tokenizer::encode_batch`], and how much of the texts was cut.
    ///
    /// # Errors
    /// As there.
    pub fn encode_batch_counted<S>(
        &self,
        texts: &[S],
        options: &EncodeOptions<'_>,
    ) -> Result<(Vec<Encoding>, Cuts)>
    where
        S: AsRef<str> + Sync,
    {
        let layout = self.layouts.single(options.add_special_tokens);
        let room = self.room(layout, options.max_len)?;
        let tally = Tally::default();
        let encodings = texts
            .par_iter()
            .with_min_len(MIN_TEXTS_PER_TASK)
            .enumerate()
            .map(|(index, text)| {
                let raw = self.raw(index, options.prefix, text.as_ref(), options.strip)?;
                tally.text(raw.len(), room);
                Ok(layout.fill(self.cut(raw.get_ids(), room), &[]))
            })
            .collect::<Result<_>>()?;
        Ok((encodings, tally.close(options.max_len.or(self.max_len))))
    }

    /// Encodes one text.
    pub fn encode(&self, text: &str, options: &EncodeOptions<'_>) -> Result<Encoding> {
        let layout = self.layouts.single(options.add_special_tokens);
        let room = self.room(layout, options.max_len)?;
        let raw = self.raw(0, options.prefix, text, options.strip)?;
        let tally = Tally::default();
        tally.text(raw.len(), room);
        tally.close(options.max_len.or(self.max_len));
        Ok(layout.fill(self.cut(raw.get_ids(), room), &[]))
    }

    /// Encodes (query, passage) pairs for a cross-encoder, in parallel.
    pub fn encode_pairs<A, B>(&self, pairs: &[(A, B)], options: &PairOptions) -> Result<Vec<Encoding>>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        Ok(self.encode_pairs_counted(pairs, options)?.0)
    }

    /// [`Tokenizer::encode_pairs`], and how much of the pairs was cut.
    ///
    /// # Errors
    /// As there.
    pub fn encode_pairs_counted<A, B>(
        &self,
        pairs: &[(A, B)],
        options: &PairOptions,
    ) -> Result<(Vec<Encoding>, Cuts)>
    where
        A: AsRef<str> + Sync,
        B: AsRef<str> + Sync,
    {
        let layout = self.layouts.pair(options.add_special_tokens);
        let room = self.room(layout, options.max_len)?;
        let tally = Tally::default();
        let encodings = pairs
            .par_iter()
            .with_min_len(MIN_TEXTS_PER_TASK)
            .enumerate()
            .map(|(index, (first, second))| {
                let first = self.raw(index, None, first.as_ref(), options.strip)?;
                let second = self.raw(index, None, second.as_ref(), options.strip)?;
                let (n1, n2) = (first.len(), second.len());
                let (keep1, keep2) = match options.truncation {
                    PairTruncation::LongestFirst => longest_first(n1, n2, room),
                    // `transformers` also refuses a cut that would leave nothing of the second text.
                    PairTruncation::OnlySecond if n1.saturating_add(n2) <= room => (n1, n2),
                    PairTruncation::OnlySecond if n1 < room => (n1, room - n1),
                    PairTruncation::OnlySecond => {
                        let max_len = room.saturating_add(layout.special());
                        return Err(Error::FirstTooLong { index, query: n1, room, max_len });
                    }
                };
                tally.text(n1.saturating_add(n2), keep1.saturating_add(keep2));
                Ok(layout.fill(self.cut(first.get_ids(), keep1), self.cut(second.get_ids(), keep2)))
            })
            .collect::<Result<_>>()?;
        Ok((encodings, tally.close(options.max_len.or(self.max_len))))
    }

    /// Number of tokens of each text under `options`, in parallel: what a batcher needs to know.
    pub fn count_batch<S>(&self, texts: &[S], options: &EncodeOptions<'_>) -> Result<Vec<usize>>
    where
        S: AsRef<str> + Sync,
    {
        let layout = self.layouts.single(options.add_special_tokens);
        let room = self.room(layout, options.max_len)?;
        texts
            .par_iter()
            .with_min_len(MIN_TEXTS_PER_TASK)
            .enumerate()
            .map(|(index, text)| {
                let raw = self.raw(index, options.prefix, text.as_ref(), options.strip)?;
                Ok(raw.len().min(room) + layout.special())
            })
            .collect()
    }

    /// The special tokens of a single text around ids that were encoded without them.
    pub fn surround(&self, ids: &[u32]) -> Encoding {
        self.layouts.single(true).fill(ids, &[])
    }

    /// Number of tokens of one text, uncut and without special tokens.
    pub fn count(&self, text: &str) -> Result<usize> {
        Ok(self.raw(0, None, text, false)?.len())
    }

    /// Number of special tokens put around a single text, or around a pair.
    pub fn special_count(&self, pair: bool) -> usize {
        if pair { self.layouts.pair(true).special() } else { self.layouts.single(true).special() }
    }

    /// How many leading tokens of an encoded text belong to its prompt, the leading special token included. Pooling
    /// with `include_prompt = false` leaves them out.
    ///
    /// Computed as `sentence-transformers` 5 does: the prompt is encoded alone, and a special token at its end is not
    /// counted. Where the tokenizer merges across the border between prompt and text this is an approximation, the
    /// same one that the model was trained with.
    pub fn prefix_len(&self, prompt: &str, max_len: Option<usize>) -> Result<usize> {
        let encoding = self.encode(prompt, &EncodeOptions { max_len, ..Default::default() })?;
        let ends_special = encoding.ids.last().is_some_and(|id| self.special.all.binary_search(id).is_ok());
        Ok(encoding.len() - usize::from(ends_special))
    }

    /// Tokens left for text once the special tokens have their place.
    fn room(&self, layout: &Layout, max_len: Option<usize>) -> Result<usize> {
        let Some(max_len) = max_len.or(self.max_len) else { return Ok(usize::MAX) };
        match max_len.checked_sub(layout.special()) {
            None | Some(0) => Err(Error::MaxLenTooSmall { max_len, special: layout.special() }),
            Some(room) => Ok(room),
        }
    }

    /// The tokens of a text, uncut and without special tokens.
    fn raw(
        &self,
        index: usize,
        prefix: Option<&str>,
        text: &str,
        strip: bool,
    ) -> Result<tokenizers::Encoding> {
        let mut text = std::borrow::Cow::Borrowed(text);
        if let Some(prefix) = prefix.filter(|p| !p.is_empty()) {
            text = format!("{prefix}{text}").into();
        }
        let mut view: &str = &text;
        if strip {
            view = view.trim_matches(is_python_space);
        }
        let lower;
        if self.lower_case {
            lower = view.to_lowercase();
            view = &lower;
        }
        self.inner.encode_fast(view, false).map_err(|e| Error::Encode { index, reason: e.to_string() })
    }

    fn cut<'a>(&self, ids: &'a [u32], room: usize) -> &'a [u32] {
        if ids.len() <= room {
            return ids;
        }
        match self.truncation_side {
            TruncationSide::Right => &ids[..room],
            TruncationSide::Left => &ids[ids.len() - room..],
        }
    }
}

/// What `str.strip()` of Python removes: Unicode white space and four ASCII separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The lengths to which `tokenizers` cuts a pair: the shorter text is left alone while the other can pay; then both
/// get half, the odd token going to the longer.
fn longest_first(n1: usize, n2: usize, room: usize) -> (usize, usize) {
    if n1.saturating_add(n2) <= room {
        return (n1, n2);
    }
    let (short, long) = (n1.min(n2), n1.max(n2));
    let mut keep_long = if short > room { short } else { short.max(room - short) };
    let mut keep_short = short;
    if keep_short + keep_long > room {
        keep_short = room / 2;
        keep_long = keep_short + room % 2;
    }
    debug_assert!(keep_long <= long);
    if n1 > n2 { (keep_long, keep_short) } else { (keep_short, keep_long) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{WordPieceOptions, train_wordpiece};

    fn tokenizer() -> Tokenizer {
        let corpus = ["the cat sat on the mat", "where did the dog sleep ?", "query : passage : a b c d"];
        train_wordpiece(corpus, &WordPieceOptions { vocab_size: 200, min_frequency: 1, ..Default::default() })
            .unwrap()
    }

    proptest! {
        #[test]
        fn longest_first_agrees_with_the_library(n1 in 0usize..40, n2 in 0usize..40, room in 1usize..40) {
            let encoding = |n: usize| {
                tokenizers::Encoding::from_tokens(vec![tokenizers::Token::new(7, "x".into(), (0, 0)); n], 0)
            };
            let params = tokenizers::TruncationParams { max_length: room, ..Default::default() };
            let (a, b) = tokenizers::truncate_encodings(encoding(n1), Some(encoding(n2)), &params).unwrap();
            prop_assert_eq!(longest_first(n1, n2, room), (a.len(), b.unwrap().len()));
        }
    }

    #[test]
    fn special_tokens_surround_and_text_is_cut() {
        let t = tokenizer();
        let (cls, sep) = (t.cls_id().unwrap(), t.sep_id().unwrap());
        let options = EncodeOptions { max_len: Some(5), ..Default::default() };
        let e = t.encode("the cat sat on the mat", &options).unwrap();
        assert_eq!((e.len(), e.ids[0], e.ids[4]), (5, cls, sep));
        assert_eq!(t.encode("", &options).unwrap().ids, [cls, sep]);
        assert_eq!(t.count_batch(&["the cat sat on the mat", ""], &options).unwrap(), [5, 2]);
        let bare = EncodeOptions { add_special_tokens: false, ..options };
        assert!(t.encode(" \u{1c}\t ", &bare).unwrap().is_empty());
    }

    #[test]
    fn pairs_have_segments() {
        let t = tokenizer();
        let pairs = [("the cat", "sat on the mat")];
        let e = &t.encode_pairs(&pairs, &PairOptions::default()).unwrap()[0];
        let border = e.type_ids.iter().position(|&x| x == 1).unwrap();
        assert_eq!(e.ids[border - 1], t.sep_id().unwrap());
        let only =
            PairOptions { max_len: Some(6), truncation: PairTruncation::OnlySecond, ..Default::default() };
        assert_eq!(t.encode_pairs(&pairs, &only).unwrap()[0].len(), 6);
        let tight = PairOptions { max_len: Some(5), ..only };
        let error = t.encode_pairs(&pairs, &tight).unwrap_err();
        assert!(matches!(error, Error::FirstTooLong { index: 0, query: 2, room: 2, max_len: 5 }), "{error}");
    }

    #[test]
    fn a_limit_below_the_special_tokens_is_an_error() {
        let t = tokenizer();
        let error = t.encode("a", &EncodeOptions { max_len: Some(2), ..Default::default() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "max_len 2 leaves no room for text beside 2 special tokens; raise it to at least 3"
        );
    }

    #[test]
    fn a_prompt_is_text_in_front() {
        let t = tokenizer();
        let with = EncodeOptions { prefix: Some("query : "), ..Default::default() };
        let glued = t.encode("query : the cat", &EncodeOptions::default()).unwrap();
        assert_eq!(t.encode("the cat", &with).unwrap(), glued);
        // [CLS] and the two words of the prompt, not its [SEP].
        assert_eq!(t.prefix_len("query : ", None).unwrap(), 3);
    }

    #[test]
    fn what_is_cut_is_counted_with_how_much_of_it() {
        let t = tokenizer();
        // A limit that no other test has: counts are of the process.
        let options = EncodeOptions { max_len: Some(7), ..Default::default() };
        let (_, cuts) = t
            .encode_batch_counted(&["the cat sat on the mat", "the mat", "a cat sat on mat"], &options)
            .unwrap();
        let tokens =
            ["the cat sat on the mat", "the mat", "a cat sat on mat"].map(|s| t.count(s).unwrap() as u64);
        let room = 7 - t.special_count(false) as u64;
        let unread: u64 = tokens.iter().map(|n| n.saturating_sub(room)).sum();
        let cut = tokens.iter().filter(|n| **n > room).count() as u64;
        assert_eq!(cuts, Cuts { texts: 3, cut, tokens: tokens.iter().sum(), unread });
        assert!(cuts.unread > 0, "{cuts}");
        let pair = PairOptions { max_len: Some(7), ..Default::default() };
        let (_, of_pair) = t.encode_pairs_counted(&[("the cat sat", "on the mat")], &pair).unwrap();
        let room = 7 - t.special_count(true) as u64;
        let n = t.count("the cat sat").unwrap() as u64 + t.count("on the mat").unwrap() as u64;
        assert_eq!((of_pair.cut, of_pair.tokens, of_pair.unread), (1, n, n - room));
        // Nothing is cut at just the limit, nor without one.
        let n = t.encode("the cat", &EncodeOptions::default()).unwrap().len();
        let just = EncodeOptions { max_len: Some(n), ..Default::default() };
        assert_eq!(t.encode_batch_counted(&["the cat"], &just).unwrap().1.cut, 0);
    }

    #[test]
    fn left_truncation_keeps_the_end() {
        let mut t = tokenizer();
        let options = EncodeOptions { max_len: Some(4), ..Default::default() };
        let whole = t.encode("the cat sat on the mat", &EncodeOptions::default()).unwrap();
        t.truncation_side = TruncationSide::Left;
        let cut = t.encode("the cat sat on the mat", &options).unwrap();
        assert_eq!(cut.ids[1..3], whole.ids[whole.len() - 3..whole.len() - 1]);
    }
}
