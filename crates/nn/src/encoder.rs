//! What every encoder does.

use crate::{Mode, PackedTokens};
use ragduet_torch::Tensor;

/// A transformer over packed rows whose token states become vectors: an encoder, or a decoder that is used as one.
pub trait Encoder: std::fmt::Debug {
    /// The last hidden states, [tokens, hidden], f32.
    ///
    /// # Panics
    /// On token ids outside the vocabulary or texts longer than [`Encoder::max_tokens`]: the caller truncates.
    fn forward(&self, batch: &PackedTokens, mode: Mode) -> Tensor;

    /// Replaces the config's dropout: in the hidden layers (and on embeddings), and on attention probabilities.
    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>);

    /// Size of a hidden state.
    fn hidden_size(&self) -> i64;

    /// The longest text the position embeddings allow; of rotary positions `max_position_embeddings`.
    fn max_tokens(&self) -> usize;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> usize;

    /// Number of transformer layers.
    fn layers(&self) -> usize;

    /// Drops the layers above the first `layers`: [`Encoder::forward`] then ends there. The parameters stay in their
    /// store.
    fn truncate(&mut self, layers: usize);

    /// For layer-wise learning rates and freezing: 0 for embeddings, 1.. for layers, None for the rest.
    fn depth_of(&self, parameter: &str) -> Option<usize>;
}

/// [`Encoder::depth_of`] where layers are named `<prefix>N.` and embeddings `embeddings.`.
pub(crate) fn depth_by_prefix(parameter: &str, layers: &str) -> Option<usize> {
    if parameter.starts_with("embeddings.") {
        return Some(0);
    }
    let rest = parameter.strip_prefix(layers)?;
    rest.split('.').next()?.parse::<usize>().ok().map(|n| n + 1)
}
