//! Gemma 2: Gemma Team, 2024 (arXiv 2408.00118). Norms before and after each sub-layer, layers with a sliding window between
//! global ones, capped attention scores and logits. As transformers' `Gemma2ForCausalLM` with eager attention, which is the
//! one that caps scores on the CPU.

use super::attention::{Attention, AttentionShape};
use super::decoder::{Decoder, Shape};
use super::gated_mlp::GatedMlp;
use super::pass::{Block, Scoring};
use super::pre_norm::{After, PreNorm};
use super::site::{Sight, Site};
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
    num_key_value_heads: i64,
    head_dim: i64,
    hidden_activation: Activation,
    max_position_embeddings: i64,
    initializer_range: f64,
    rms_norm_eps: f64,
    attention_bias: bool,
    attention_dropout: f64,
    query_pre_attn_scalar: f64,
    sliding_window: Option<i64>,
    layer_types: Option<Vec<String>>,
    final_logit_softcapping: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 256_000,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_activation: Activation::GeluTanh,
            max_position_embeddings: 8192,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            attention_bias: false,
            attention_dropout: 0.0,
            query_pre_attn_scalar: 256.0,
            sliding_window: Some(4096),
            layer_types: None,
            final_logit_softcapping: Some(30.0),
            attn_logit_softcapping: Some(50.0),
            tie_word_embeddings: true,
        }
    }
}

impl Config {
    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        if self.head_dim < 2 || self.head_dim % 2 != 0 {
            return source.unsupported("head_dim", "an even number");
        }
        if self.query_pre_attn_scalar <= 0.0 {
            return source.unsupported("query_pre_attn_scalar", "a number above 0");
        }
        for (key, cap) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            if cap.is_some_and(|c| c <= 0.0) {
                return source.unsupported(key, "a number above 0, or null");
            }
        }
        source.whole_rotation()?;
        source.heads_divide(self.num_attention_heads, self.num_key_value_heads, "num_key_value_heads")
    }

    /// Whether each layer has the window.
    fn local(&self, source: &ConfigSource<'_>) -> Result<Vec<bool>> {
        let count = self.num_hidden_layers.max(0) as usize;
        let Some(types) = &self.layer_types else { return Ok((0..count).map(|i| i % 2 == 0).collect()) };
        let known = |name: &String| match name.as_str() {
            "sliding_attention" => Some(true),
            "full_attention" => Some(false),
            _ => None,
        };
        let local: Vec<bool> = types.iter().filter_map(known).collect();
        if local.len() != count || types.len() != count {
            let wanted = "`sliding_attention` or `full_attention` for each of the num_hidden_layers layers";
            return source.unsupported("layer_types", wanted);
        }
        Ok(local)
    }

    fn window(&self, source: &ConfigSource<'_>, sight: Sight) -> Result<i64> {
        match self.sliding_window {
            Some(n) if n > 0 => Ok(sight.window(n)),
            _ => source.unsupported("sliding_window", "a number of tokens from 1"),
        }
    }
}

fn layer(c: &Config, window: Option<i64>, b: &ParamBuilder) -> Result<PreNorm> {
    let (h, std) = (c.hidden_size, c.initializer_range);
    let norm = |name: &str| RmsNorm::build_offset(&b.at(name), h, c.rms_norm_eps);
    let attention = AttentionShape {
        hidden: h,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        bias: c.attention_bias,
        out_bias: c.attention_bias,
        fused: false,
        init_std: std,
        norms: None,
        scoring: Scoring { scale: c.query_pre_attn_scalar.powf(-0.5), window, cap: c.attn_logit_softcapping },
        rope: Some(0),
    };
    let size = [h, c.intermediate_size];
    Ok(PreNorm {
        attention_norm: Norm::Rms(norm("input_layernorm")?),
        attention: Attention::build(&b.at("self_attn"), attention)?,
        after_attention: After::Normed(norm("post_attention_layernorm")?),
        mlp_norm: Norm::Rms(norm("pre_feedforward_layernorm")?),
        mlp: GatedMlp::build(&b.at("mlp"), size, false, c.hidden_activation, std)?,
        after_mlp: After::Normed(norm("post_feedforward_layernorm")?),
        bottlenecks: behind(b, h),
    })
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    c.check(source)?;
    let (h, std, sight) = (c.hidden_size, c.initializer_range, site.sight(source, false)?);
    let (b, m) = (site.root(), site.body());
    let local = c.local(source)?;
    let window = if local.contains(&true) { Some(c.window(source, sight)?) } else { None };
    let words = Embedding::build(&m.at("embed_tokens"), c.vocab_size, h, std)?;
    let block = |(i, &local): (usize, &bool)| {
        Ok(Rc::new(layer(&c, window.filter(|_| local), &m.at("layers").at(i))?) as Rc<dyn Block>)
    };
    let blocks = local.iter().enumerate().map(block).collect::<Result<Vec<_>>>()?;
    let rope = RopeShape { rotated: c.head_dim, positions: c.max_position_embeddings, theta: 10_000.0 };
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        positions: c.max_position_embeddings,
        embedding_scale: (h as f64).sqrt(),
        logit_cap: c.final_logit_softcapping,
        attention_dropout: c.attention_dropout,
        ..Shape::usual(site, sight)
    };
    Ok(Decoder {
        words,
        places: None,
        ropes: vec![Rope::build(source, rope, b.device())?],
        norm: Norm::Rms(RmsNorm::build_offset(&m.at("norm"), h, c.rms_norm_eps)?),
        head,
        soft: shape.soft(b, blocks.len()),
        blocks,
        shape,
        recompute: false,
    })
}
