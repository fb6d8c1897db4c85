//! Encoder inputs of a batch of answers. Usually a text for each; under fusion in the decoder (Izacard and Grave, 2021,
//! arXiv 2007.01282) several, such as a question beside each of its passages: the encoder reads them apart, at a cost that
//! grows with their number alone, and the decoder looks at all of them at once.
//!
//! Fusion-in-decoder is a matter of segment offsets: the encoder's segments are the texts, and the decoder's
//! cross-attention sees the segments of all texts of an answer as one. Models and caches do not know of it.

use ragduet_nn::{Mode, PackedTokens, Seq2SeqLm};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Tensor};

/// Texts laid one after another, and which belong together.
#[derive(Debug)]
pub(crate) struct Sources {
    tokens: PackedTokens,
    /// How many texts each answer has.
    counts: Vec<usize>,
    device: Device,
}

/// What an encoder made of sources.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// [rows, hidden], f32.
    pub states: Tensor,
    /// Which rows each answer's decoder sees; those of soft prompts among them.
    pub borders: Segments,
    /// Rows of a soft prompt, before each text.
    pub soft: i64,
}

impl Sources {
    /// The ids of each answer's texts and their lengths; no lengths: it has one.
    pub fn new<'s>(all: impl Iterator<Item = (&'s [u32], &'s [usize])>, device: Device) -> Self {
        let (mut texts, mut counts) = (Vec::new(), Vec::new());
        for (ids, parts) in all {
            let before = texts.len();
            let mut rest = ids;
            for &n in parts {
                let (part, behind) = rest.split_at(n);
                texts.push(part);
                rest = behind;
            }
            if parts.is_empty() {
                texts.push(ids);
            }
            counts.push(texts.len() - before);
        }
        Self { tokens: PackedTokens::from_ids(texts, device), counts, device }
    }

    /// Reads them.
    pub fn encode(&self, lm: &dyn Seq2SeqLm, mode: Mode) -> Encoded {
        let states = lm.encode(&self.tokens, mode);
        let segments = &self.tokens.segments;
        let soft = (states.size()[0] - segments.tokens()) / segments.len().max(1) as i64;
        let mut lengths = segments.lengths().map(|n| (n + soft) as usize);
        let each: Vec<usize> = self.counts.iter().map(|&n| lengths.by_ref().take(n).sum()).collect();
        Encoded { states, borders: Segments::new(&each, self.device), soft }
    }

    /// The rows of each answer's texts among those of an encoder, without soft prompts' rows.
    pub fn rows(&self, encoded: &Encoded) -> Vec<Vec<i64>> {
        let mut texts = self.tokens.segments.lengths();
        let mut at = 0;
        let mut text = || {
            let n = texts.next().unwrap_or(0);
            let from = at + encoded.soft;
            at = from + n;
            from..at
        };
        self.counts.iter().map(|&n| (0..n).flat_map(|_| text()).collect()).collect()
    }
}
