//! The Llama family, driven by config: Llama (Touvron et al., 2023, arXiv 2302.13971; Llama 3: 2407.21783), Mistral
//! (2310.06825), Qwen2 (2407.10671), Qwen3 (2505.09388) and SmolLM3. Pre-norm with RMSNorm, rotary positions,
//! grouped-query attention (2305.13245), gated feed-forward. As transformers' `*ForCausalLM`.

use super::attention::{Attention, AttentionShape, QkNorms};
use super::decoder::{Decoder, Shape};
use super::gated_mlp::GatedMlp;
use super::heads::Heads;
use super::pass::{Block, Scoring};
use super::pre_norm::{After, PreNorm};
use super::site::{Sight, Site};
use super::stream::{Norm, behind};
use crate::config_source::ConfigSource;
use crate::rope::{Rope, RopeShape};
use crate::{Activation, Embedding, Result, RmsNorm};
use ragduet_torch::ParamBuilder;
use serde_json::{Value, json};
use std::rc::Rc;

/// Members of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    SmolLm3,
}

/// `config.json`; what a key means where it is missing depends on the member ([`Member::defaults`]).
#[derive(Debug, serde::Deserialize)]
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
    use_sliding_window: bool,
    sliding_window: Option<i64>,
    max_window_layers: i64,
    layer_types: Option<Vec<String>>,
    no_rope_layers: Option<Vec<i64>>,
    no_rope_layer_interval: i64,
}

impl Member {
    /// transformers' defaults, with what a member has no key for (Qwen2's biases) set as it is.
    fn defaults(self) -> Value {
        let mut all = json!({
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": null, "head_dim": null, "hidden_act": "silu",
            "max_position_embeddings": 2048, "initializer_range": 0.02, "rms_norm_eps": 1e-6,
            "tie_word_embeddings": false, "attention_bias": false, "attention_dropout": 0.0, "mlp_bias": false,
            "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28, "layer_types": null,
            "no_rope_layers": null, "no_rope_layer_interval": 4,
        });
        let own = match self {
            Member::Llama => json!({}),
            Member::Mistral => json!({
                "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
            }),
            Member::Qwen2 => json!({
                "vocab_size": 151_936, "intermediate_size": 22016, "num_key_value_heads": 32,
                "max_position_embeddings": 32768,
            }),
            Member::Qwen3 => json!({
                "vocab_size": 151_936, "intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": 128,
                "max_position_embeddings": 32768,
            }),
            Member::SmolLm3 => json!({
                "vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
                "num_key_value_heads": 4, "max_position_embeddings": 32768, "sliding_window": null,
                "tie_word_embeddings": true,
            }),
        };
        overlay(&mut all, &own);
        all
    }

    /// Bases of the rotary angles.
    fn theta(self) -> f64 {
        if self == Member::SmolLm3 { 2_000_000.0 } else { 10_000.0 }
    }
}

fn overlay(under: &mut Value, over: &Value) {
    if let (Some(under), Some(over)) = (under.as_object_mut(), over.as_object()) {
        under.extend(over.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
}

impl Config {
    fn read(source: &ConfigSource<'_>, member: Member) -> Result<Self> {
        let mut json = member.defaults();
        overlay(&mut json, source.json);
        let mut c: Self = ConfigSource { path: source.path, json: &json }.parse()?;
        if matches!(member, Member::Mistral | Member::Qwen2) {
            c.attention_bias = member == Member::Qwen2;
        }
        if matches!(member, Member::Mistral | Member::Qwen2 | Member::Qwen3) {
            c.mlp_bias = false;
        }
        Ok(c)
    }

    fn heads(&self) -> Heads {
        Heads::new(self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim)
    }

    fn rotates(&self, member: Member, layer: i64) -> bool {
        match &self.no_rope_layers {
            _ if member != Member::SmolLm3 => true,
            Some(given) => given.get(layer as usize).is_none_or(|&on| on != 0),
            None => (layer + 1) % self.no_rope_layer_interval != 0,
        }
    }

    /// How many tokens before its own one sees in this layer.
    fn window(&self, member: Member, sight: Sight, layer: i64) -> Option<i64> {
        let on = match (member, &self.layer_types) {
            (Member::Llama, _) => false,
            (Member::Mistral, _) => true,
            (_, Some(types)) => {
                self.use_sliding_window && types.get(layer as usize).is_some_and(|t| t == "sliding_attention")
            }
            (Member::SmolLm3, None) => self.use_sliding_window && !self.rotates(member, layer),
            (_, None) => self.use_sliding_window && layer >= self.max_window_layers,
        };
        self.sliding_window.filter(|_| on).map(|w| sight.window(w))
    }

    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        self.heads().check(source)?;
        source.whole_rotation()
    }
}

fn layer(c: &Config, (member, sight): (Member, Sight), index: i64, b: &ParamBuilder) -> Result<PreNorm> {
    let (h, std) = (c.hidden_size, c.initializer_range);
    let norm = |name: &str| RmsNorm::build(&b.at(name), h, c.rms_norm_eps).map(Norm::Rms);
    let attention = AttentionShape {
        hidden: h,
        heads: c.num_attention_heads,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        bias: c.attention_bias,
        out_bias: c.attention_bias && member != Member::Qwen2,
        init_std: std,
        fused: false,
        norms: (member == Member::Qwen3).then_some(QkNorms {
            build: RmsNorm::build,
            eps: c.rms_norm_eps,
            whole: false,
        }),
        scoring: Scoring {
            window: c.window(member, sight, index),
            ..Scoring::plain((c.heads().dim as f64).powf(-0.5))
        },
        rope: c.rotates(member, index).then_some(0),
    };
    let size = [h, c.intermediate_size];
    Ok(PreNorm {
        attention_norm: norm("input_layernorm")?,
        attention: Attention::build(&b.at("self_attn"), attention)?,
        after_attention: After::Added,
        mlp_norm: norm("post_attention_layernorm")?,
        mlp: GatedMlp::build(&b.at("mlp"), size, c.mlp_bias, c.hidden_act, std)?,
        after_mlp: After::Added,
        bottlenecks: behind(b, h),
    })
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>, member: Member) -> Result<Decoder> {
    let c = Config::read(source, member)?;
    c.check(source)?;
    let (h, std, sight) = (c.hidden_size, c.initializer_range, site.sight(source, false)?);
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("embed_tokens"), c.vocab_size, h, std)?;
    let blocks = (0..c.num_hidden_layers)
        .map(|i| Ok(Rc::new(layer(&c, (member, sight), i, &m.at("layers").at(i))?) as Rc<dyn Block>))
        .collect::<Result<Vec<_>>>()?;
    let rope =
        RopeShape { rotated: c.heads().dim, positions: c.max_position_embeddings, theta: member.theta() };
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        positions: c.max_position_embeddings,
        attention_dropout: c.attention_dropout,
        ..Shape::usual(site, sight)
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
