//! DistilBERT: Sanh et al., 2019 (arXiv 1910.01108); names as transformers' `DistilBertModel`.

use super::post_norm::{Names, PostNorm, Shape};
use crate::config_source::ConfigSource;
use crate::{Activation, Result};
use ragduet_torch::ParamBuilder;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    max_position_embeddings: i64,
    n_layers: i64,
    n_heads: i64,
    dim: i64,
    hidden_dim: i64,
    dropout: f64,
    attention_dropout: f64,
    activation: Activation,
    initializer_range: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            max_position_embeddings: 512,
            n_layers: 6,
            n_heads: 12,
            dim: 768,
            hidden_dim: 3072,
            dropout: 0.1,
            attention_dropout: 0.1,
            activation: Activation::Gelu,
            initializer_range: 0.02,
        }
    }
}

const NAMES: Names = Names {
    layers: &["transformer", "layer"],
    layer_prefix: "transformer.layer.",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
    bottlenecks: ["attention_adapters", "output_adapters"],
};

pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<PostNorm> {
    let c: Config = source.parse()?;
    source.heads_divide(c.dim, c.n_heads, "n_heads")?;
    let shape = Shape {
        vocab: c.vocab_size,
        embedding: c.dim,
        hidden: c.dim,
        layers: c.n_layers,
        heads: c.n_heads,
        inner: c.hidden_dim,
        positions: c.max_position_embeddings,
        first_position: 0,
        types: 0,
        activation: c.activation,
        dropout: c.dropout,
        // transformers' block has none here.
        out_dropout: 0.0,
        attention_dropout: c.attention_dropout,
        eps: 1e-12,
        init_std: c.initializer_range,
    };
    PostNorm::build(shape, &NAMES, b)
}
