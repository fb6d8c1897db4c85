//! What every decoder-only language model does.

use crate::attention_mass::Readers;
use crate::kv_cache::KvCache;
use crate::{Mode, PackedTokens};
use ragduet_torch::loss::{CrossEntropy, linear_cross_entropy_with};
use ragduet_torch::{Compute, Device, Tensor};
use std::fmt::Debug;

/// The output projection: logits = scale * (hidden weight^T + bias), then capped where there is a cap.
#[derive(Debug)]
pub struct LmHead {
    /// [vocab, hidden]: the token embedding itself where the two are tied, with the adapter's part where it has one.
    pub weight: Tensor,
    /// [vocab].
    pub bias: Option<Tensor>,
    /// 1 but for T5 and Granite.
    pub scale: f64,
    /// Logits are cap * tanh(logit / cap) (Gemma 2).
    pub cap: Option<f64>,
}

impl LmHead {
    /// -log p of tokens behind rows of hidden states, [rows], f32: `hidden` [rows, hidden] f32, `targets` [rows] i64.
    ///
    /// # Panics
    /// On shapes that do not fit and targets outside the vocabulary: bugs of the caller.
    pub fn nll(&self, hidden: &Tensor, targets: &Tensor, compute: Compute) -> Tensor {
        let options = CrossEntropy {
            bias: self.bias.as_ref(),
            scale: self.scale,
            cap: self.cap,
            ..CrossEntropy::default()
        };
        linear_cross_entropy_with(hidden, &self.weight, targets, options, compute).0
    }
}

/// A causal transformer over packed rows.
pub trait CausalLm: Debug {
    /// Hidden states after the final norm, [tokens, hidden], f32. Causal within each segment; positions are
    /// `batch.positions`.
    ///
    /// # Panics
    /// On token ids outside the vocabulary, or positions outside a learned table (see [`CausalLm::max_tokens`]).
    fn forward(&self, batch: &PackedTokens, mode: Mode) -> Tensor;

    /// How much each token is looked at while the rows `readers` of its segment are read: attention times the norm of the
    /// value, the mean over layers, heads and readers; [tokens], f32, without a graph (see `attention_mass`). What a prefix
    /// takes of the attention is left out.
    ///
    /// # Panics
    /// As [`CausalLm::forward`].
    fn attention_received(&self, batch: &PackedTokens, readers: &Readers, mode: Mode) -> Tensor;

    /// Appends segment i of `batch` to sequence i of the cache and returns the new tokens' hidden states
    /// [tokens, hidden], f32, without a graph. For a prompt (empty cache), one token per sequence, and several
    /// tokens on a cache that holds some; a segment may be empty. The cache grows where it is full.
    ///
    /// Positions go on where each sequence ends: `batch.positions` is not read. With rotary scaling that
    /// depends on the length (dynamic, longrope), keys keep the angles that they had when they were appended.
    ///
    /// # Panics
    /// As [`CausalLm::forward`], and where the batch has not a segment per sequence.
    fn extend(&self, batch: &PackedTokens, cache: &mut KvCache) -> Tensor;

    /// An empty cache for keys and values in the mode's dtype; its adapter acts on all that is appended.
    fn new_cache(&self, sequences: usize, capacity: usize, mode: Mode, device: Device) -> KvCache;

    /// The output projection, for losses that never make the logits whole.
    fn head(&self, mode: Mode) -> LmHead;

    /// Logits of rows of hidden states: [rows, hidden] -> [rows, vocab], f32. Without gradients the projection is kept
    /// in the compute dtype between calls.
    fn logits(&self, hidden: &Tensor, mode: Mode) -> Tensor;

    /// Size of a hidden state.
    fn hidden_size(&self) -> i64;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> usize;

    /// The longest text that can be computed: learned positions end, rotary ones do not.
    fn max_tokens(&self) -> Option<usize>;

    /// `max_position_embeddings`: the longest text that the model is meant for.
    fn context_length(&self) -> usize;

    /// Number of transformer layers.
    fn layers(&self) -> usize;

    /// For layer-wise learning rates and freezing: 0 for embeddings, 1.. for layers, None for the rest.
    fn depth_of(&self, parameter: &str) -> Option<usize>;

    /// Replaces the config's dropout: in the hidden layers (and on embeddings), and on attention probabilities.
    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>);

    /// Whether [`CausalLm::forward`] keeps only what goes from layer to layer and makes the rest again in the backward
    /// pass: far less memory, and about a third more time. Off at first. The gradients are the same.
    fn set_recompute(&mut self, on: bool);
}
