//! GPT-NeoX and Pythia: Black et al., 2022 (arXiv 2204.06745); Biderman et al., 2023 (2304.01373). Attention and
//! feed-forward side by side, rotary positions on a part of each head. As transformers' `GPTNeoXForCausalLM`.
//!
//! Saved with `rotary_pct`, the key that transformers reads, beside the one it writes.

use super::decoder::{Decoder, Shape};
use super::pass::{Block, Pass, Scoring};
use super::site::Site;
use super::stream::{Norm, Stream, behind};
use crate::config_source::ConfigSource;
use crate::layers::lower;
use crate::peft::BottleneckSlot;
use crate::rope::{Rope, RopeShape};
use crate::{Activation, Embedding, LayerNorm, Linear, Result, kernels};
use ragduet_torch::{Kind, ParamBuilder, Tensor};
use std::rc::Rc;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    hidden_act: Activation,
    attention_dropout: f64,
    hidden_dropout: f64,
    max_position_embeddings: i64,
    initializer_range: f64,
    layer_norm_eps: f64,
    tie_word_embeddings: bool,
    use_parallel_residual: bool,
    attention_bias: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50432,
            hidden_size: 6144,
            num_hidden_layers: 44,
            num_attention_heads: 64,
            intermediate_size: 24576,
            hidden_act: Activation::Gelu,
            attention_dropout: 0.0,
            hidden_dropout: 0.0,
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            layer_norm_eps: 1e-5,
            tie_word_embeddings: false,
            use_parallel_residual: true,
            attention_bias: true,
        }
    }
}

/// The rotating share of a head: `rotary_pct`, or where transformers 5 keeps it.
pub(super) fn rotary_share(source: &ConfigSource<'_>) -> f64 {
    let in_parameters = || source.json.get("rope_parameters")?.get("partial_rotary_factor")?.as_f64();
    source.number("rotary_pct").or_else(in_parameters).unwrap_or(0.25)
}

#[derive(Debug)]
struct Layer {
    attention_norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
    bottlenecks: [BottleneckSlot; 2],
    activation: Activation,
    heads: i64,
    head_dim: i64,
    parallel: bool,
}

impl Layer {
    fn build(c: &Config, b: &ParamBuilder) -> Result<Self> {
        let (h, std) = (c.hidden_size, c.initializer_range);
        let linear =
            |name: &str, inputs, outputs, bias| Linear::build(&b.at(name), inputs, outputs, bias, std);
        let norm = |name: &str| LayerNorm::build(&b.at(name), h, c.layer_norm_eps, true);
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            qkv: linear("attention.query_key_value", h, 3 * h, c.attention_bias)?,
            out: linear("attention.dense", h, h, c.attention_bias)?,
            mlp_norm: norm("post_attention_layernorm")?,
            up: linear("mlp.dense_h_to_4h", h, c.intermediate_size, true)?,
            down: linear("mlp.dense_4h_to_h", c.intermediate_size, h, true)?,
            bottlenecks: behind(b, h),
            activation: c.hidden_act,
            heads: c.num_attention_heads,
            head_dim: h / c.num_attention_heads,
            parallel: c.use_parallel_residual,
        })
    }
}

impl Block for Layer {
    /// What a layer adds is summed at its end, because the two parts drop out separately.
    fn forward(&self, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream {
        let dropped = |at: usize, x: Tensor, residual: &Tensor| {
            let (p, m) = (pass.hidden_dropout, pass.mode);
            match self.bottlenecks[at].apply(&x, residual, None, p, m) {
                Some(y) => y.to_kind(Kind::Float),
                None if p > 0.0 => x.to_kind(Kind::Float).dropout(p, true),
                None => x.to_kind(Kind::Float),
            }
        };
        let x = stream.carry;
        let normed = lower(&self.attention_norm.forward(&x, pass.mode), pass.mode);
        // The product's rows are q, k and v of the first head, then of the second...
        let qkv = self.qkv.forward(&normed, pass.mode).view([-1, self.heads, 3, self.head_dim]);
        let [mut q, mut k, v] = [0, 1, 2].map(|i| qkv.select(2, i));
        if let Some((cos, sin)) = pass.angles(Some(0)) {
            (q, k) = (kernels::rope(&q, cos, sin), kernels::rope(&k, cos, sin));
        }
        let scoring = Scoring::plain((self.head_dim as f64).powf(-0.5));
        let mixed = pass.attend(index, &q, &k, &v, scoring);
        let attended = dropped(0, self.out.forward(&mixed, pass.mode), &x);
        let mlp = |x: &Tensor| {
            let normed = lower(&self.mlp_norm.forward(x, pass.mode), pass.mode);
            let inner = self.up.forward_activated(&normed, self.activation, pass.mode);
            dropped(1, self.down.forward(&inner, pass.mode), x)
        };
        let carry = if self.parallel {
            mlp(&x) + attended + x
        } else {
            let middle = attended + x;
            mlp(&middle) + middle
        };
        Stream { carry, pending: None }
    }
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    source.heads_divide(c.hidden_size, c.num_attention_heads, "num_attention_heads")?;
    let (h, std) = (c.hidden_size, c.initializer_range);
    let head_dim = h / c.num_attention_heads;
    let rotated = (head_dim as f64 * rotary_share(source)) as i64;
    if rotated % 2 != 0 {
        return source.unsupported("rotary_pct", "an even number of rotating dimensions per head");
    }
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("embed_in"), c.vocab_size, h, std)?;
    let blocks = (0..c.num_hidden_layers)
        .map(|i| Ok(Rc::new(Layer::build(&c, &m.at("layers").at(i))?) as Rc<dyn Block>))
        .collect::<Result<Vec<_>>>()?;
    let theta = source.number("rotary_emb_base").unwrap_or(10_000.0);
    let rope = RopeShape { rotated, positions: c.max_position_embeddings, theta };
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.num_attention_heads,
        head_dim,
        positions: c.max_position_embeddings,
        embedding_dropout: c.hidden_dropout,
        hidden_dropout: c.hidden_dropout,
        attention_dropout: c.attention_dropout,
        embeddings: &["embed_in.weight"],
        ..Shape::usual(site, site.sight(source, false)?)
    };
    Ok(Decoder {
        words,
        places: None,
        ropes: vec![Rope::build(source, rope, b.device())?],
        norm: Norm::Layer(LayerNorm::build(&m.at("final_layer_norm"), h, c.layer_norm_eps, true)?),
        head,
        soft: shape.soft(b, blocks.len()),
        blocks,
        shape,
        recompute: false,
    })
}
