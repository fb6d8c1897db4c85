//! Phi-3 (Microsoft, 2024, arXiv 2404.14219), Phi-3.5, Phi-4 (2412.08905) and Phi-4-mini (2503.01743): one projection for q, k
//! and v and one for gate and up, LongRoPE, rotary positions on a part of each head in Phi-4-mini. As transformers'
//! `Phi3ForCausalLM`.

use super::attention::{Attention, AttentionShape};
use super::decoder::{Decoder, Shape};
use super::gated_mlp::GatedMlp;
use super::heads::Heads;
use super::pass::{Block, Scoring};
use super::pre_norm::{After, PreNorm};
use super::site::{Sight, Site};
use super::stream::{Norm, behind};
use crate::config_source::ConfigSource;
use crate::rope::{self, Rope, RopeShape};
use crate::{Activation, Embedding, Result, RmsNorm};
use ragduet_torch::ParamBuilder;
use serde_json::Value;
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
    attention_dropout: f64,
    resid_pdrop: f64,
    original_max_position_embeddings: f64,
    sliding_window: Option<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32064,
            hidden_size: 3072,
            intermediate_size: 8192,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            max_position_embeddings: 4096,
            initializer_range: 0.02,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            attention_dropout: 0.0,
            resid_pdrop: 0.0,
            original_max_position_embeddings: 4096.0,
            sliding_window: None,
        }
    }
}

impl Config {
    fn heads(&self) -> Heads {
        Heads::new(self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim)
    }

    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        self.heads().check(source)?;
        if self.sliding_window.is_some_and(|n| n < 1) {
            return source.unsupported("sliding_window", "a number of tokens from 1, or null");
        }
        Ok(())
    }

    /// Its scalings are the default one and longrope, which older files call su or yarn.
    fn rope(&self, source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<Rope> {
        let mut given = rope::parameters(source);
        let text = |key: &str| given.get(key).and_then(Value::as_str).map(String::from);
        match text("rope_type").or_else(|| text("type")).as_deref() {
            None | Some("default") => {}
            Some("longrope" | "su" | "yarn") => {
                given.insert("rope_type".into(), "longrope".into());
                given.insert(ORIGINAL.into(), self.original_max_position_embeddings.into());
            }
            Some(_) => return source.unsupported("rope_parameters", "rope_type default or longrope"),
        }
        let rotated = (self.heads().dim as f64 * rotary_share(source)) as i64;
        if rotated < 2 || rotated % 2 != 0 || rotated > self.heads().dim {
            return source
                .unsupported("partial_rotary_factor", "an even number of rotating dimensions per head");
        }
        let theta = source.number("rope_theta").unwrap_or(10_000.0);
        let shape = RopeShape { rotated, positions: self.max_position_embeddings, theta };
        Rope::with(source, &given, shape, b.device())
    }
}

/// The rotating share of a head: in the table of rotary settings, or beside it.
pub(super) fn rotary_share(source: &ConfigSource<'_>) -> f64 {
    let share = rope::parameters(source).get("partial_rotary_factor").and_then(Value::as_f64);
    share.or_else(|| source.number("partial_rotary_factor")).unwrap_or(1.0)
}

/// The longest text of pre-training.
const ORIGINAL: &str = "original_max_position_embeddings";

fn layer(c: &Config, sight: Sight, b: &ParamBuilder) -> Result<PreNorm> {
    let (h, std) = (c.hidden_size, c.initializer_range);
    let norm = |name: &str| RmsNorm::build(&b.at(name), h, c.rms_norm_eps).map(Norm::Rms);
    let attention = AttentionShape {
        hidden: h,
        heads: c.num_attention_heads,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        bias: false,
        out_bias: false,
        fused: true,
        init_std: std,
        norms: None,
        scoring: Scoring {
            window: c.sliding_window.map(|n| sight.window(n)),
            ..Scoring::plain((c.heads().dim as f64).powf(-0.5))
        },
        rope: Some(0),
    };
    Ok(PreNorm {
        attention_norm: norm("input_layernorm")?,
        attention: Attention::build(&b.at("self_attn"), attention)?,
        after_attention: After::Added,
        mlp_norm: norm("post_attention_layernorm")?,
        mlp: GatedMlp::build_fused(&b.at("mlp"), [h, c.intermediate_size], c.hidden_act, std)?,
        after_mlp: After::Added,
        bottlenecks: behind(b, h),
    })
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    c.check(source)?;
    let (h, std, sight) = (c.hidden_size, c.initializer_range, site.sight(source, false)?);
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("embed_tokens"), c.vocab_size, h, std)?;
    let blocks = (0..c.num_hidden_layers)
        .map(|i| Ok(Rc::new(layer(&c, sight, &m.at("layers").at(i))?) as Rc<dyn Block>))
        .collect::<Result<Vec<_>>>()?;
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        positions: c.max_position_embeddings,
        hidden_dropout: c.resid_pdrop,
        attention_dropout: c.attention_dropout,
        ..Shape::usual(site, sight)
    };
    Ok(Decoder {
        words,
        places: None,
        ropes: vec![c.rope(source, b)?],
        norm: Norm::Rms(RmsNorm::build(&m.at("norm"), h, c.rms_norm_eps)?),
        head,
        soft: shape.soft(b, blocks.len()),
        blocks,
        shape,
        recompute: false,
    })
}
