//! GPT-2: Radford et al., 2019. Pre-norm, learned positions, weights stored as [in, out]. As transformers'
//! `GPT2LMHeadModel`.
//!
//! `scale_attn_by_inverse_layer_idx` is honored; transformers' sdpa path ignores it, its eager path does not.

use super::decoder::{Decoder, Shape};
use super::pass::{Block, Pass, Scoring};
use super::site::Site;
use super::stream::{Norm, Stream, behind};
use crate::config_source::ConfigSource;
use crate::peft::BottleneckSlot;
use crate::{Activation, Embedding, LayerNorm, Linear, Result};
use ragduet_torch::ParamBuilder;
use std::rc::Rc;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: i64,
    n_positions: i64,
    n_embd: i64,
    n_layer: i64,
    n_head: i64,
    n_inner: Option<i64>,
    activation_function: Activation,
    resid_pdrop: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    layer_norm_epsilon: f64,
    initializer_range: f64,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    add_cross_attention: bool,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: Activation::GeluTanh,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            add_cross_attention: false,
            tie_word_embeddings: true,
        }
    }
}

#[derive(Debug)]
struct Layer {
    attention_norm: Norm,
    qkv: Linear,
    out: Linear,
    mlp_norm: Norm,
    up: Linear,
    down: Linear,
    bottlenecks: [BottleneckSlot; 2],
    activation: Activation,
    heads: i64,
    scale: f64,
}

impl Layer {
    fn build(c: &Config, index: i64, b: &ParamBuilder) -> Result<Self> {
        let (h, std) = (c.n_embd, c.initializer_range);
        let inner = c.n_inner.unwrap_or(4 * h);
        // What adds to the residual stream starts smaller the deeper the model is, as in the paper (section 2.3).
        let last = std / (2.0 * c.n_layer as f64).sqrt();
        let linear =
            |name: &str, inputs, outputs, std| Linear::build_transposed(&b.at(name), inputs, outputs, std);
        let norm = |name: &str| LayerNorm::build(&b.at(name), h, c.layer_norm_epsilon, true);
        let mut scale = 1.0;
        if c.scale_attn_weights {
            scale /= ((h / c.n_head) as f64).sqrt();
        }
        if c.scale_attn_by_inverse_layer_idx {
            scale /= (index + 1) as f64;
        }
        Ok(Self {
            attention_norm: Norm::Layer(norm("ln_1")?),
            qkv: linear("attn.c_attn", h, 3 * h, std)?,
            out: linear("attn.c_proj", h, h, last)?,
            mlp_norm: Norm::Layer(norm("ln_2")?),
            up: linear("mlp.c_fc", h, inner, std)?,
            down: linear("mlp.c_proj", inner, h, last)?,
            bottlenecks: behind(b, h),
            activation: c.activation_function,
            heads: c.n_head,
            scale,
        })
    }
}

impl Block for Layer {
    fn forward(&self, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream {
        let (carry, x) = self.attention_norm.add_then_norm(&stream, pass.hidden_dropout, pass.mode);
        let hidden = x.size()[1];
        let qkv = self.qkv.forward(&x, pass.mode).view([-1, 3, self.heads, hidden / self.heads]);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.select(1, i));
        let mixed = pass.attend(index, &q, &k, &v, Scoring::plain(self.scale));
        let stream = pass.behind(&self.bottlenecks[0], carry, self.out.forward(&mixed, pass.mode));
        let (carry, x) = self.mlp_norm.add_then_norm(&stream, pass.hidden_dropout, pass.mode);
        let inner = self.up.forward_activated(&x, self.activation, pass.mode);
        pass.behind(&self.bottlenecks[1], carry, self.down.forward(&inner, pass.mode))
    }
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    if c.add_cross_attention {
        return source.unsupported("add_cross_attention", "false");
    }
    source.heads_divide(c.n_embd, c.n_head, "n_head")?;
    let (h, std) = (c.n_embd, c.initializer_range);
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("wte"), c.vocab_size, h, std)?;
    let places = Embedding::build(&m.at("wpe"), c.n_positions, h, std)?;
    let blocks = (0..c.n_layer)
        .map(|i| Ok(Rc::new(Layer::build(&c, i, &m.at("h").at(i))?) as Rc<dyn Block>))
        .collect::<Result<Vec<_>>>()?;
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.n_head,
        head_dim: h / c.n_head,
        positions: c.n_positions,
        embedding_dropout: c.embd_pdrop,
        hidden_dropout: c.resid_pdrop,
        attention_dropout: c.attn_pdrop,
        layers_at: "h.",
        embeddings: &["wte.weight", "wpe.weight"],
        ..Shape::usual(site, site.sight(source, false)?)
    };
    Ok(Decoder {
        words,
        places: Some(places),
        ropes: Vec::new(),
        norm: Norm::Layer(LayerNorm::build(&m.at("ln_f"), h, c.layer_norm_epsilon, true)?),
        head,
        soft: shape.soft(b, blocks.len()),
        blocks,
        shape,
        recompute: false,
    })
}
