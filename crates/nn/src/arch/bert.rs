//! BERT: Devlin et al., 2019 (arXiv 1810.04805); names and numbers as transformers' `BertModel`.

use super::post_norm::{Names, PostNorm, Shape};
use crate::config_source::ConfigSource;
use crate::{Activation, Result};
use ragduet_torch::ParamBuilder;

/// `config.json`, with transformers' defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub hidden_act: Activation,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub position_embedding_type: Option<String>,
    pub is_decoder: bool,
    /// Where RoBERTa's positions begin.
    pub pad_token_id: Option<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            position_embedding_type: None,
            is_decoder: false,
            pad_token_id: None,
        }
    }
}

impl Config {
    /// The settings that every model of the family must have to be computed rightly here.
    pub(super) fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        if self.position_embedding_type.as_deref().is_some_and(|t| t != "absolute") {
            return source.unsupported("position_embedding_type", "absolute");
        }
        if self.is_decoder {
            return source.unsupported("is_decoder", "false: only encoders");
        }
        source.heads_divide(self.hidden_size, self.num_attention_heads, "num_attention_heads")
    }

    pub(super) fn shape(&self, first_position: i64) -> Shape {
        Shape {
            vocab: self.vocab_size,
            embedding: self.hidden_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            positions: self.max_position_embeddings,
            first_position,
            types: self.type_vocab_size,
            activation: self.hidden_act,
            dropout: self.hidden_dropout_prob,
            out_dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
            eps: self.layer_norm_eps,
            init_std: self.initializer_range,
        }
    }
}

pub(super) const NAMES: Names = Names {
    layers: &["encoder", "layer"],
    layer_prefix: "encoder.layer.",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
    bottlenecks: ["attention.output", "output"],
};

pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<PostNorm> {
    let config: Config = source.parse()?;
    config.check(source)?;
    PostNorm::build(config.shape(0), &NAMES, b)
}
