//! OLMo 2 (Team OLMo, 2025, arXiv 2501.00656): norms behind attention and feed-forward instead of before them, and norms of
//! q and k over all heads. As transformers' `Olmo2ForCausalLM`.

use super::attention::{Attention, AttentionShape, QkNorms};
use super::decoder::{Decoder, Shape};
use super::gated_mlp::GatedMlp;
use super::heads::Heads;
use super::pass::{Block, Pass, Scoring};
use super::site::Site;
use super::stream::{Norm, Stream, behind};
use crate::config_source::ConfigSource;
use crate::layers::lower;
use crate::peft::BottleneckSlot;
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50304,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            attention_bias: false,
            attention_dropout: 0.0,
        }
    }
}

impl Config {
    fn heads(&self) -> Heads {
        Heads::new(self.hidden_size, self.num_attention_heads, self.num_key_value_heads, self.head_dim)
    }

    fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        self.heads().check(source)?;
        source.whole_rotation()
    }
}

#[derive(Debug)]
struct Layer {
    attention: Attention,
    after_attention: RmsNorm,
    mlp: GatedMlp,
    after_mlp: RmsNorm,
    bottlenecks: [BottleneckSlot; 2],
}

impl Layer {
    fn build(c: &Config, b: &ParamBuilder) -> Result<Self> {
        let (h, std) = (c.hidden_size, c.initializer_range);
        let norm = |name: &str| RmsNorm::build(&b.at(name), h, c.rms_norm_eps);
        let attention = AttentionShape {
            hidden: h,
            heads: c.num_attention_heads,
            kv_heads: c.heads().kv,
            head_dim: c.heads().dim,
            bias: c.attention_bias,
            out_bias: c.attention_bias,
            fused: false,
            init_std: std,
            norms: Some(QkNorms { build: RmsNorm::build, eps: c.rms_norm_eps, whole: true }),
            scoring: Scoring::plain((c.heads().dim as f64).powf(-0.5)),
            rope: Some(0),
        };
        Ok(Self {
            attention: Attention::build(&b.at("self_attn"), attention)?,
            after_attention: norm("post_attention_layernorm")?,
            mlp: GatedMlp::build(&b.at("mlp"), [h, c.intermediate_size], false, c.hidden_act, std)?,
            after_mlp: norm("post_feedforward_layernorm")?,
            bottlenecks: behind(b, h),
        })
    }
}

impl Block for Layer {
    fn forward(&self, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream {
        let carry = stream.settled(pass.hidden_dropout);
        let x = self.attention.forward(index, &lower(&carry, pass.mode), pass);
        let stream = pass.behind(&self.bottlenecks[0], carry, self.after_attention.forward(&x));
        let carry = stream.settled(pass.hidden_dropout);
        let x = self.mlp.forward(&lower(&carry, pass.mode), pass.mode);
        pass.behind(&self.bottlenecks[1], carry, self.after_mlp.forward(&x))
    }
}

pub(super) fn build(source: &ConfigSource<'_>, site: &Site<'_>) -> Result<Decoder> {
    let c: Config = source.parse()?;
    c.check(source)?;
    let (h, std) = (c.hidden_size, c.initializer_range);
    let (b, m) = (site.root(), site.body());
    let words = Embedding::build(&m.at("embed_tokens"), c.vocab_size, h, std)?;
    let blocks = (0..c.num_hidden_layers)
        .map(|i| Ok(Rc::new(Layer::build(&c, &m.at("layers").at(i))?) as Rc<dyn Block>))
        .collect::<Result<Vec<_>>>()?;
    let rope = RopeShape { rotated: c.heads().dim, positions: c.max_position_embeddings, theta: 10_000.0 };
    let head = site.head(&words, c.tie_word_embeddings, std)?;
    let shape = Shape {
        vocab: c.vocab_size,
        hidden: h,
        kv_heads: c.heads().kv,
        head_dim: c.heads().dim,
        positions: c.max_position_embeddings,
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
