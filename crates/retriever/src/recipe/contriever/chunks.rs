//! A corpus as chunks of tokens, and the endless stream of its epochs.

use super::config::ChunkConfig;
use crate::Result;
use ragduet_data::text_key;
use ragduet_text::{EncodeOptions, Tokenizer};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// The tokens of a corpus without special ones, cut into chunks. 4 bytes a token.
#[derive(Debug, Default)]
pub struct Chunks {
    tokens: Vec<u32>,
    ranges: Vec<Range<usize>>,
    /// Texts read.
    pub texts: u64,
    /// Chunks shorter than the least, which are left out.
    pub too_short: u64,
}

/// Texts that are tokenised at a time: the ids of a whole corpus take less room than its texts.
const BLOCK: usize = 4096;

impl Chunks {
    /// Tokenises and cuts.
    ///
    /// # Errors
    /// The first error of `texts`; a text that the tokenizer refuses.
    pub fn read(
        texts: impl Iterator<Item = Result<String>>,
        tokenizer: &Tokenizer,
        config: &ChunkConfig,
    ) -> Result<Self> {
        let mut chunks = Self::default();
        let options = EncodeOptions {
            max_len: Some(usize::MAX),
            add_special_tokens: false,
            ..EncodeOptions::default()
        };
        let mut texts = texts;
        loop {
            let block: Vec<String> = texts.by_ref().take(BLOCK).collect::<Result<_>>()?;
            if block.is_empty() {
                break;
            }
            chunks.texts += block.len() as u64;
            for text in tokenizer.encode_batch(&block, &options)? {
                let start = chunks.tokens.len();
                chunks.tokens.extend(text.ids);
                if !config.across_texts {
                    chunks.cut(start, config);
                }
            }
        }
        if config.across_texts {
            chunks.cut(0, config);
        }
        Ok(chunks)
    }

    /// Cuts what stands from `start` on into chunks of about the same length: no short rest is left at the end.
    fn cut(&mut self, start: usize, config: &ChunkConfig) {
        let length = self.tokens.len() - start;
        let parts = length.div_ceil(config.tokens);
        for i in 0..parts {
            let range = start + i * length / parts..start + (i + 1) * length / parts;
            if range.len() < config.min_tokens {
                self.too_short += 1;
            } else {
                self.ranges.push(range);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Tokens in all of them.
    pub fn tokens(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Tokens of the longest.
    pub fn longest(&self) -> usize {
        self.ranges.iter().map(Range::len).max().unwrap_or(0)
    }

    /// The tokens of one.
    pub fn get(&self, chunk: u32) -> &[u32] {
        &self.tokens[self.ranges[chunk as usize].clone()]
    }
}

/// All chunks in an order drawn anew each epoch, one epoch after another: which chunk stands at a place is a pure
/// function of the place, so that a checkpoint holds nothing but the step.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    epoch: Option<u64>,
    chunks: Vec<u32>,
}

impl Order {
    /// Of so many chunks (at least one).
    pub fn new(chunks: usize, seed: u64) -> Self {
        let seed = seed ^ text_key("order of chunks");
        Self { seed, epoch: None, chunks: (0..chunks as u32).collect() }
    }

    /// The chunk at a place.
    pub fn at(&mut self, place: u64) -> u32 {
        let n = self.chunks.len() as u64;
        let epoch = place / n;
        if self.epoch != Some(epoch) {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(epoch);
            self.chunks.sort_unstable();
            self.chunks.shuffle(&mut rng);
            self.epoch = Some(epoch);
        }
        self.chunks[(place % n) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_text::{WordPieceOptions, train_wordpiece};

    fn read(texts: &[&str], config: &ChunkConfig) -> Chunks {
        let options = WordPieceOptions { vocab_size: 60, min_frequency: 1, ..WordPieceOptions::default() };
        let tokenizer = train_wordpiece(["a b c d e f g h"], &options).unwrap();
        Chunks::read(texts.iter().map(|t| Ok((*t).to_string())), &tokenizer, config).unwrap()
    }

    #[test]
    fn texts_are_cut_into_like_parts() {
        let config = ChunkConfig { tokens: 4, min_tokens: 2, across_texts: false };
        let texts = ["a b c d e", "a", "", "a b c d", "a b c d e f g h a"];
        let chunks = read(&texts, &config);
        let lengths: Vec<usize> = (0..chunks.len() as u32).map(|i| chunks.get(i).len()).collect();
        assert_eq!(lengths, [2, 3, 4, 3, 3, 3]);
        assert_eq!((chunks.texts, chunks.too_short, chunks.tokens()), (5, 1, 18));
        // Laid end to end: 19 tokens.
        let across = read(&texts, &ChunkConfig { across_texts: true, ..config });
        let lengths: Vec<usize> = (0..across.len() as u32).map(|i| across.get(i).len()).collect();
        assert_eq!(lengths, [3, 4, 4, 4, 4]);
        assert_eq!(across.get(1)[..2], [chunks.get(0), chunks.get(1)].concat()[3..]);
        assert!(read(&[], &config).is_empty());
    }

    #[test]
    fn the_order_is_a_function_of_the_place() {
        let mut order = Order::new(10, 7);
        let all: Vec<u32> = (0..30).map(|p| order.at(p)).collect();
        for epoch in all.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert!(all[..10] != all[10..20]);
        let mut other = Order::new(10, 7);
        assert!([25, 3, 14, 25].iter().all(|&p| other.at(p) == all[p as usize]));
    }
}
