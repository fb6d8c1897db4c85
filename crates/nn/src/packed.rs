//! Batches without padding.
//!
//! `with_seen`: ColBERT's queries end with [MASK] tokens that no token attends to. Keys and values are then a part of
//! the rows, laid out in groups as T5's bias is.

use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Tensor};

/// The texts of a batch, one after another.
#[derive(Debug)]
pub struct PackedTokens {
    /// [tokens] token ids, i64.
    pub ids: Tensor,
    /// [tokens] segment ids (0 for a single text), i64.
    pub type_ids: Tensor,
    /// [tokens] position of each token within its text, from 0, i64.
    pub positions: Tensor,
    /// Where the texts begin and end.
    pub segments: Segments,
    /// The rows that others look at; none: every row of a text looks at all rows of it.
    pub seen: Option<SeenRows>,
}

/// Rows that are looked at where others only look: ColBERT's queries end with mask tokens that nobody sees.
#[derive(Debug)]
pub struct SeenRows {
    /// [seen tokens] their numbers among all rows, ascending, i64.
    pub rows: Tensor,
    /// Where each text's begin and end among them.
    pub segments: Segments,
}

impl PackedTokens {
    /// From token ids and segment ids per text, which must not be empty.
    pub fn new<'a>(texts: impl IntoIterator<Item = (&'a [u32], &'a [u32])>, device: Device) -> Self {
        let (mut ids, mut types, mut positions, mut lengths) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (text, segment) in texts {
            assert_eq!(text.len(), segment.len(), "a segment id per token");
            ids.extend(text.iter().map(|&i| i64::from(i)));
            types.extend(segment.iter().map(|&i| i64::from(i)));
            positions.extend(0..text.len() as i64);
            lengths.push(text.len());
        }
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        Self {
            ids: tensor(&ids),
            type_ids: tensor(&types),
            positions: tensor(&positions),
            segments: Segments::new(&lengths, device),
            seen: None,
        }
    }

    /// With only the first `seen[i]` tokens of text i looked at (at least one of each).
    ///
    /// # Panics
    /// Where there are not as many numbers as texts, or one is 0 or beyond its text.
    #[must_use]
    pub fn with_seen(self, seen: &[usize]) -> Self {
        assert_eq!(seen.len(), self.segments.len(), "a number for each text");
        let mut rows = Vec::new();
        for (&n, range) in seen.iter().zip(self.segments.offsets().windows(2)) {
            assert!(n > 0 && n as i64 <= range[1] - range[0], "{n} of {} tokens seen", range[1] - range[0]);
            rows.extend(range[0]..range[0] + n as i64);
        }
        let device = self.ids.device();
        let rows = Tensor::from_slice(&rows).to_device(device);
        Self { seen: Some(SeenRows { rows, segments: Segments::new(seen, device) }), ..self }
    }

    /// From token ids alone (language models have no segment ids).
    pub fn from_ids<'a>(texts: impl IntoIterator<Item = &'a [u32]>, device: Device) -> Self {
        let (mut ids, mut positions, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            ids.extend(text.iter().map(|&i| i64::from(i)));
            positions.extend(0..text.len() as i64);
            lengths.push(text.len());
        }
        let ids = Tensor::from_slice(&ids).to_device(device);
        Self {
            type_ids: ids.zeros_like(),
            ids,
            positions: Tensor::from_slice(&positions).to_device(device),
            segments: Segments::new(&lengths, device),
            seen: None,
        }
    }
}
