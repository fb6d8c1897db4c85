//! ModernBERT: Warner et al., 2024 (arXiv 2412.13663). Pre-norm, rotary positions, gated feed-forward, and
//! attention that is global in every n-th layer and local in the others. As transformers' `ModernBertModel`.

use super::relative::SeenLayout;
use super::stream::behind;
use crate::config_source::ConfigSource;
use crate::encoder::{Encoder, depth_by_prefix};
use crate::layers::lower;
use crate::peft::{BottleneckSlot, SoftPass, SoftShape, SoftSlot};
use crate::{Activation, Embedding, LayerNorm, Linear, Mode, PackedTokens, Result};
use ragduet_torch::ops::{AttentionOptions, varlen_attention};
use ragduet_torch::{Kind, ParamBuilder, Tensor};
use serde_json::Value;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    hidden_activation: Activation,
    max_position_embeddings: i64,
    initializer_range: f64,
    norm_eps: f64,
    norm_bias: bool,
    attention_bias: bool,
    attention_dropout: f64,
    embedding_dropout: f64,
    mlp_bias: bool,
    mlp_dropout: f64,
    local_attention: i64,
    global_attn_every_n_layers: i64,
    global_rope_theta: f64,
    local_rope_theta: Option<f64>,
    layer_types: Option<Vec<String>>,
    /// transformers 5 writes the rotary bases per kind of layer: `{"full_attention": {"rope_theta": ...}, ...}`, sometimes
    /// beside settings of no kind.
    rope_parameters: Option<Value>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50368,
            hidden_size: 768,
            intermediate_size: 1152,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            hidden_activation: Activation::Gelu,
            max_position_embeddings: 8192,
            initializer_range: 0.02,
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            attention_dropout: 0.0,
            embedding_dropout: 0.0,
            mlp_bias: false,
            mlp_dropout: 0.0,
            local_attention: 128,
            global_attn_every_n_layers: 3,
            global_rope_theta: 160_000.0,
            local_rope_theta: Some(10_000.0),
            layer_types: None,
            rope_parameters: None,
        }
    }
}

impl Config {
    /// Whether layer `i` attends locally.
    fn is_local(&self, i: i64) -> bool {
        match &self.layer_types {
            Some(types) => types.get(i as usize).is_some_and(|t| t == "sliding_attention"),
            None => i % self.global_attn_every_n_layers != 0,
        }
    }

    fn theta(&self, local: bool) -> f64 {
        let kind = if local { "sliding_attention" } else { "full_attention" };
        let own = self.rope_parameters.as_ref().and_then(|p| p.get(kind)?.get("rope_theta")?.as_f64());
        if let Some(theta) = own {
            return theta;
        }
        match self.local_rope_theta {
            Some(theta) if local => theta,
            _ => self.global_rope_theta,
        }
    }
}

#[derive(Debug)]
struct Block {
    /// The first layer has none: the embeddings are normalised already.
    attention_norm: Option<LayerNorm>,
    qkv: Linear,
    out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
    local: bool,
    bottlenecks: [BottleneckSlot; 2],
}

#[derive(Debug)]
pub(super) struct ModernBert {
    words: Embedding,
    norm: LayerNorm,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    soft: SoftSlot,
    config: Config,
}

/// cos and sin of the rotary angles, [tokens, 1, head_dim], f32.
type Angles = (Tensor, Tensor);

impl ModernBert {
    pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<Self> {
        let c: Config = source.parse()?;
        source.heads_divide(c.hidden_size, c.num_attention_heads, "num_attention_heads")?;
        let scaled = |r: &Value| r.get("rope_type").and_then(Value::as_str).is_some_and(|t| t != "default");
        let ropes = c.rope_parameters.iter();
        if ropes
            .flat_map(|p| std::iter::once(p).chain(p.as_object().into_iter().flat_map(|o| o.values())))
            .any(scaled)
        {
            return source.unsupported("rope_parameters", "rope_type default");
        }
        let (h, std) = (c.hidden_size, c.initializer_range);
        let norm = |b: ParamBuilder| LayerNorm::build(&b, h, c.norm_eps, c.norm_bias);
        let blocks = (0..c.num_hidden_layers)
            .map(|i| {
                let l = b.at("layers").at(i);
                let linear = |name: &str, inputs, outputs, bias| {
                    Linear::build(&l.at(name), inputs, outputs, bias, std)
                };
                Ok(Block {
                    attention_norm: if i == 0 { None } else { Some(norm(l.at("attn_norm"))?) },
                    qkv: linear("attn.Wqkv", h, 3 * h, c.attention_bias)?,
                    out: linear("attn.Wo", h, h, c.attention_bias)?,
                    mlp_norm: norm(l.at("mlp_norm"))?,
                    up: linear("mlp.Wi", h, 2 * c.intermediate_size, c.mlp_bias)?,
                    down: linear("mlp.Wo", c.intermediate_size, h, c.mlp_bias)?,
                    local: c.is_local(i),
                    bottlenecks: behind(&l, h),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            words: Embedding::build(&b.at("embeddings.tok_embeddings"), c.vocab_size, h, std)?,
            norm: norm(b.at("embeddings.norm"))?,
            blocks,
            final_norm: norm(b.at("final_norm"))?,
            soft: SoftSlot::build(
                b,
                SoftShape {
                    layers: c.num_hidden_layers,
                    kv_heads: c.num_attention_heads,
                    head_dim: h / c.num_attention_heads,
                    hidden: h,
                    embedding_scale: 1.0,
                    encoder_decoder: false,
                },
            ),
            config: c,
        })
    }

    fn angles(&self, positions: &Tensor, local: bool) -> Angles {
        let head = self.config.hidden_size / self.config.num_attention_heads;
        let theta = self.config.theta(local);
        let inverse: Vec<f32> =
            (0..head).step_by(2).map(|i| 1.0 / (theta as f32).powf(i as f32 / head as f32)).collect();
        let inverse = Tensor::from_slice(&inverse).to_device(positions.device());
        let half = positions.to_kind(Kind::Float).unsqueeze(1) * inverse.unsqueeze(0);
        let all = Tensor::cat(&[&half, &half], 1).unsqueeze(1);
        (all.cos(), all.sin())
    }
}

/// Rotates [tokens, heads, head_dim] in f32 and returns it in its own dtype.
fn rotate(x: &Tensor, (cos, sin): &Angles) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let halves = wide.chunk(2, -1);
    let turned = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
    (wide * cos + turned * sin).to_kind(x.kind())
}

impl Encoder for ModernBert {
    fn forward(&self, batch: &PackedTokens, m: Mode) -> Tensor {
        let c = &self.config;
        let head = c.hidden_size / c.num_attention_heads;
        let soft = SoftPass::of(&self.soft, &batch.segments, &batch.ids, m);
        let (mut words, mut positions) = (self.words.forward(&batch.ids, m), batch.positions.shallow_clone());
        if let Some(soft) = &soft {
            (words, positions) = (soft.embed(words), soft.positions(&positions));
        }
        let seen = SeenLayout::of(batch, None, m.compute.kind());
        assert!(
            seen.is_none() || (soft.is_none() && batch.segments.longest() <= c.local_attention / 2 + 1),
            "rows that are not seen go with no soft prompts, and in texts within the local window only"
        );
        let tokens = words.size()[0];
        let (global, local) = (self.angles(&positions, false), self.angles(&positions, true));
        let mut carry = self.norm.forward(&words, m).dropout(m.dropout(c.embedding_dropout), m.train);
        // What the last sub-layer adds to the residual; the next norm adds it in the same pass.
        let mut pending: Option<(Tensor, f64)> = None;
        for (i, block) in self.blocks.iter().enumerate() {
            let low = match (&block.attention_norm, pending.take()) {
                (Some(norm), Some((x, p))) => {
                    let (sum, low) = norm.add_then_norm(&x, &carry, p, m);
                    carry = sum;
                    low
                }
                _ => lower(&carry, m),
            };
            let qkv = block.qkv.forward(&low, m).view([tokens, 3, c.num_attention_heads, head]).unbind(1);
            let angles = if block.local { &local } else { &global };
            let options = AttentionOptions {
                scale: (head as f64).powf(-0.5),
                dropout: m.dropout(c.attention_dropout),
                causal: false,
                window: block.local.then_some(c.local_attention / 2),
            };
            let (q, k) = (rotate(&qkv[0], angles), rotate(&qkv[1], angles));
            let v = qkv[2].contiguous();
            let mix = |q: &Tensor, k: &Tensor, v: &Tensor, s: &_| match &seen {
                Some(seen) => seen.attend([q, k, v], &options),
                None => varlen_attention(q, k, v, s, &options),
            };
            let mixed = match &soft {
                Some(soft) => soft.attend(i, [&q, &k, &v], &batch.segments, mix),
                None => mix(&q, &k, &v, &batch.segments),
            };
            let x = block.out.forward(&mixed.reshape([tokens, c.hidden_size]), m);
            let dropout = m.dropout(c.attention_dropout);
            let (x, dropout) = match block.bottlenecks[0].apply(&x, &carry, None, dropout, m) {
                Some(y) => (y, 0.0),
                None => (x, dropout),
            };
            let (sum, low) = block.mlp_norm.add_then_norm(&x, &carry, dropout, m);
            carry = sum;
            let parts = block.up.forward(&low, m).chunk(2, -1);
            let gated = c.hidden_activation.apply(&parts[0]) * &parts[1];
            let gated = gated.dropout(m.dropout(c.mlp_dropout), m.train);
            let x = block.down.forward(&gated, m);
            pending = Some((block.bottlenecks[1].apply(&x, &carry, None, 0.0, m).unwrap_or(x), 0.0));
        }
        if let Some((x, _)) = pending {
            carry = &carry + x.to_kind(Kind::Float);
        }
        let hidden = self.final_norm.forward(&carry, m);
        match &soft {
            Some(soft) => soft.strip(hidden),
            None => hidden,
        }
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        if let Some(p) = hidden {
            self.config.mlp_dropout = p;
            self.config.embedding_dropout = p;
        }
        self.config.attention_dropout = attention.unwrap_or(self.config.attention_dropout);
    }

    fn hidden_size(&self) -> i64 {
        self.config.hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings as usize
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size as usize
    }

    fn layers(&self) -> usize {
        self.blocks.len()
    }

    fn truncate(&mut self, layers: usize) {
        self.blocks.truncate(layers);
    }

    fn depth_of(&self, parameter: &str) -> Option<usize> {
        depth_by_prefix(parameter, "layers.")
    }
}
