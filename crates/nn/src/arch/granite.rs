//! Granite 3 and 4, dense (Granite Team, 2024): Llama's layer with multipliers of embeddings, scores, what layers add, and
//! logits. As transformers' `GraniteForCausalLM`.

use super::attention::{Attention, AttentionShape};
use super::decoder::{Decoder, Shape};
use super::gated_mlp::GatedMlp;
use super::heads::Heads;
use super::pass::{Block, Scoring};
use super::pre_norm::{After, PreNorm};
use super::site::Site;
use super::stream::{Norm, behind};
use crate::config_source::ConfigSource;
use crate::rope::{Rope, RopeShape};
use crate::{Activation, Embedding, Result, RmsNorm};
use ragduet_torch::ParamBuilder;
use std::rc::Rc;

/// `config.json`, with transformers' defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    hidden_act: Activation,
    max_position_embeddings: i64,
    initializer_range: f64,
    rms_norm_eps: f64,
    tie_word_embeddings: bool,
    attention_bias: bool,
    attention_dropout: f64,
    mlp_bias: bool,
    embedding_multiplier: f64,
    logits_scaling: f64,
    residual_multiplier: f64,
    attention_multiplier: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: false,
            attention_bias: false,
            attention_dropout: 0.0,
            mlp_bias: false,
            embedding_multiplier: 1.0,
            logits_scaling: 1.0,
            residual_multiplier: 1.0,
            attention_multiplier: 1.0,
        }
    }
}

impl Config {
    fn heads(&self) -> Heads {
        Heads::new(self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim)
    }

    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        self.heads().check(source)?;
        if self.logits_scaling == 0.0 {
            return source
                .unsupported("logits_scaling", "a number other than 0, which logits are divided by");
        }
        source.whole_rotation()
    }
}

fn layer(c: &Config, b: &ParamBuilder) -> Result<PreNorm> {
    let (h, std) = (c.hidden_size, c.initializer_range);
    let norm = |name: &str| RmsNorm::build(&b.at(name), h, c.rms_norm_eps).map(Norm::Rms);
    let attention = AttentionShape {
        hidden: h,
        heads: c.num_attention_heads,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        bias: c.attention_bias,
        out_bias: c.attention_bias,
        fused: false,
        init_std: std,
        norms: None,
        scoring: Scoring::plain(c.attention_multiplier),
        rope: Some(0),
    };
    Ok(PreNorm {
        attention_norm: norm("input_layernorm")?,
        attention: Attention::build(&b.at("self_attn"), attention)?,
        after_attention: After::Scaled(c.residual_multiplier),
        mlp_norm: norm("post_attention_layernorm")?,
        mlp: GatedMlp::build(&b.at("mlp"), [h, c.intermediate_size], c.mlp_bias, c.hidden_act, std)?,
        after_mlp: After::Scaled(c.residual_multiplier),
        bottlenecks: behind(b, h),
    })
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    c.check(source)?;
    let (h, std) = (c.hidden_size, c.initializer_range);
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("embed_tokens"), c.vocab_size, h, std)?;
    let blocks = (0..c.num_hidden_layers)
        .map(|i| Ok(Rc::new(layer(&c, &m.at("layers").at(i))?) as Rc<dyn Block>))
        .collect::<Result<Vec<_>>>()?;
    let rope = RopeShape { rotated: c.heads().dim, positions: c.max_position_embeddings, theta: 10_000.0 };
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        positions: c.max_position_embeddings,
        embedding_scale: c.embedding_multiplier,
        scales_prompts: true,
        logit_scale: 1.0 / c.logits_scaling,
        attention_dropout: c.attention_dropout,
        ..Shape::usual(site, site.sight(source, false)?)
    };
    Ok(Decoder {
        words,
        places: None,
        ropes: vec![Rope::build(source, rope, b.device())?],
        norm: Norm::Rms(RmsNorm::build(&m.at("norm"), h, c.rms_norm_eps)?),
        head,
        soft: shape.soft(b, blocks.len()),
        blocks,
        shape,
        recompute: false,
    })
}
