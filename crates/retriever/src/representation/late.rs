//! Late interaction: a vector for each token instead of one for the text (ColBERT: Khattab & Zaharia, 2020, arXiv
//! 2004.12832), with the markers, query augmentation and skip list that PyLate and Stanford's ColBERT have.
//!
//! - A marker token stands behind a text's first special token: `[Q] ` for queries, `[D] ` for passages.
//! - Queries are filled up to their length with mask tokens. Those have vectors that count, but unless
//!   `attend_to_expansion` is set no token looks at them.
//! - Passages drop the vectors of punctuation.
//!
//! Late interaction is a representation of the bi-encoder, not a model of its own: towers, adapters, recipe,
//! checkpoints and mining are shared, and losses over similarities (`LossBatch::similarities`) do not know the
//! difference. `embed` refuses such a model, so that no token vector is taken for a text's.

use super::Side;
use crate::loss::normalize;
use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_nn::{Mode, PackedTokens};
use ragduet_text::{Encoding, Tokenizer};
use ragduet_torch::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Settings of a new late-interaction model (ColBERT). The defaults are PyLate's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LateConfig {
    /// Dimension of a token vector.
    pub dim: i64,
    /// Marker token of queries; empty: none. Added to the vocabulary if missing.
    pub query_marker: String,
    /// Marker token of passages; empty: none. Added to the vocabulary if missing.
    pub passage_marker: String,
    /// Query expansion: queries are padded with [MASK] tokens to `model.max_query_tokens`.
    pub expand_queries: bool,
    /// Whether other tokens attend to the [MASK] tokens of the query expansion.
    pub attend_to_expansion: bool,
    /// Skip list: tokens (punctuation) whose passage vectors are not kept.
    pub skip: Vec<String>,
}

impl Default for LateConfig {
    fn default() -> Self {
        // Python's string.punctuation.
        let punctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
        Self {
            dim: 128,
            query_marker: "[Q] ".into(),
            passage_marker: "[D] ".into(),
            expand_queries: true,
            attend_to_expansion: false,
            skip: punctuation.chars().map(String::from).collect(),
        }
    }
}

impl LateConfig {
    /// The marker of a side.
    pub fn marker(&self, side: Side) -> &str {
        match side {
            Side::Query => &self.query_marker,
            Side::Passage => &self.passage_marker,
        }
    }

    /// The markers that there are.
    pub fn markers(&self) -> impl Iterator<Item = &str> {
        [self.query_marker.as_str(), self.passage_marker.as_str()].into_iter().filter(|m| !m.is_empty())
    }
}

/// [`LateConfig`] with the ids that a tokenizer gives its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Late {
    /// As it was asked for; saved with the model.
    pub config: LateConfig,
    markers: [Option<u32>; 2],
    mask: u32,
    /// Whether the token that ends every text is the one that queries are filled up with, as where a tokenizer without a
    /// mask token ends texts with its end token.
    ends_with_mask: bool,
    skip: HashSet<u32>,
}

impl Late {
    /// # Errors
    /// A marker that is no token; a tokenizer with neither mask nor end-of-text nor padding token to expand queries with.
    pub fn new(config: LateConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let id = |side: Side| -> Result<Option<u32>> {
            let marker = config.marker(side);
            if marker.is_empty() {
                return Ok(None);
            }
            let why = || Error::Unusable(format!("the tokenizer has no token {marker:?}, which marks texts"));
            Ok(Some(tokenizer.token_to_id(marker).ok_or_else(why)?))
        };
        // As PyLate chooses it.
        let mask = tokenizer.mask_id().or(tokenizer.eos_id()).or(tokenizer.pad_id());
        let mask = mask.ok_or_else(|| {
            Error::Unusable("the tokenizer has no mask token to fill queries up with".into())
        })?;
        // Words that are not in the vocabulary stand for its unknown token in PyLate, which then is skipped.
        let known = |w: &String| tokenizer.token_to_id(w).or(tokenizer.unk_id());
        let skip = config.skip.iter().filter_map(known).collect();
        let ends_with_mask = tokenizer.surround(&[u32::MAX]).ids.last() == Some(&mask);
        let markers = [id(Side::Query)?, id(Side::Passage)?];
        Ok(Self { markers, mask, ends_with_mask, skip, config })
    }

    fn marker(&self, side: Side) -> Option<u32> {
        self.markers[usize::from(side == Side::Passage)]
    }

    /// How many tokens of a text may come from the text and its special tokens.
    pub(super) fn room(&self, side: Side, max_len: usize) -> usize {
        max_len - usize::from(self.marker(side).is_some())
    }

    /// Whether no token attends to the mask tokens that queries are expanded with.
    pub(super) fn hides_expansion(&self) -> bool {
        self.config.expand_queries && !self.config.attend_to_expansion
    }

    /// Puts the marker in and expands queries.
    pub(super) fn mark(&self, side: Side, max_len: usize, text: &mut Encoding) {
        if let Some(marker) = self.marker(side) {
            let at = text.ids.len().min(1);
            text.ids.insert(at, marker);
            text.type_ids.insert(at, 0);
        }
        if side == Side::Query && self.config.expand_queries {
            text.ids.resize(max_len.max(text.ids.len()), self.mask);
            text.type_ids.resize(text.ids.len(), 0);
        }
    }

    /// How many tokens of a text others look at.
    fn seen(&self, side: Side, text: &Encoding) -> usize {
        if side == Side::Passage || !self.hides_expansion() {
            return text.len();
        }
        let end = usize::from(self.ends_with_mask);
        let last = text.ids.iter().rposition(|&id| id != self.mask).map_or(1, |at| at + 1);
        (last + end).min(text.len())
    }

    /// Whether a token's vector is kept.
    fn keeps(&self, side: Side, id: u32) -> bool {
        side == Side::Query || !self.skip.contains(&id)
    }

    /// How many vectors each text has.
    pub fn counts(&self, side: Side, texts: &[&Encoding]) -> Vec<usize> {
        texts.iter().map(|t| t.ids.iter().filter(|&&id| self.keeps(side, id)).count()).collect()
    }

    /// Which rows of a packed batch are kept; none where all are.
    fn kept(&self, side: Side, texts: &[&Encoding], device: Device) -> Option<Tensor> {
        let ids: Vec<u32> = texts.iter().flat_map(|t| t.ids.iter().copied()).collect();
        let rows: Vec<i64> =
            ids.iter().enumerate().filter(|&(_, &id)| self.keeps(side, id)).map(|(i, _)| i as i64).collect();
        (rows.len() < ids.len()).then(|| Tensor::from_slice(&rows).to_device(device))
    }

    /// The vectors that texts keep, of unit length: [vectors, dim].
    pub(super) fn encode(
        &self,
        tower: &Tower,
        side: Side,
        texts: &[&Encoding],
        mut batch: PackedTokens,
        mode: Mode,
    ) -> Tensor {
        let seen: Vec<usize> = texts.iter().map(|t| self.seen(side, t)).collect();
        if seen.iter().zip(texts).any(|(&n, t)| n < t.len()) {
            batch = batch.with_seen(&seen);
        }
        let mut states = tower.states(&batch, mode);
        if let Some(rows) = self.kept(side, texts, states.device()) {
            states = states.index_select(0, &rows);
        }
        normalize(&tower.project(states))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_text::{WordPieceOptions, train_wordpiece};

    fn late(config: LateConfig) -> (Late, Tokenizer) {
        let options = WordPieceOptions { vocab_size: 60, ..WordPieceOptions::default() };
        let texts = ["a text, with words.", "more words!"];
        let tokenizer = train_wordpiece(texts, &options).unwrap();
        let tokenizer = tokenizer.with_tokens(config.markers()).unwrap();
        (Late::new(config, &tokenizer).unwrap(), tokenizer)
    }

    #[test]
    fn queries_are_marked_and_filled_up_and_passages_drop_punctuation() {
        let (late, tokenizer) = late(LateConfig::default());
        let id = |t: &str| tokenizer.token_to_id(t).unwrap();
        let plain = tokenizer.encode("words, words", &ragduet_text::EncodeOptions::default()).unwrap();
        let mut query = plain.clone();
        late.mark(Side::Query, 12, &mut query);
        assert_eq!(query.len(), 12);
        assert_eq!((query.ids[0], query.ids[1]), (id("[CLS]"), id("[Q] ")));
        assert_eq!(late.seen(Side::Query, &query), plain.len() + 1);
        assert!(query.ids[plain.len() + 1..].iter().all(|&i| i == id("[MASK]")));
        assert_eq!(late.counts(Side::Query, &[&query]), [12]);
        let mut passage = plain.clone();
        late.mark(Side::Passage, 12, &mut passage);
        assert_eq!(passage.ids[1], id("[D] "));
        assert_eq!(late.counts(Side::Passage, &[&passage]), [plain.len() + 1 - 1]);
        assert_eq!(late.seen(Side::Passage, &passage), passage.len());
    }

    #[test]
    fn markers_must_be_tokens_and_may_be_absent() {
        let (_, tokenizer) = late(LateConfig::default());
        let other = LateConfig { query_marker: "[X] ".into(), ..LateConfig::default() };
        let error = Late::new(other, &tokenizer).unwrap_err().to_string();
        assert!(error.contains("[X] "), "{error}");
        let none = LateConfig { query_marker: String::new(), expand_queries: false, ..LateConfig::default() };
        let late = Late::new(none, &tokenizer).unwrap();
        let mut query = Encoding { ids: vec![2, 9, 3], type_ids: vec![0; 3] };
        late.mark(Side::Query, 12, &mut query);
        assert_eq!(query.ids, [2, 9, 3]);
        assert_eq!(late.room(Side::Query, 12), 12);
    }
}
