//! What every decoder-only language model does.

use crate::encoder::{Mode, PackedTokens};
use crate::kv_cache::KvCache;
use ragduet_torch::{Compute, Device, Kind, Tensor};
use std::fmt::Debug;

/// The output projection: logits = scale * (hidden weight^T + bias).
#[derive(Debug, Clone, Copy)]
pub struct LmHead<'a> {
    /// [vocab, hidden]: the token embedding itself where the two are tied.
    pub weight: &'a Tensor,
    /// [vocab].
    pub bias: Option<&'a Tensor>,
    /// 1 but for T5.
    pub scale: f64,
}

/// A causal transformer over packed rows.
pub trait CausalLm: Debug {
    /// Hidden states after the final norm, [tokens, hidden], f32. Causal within each segment; positions are
    /// `batch.positions`.
    ///
    /// # Panics
    /// On token ids outside the vocabulary, or positions outside a learned table (see [`CausalLm::max_tokens`]).
    fn forward(&self, batch: &PackedTokens, mode: Mode) -> Tensor;

    /// Appends segment i of `batch` to sequence i of the cache and returns the new tokens' hidden states
    /// [tokens, hidden], f32, without a graph. For a prompt (empty cache), one token per sequence, and several
    /// tokens on a cache that holds some; a segment may be empty. The cache grows where it is full.
    ///
    /// Positions go on where each sequence ends: `batch.positions` is not read. With dynamic rotary scaling, keys
    /// keep the angles that they had when they were appended, as in transformers.
    ///
    /// # Panics
    /// As [`CausalLm::forward`], and where the batch has not a segment per sequence.
    fn extend(&self, batch: &PackedTokens, cache: &mut KvCache) -> Tensor;

    /// An empty cache with the weights prepared for inference in this dtype (a copy of most of them in bf16, of
    /// those of joined products in f32).
    fn new_cache(&self, sequences: usize, capacity: usize, compute: Compute, device: Device) -> KvCache;

    /// The output projection, for training; with a cache take [`KvCache::head`].
    fn head(&self) -> LmHead<'_>;

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

    /// Whether training keeps only the layers' inputs and computes the rest again backward.
    fn set_recompute(&mut self, on: bool);
}

/// Logits of rows of hidden states: [rows, hidden] -> [rows, vocab], f32. For losses use the fused cross-entropy,
/// which never makes them whole.
pub fn logits(head: &LmHead<'_>, hidden: &Tensor, compute: Compute) -> Tensor {
    let kind = compute.kind();
    let bias = head.bias.map(|b| b.to_kind(kind));
    let out = hidden.to_kind(kind).linear(&head.weight.to_kind(kind), bias.as_ref()).to_kind(Kind::Float);
    if head.scale == 1.0 { out } else { out * head.scale }
}
