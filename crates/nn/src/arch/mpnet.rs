//! MPNet: Song et al., 2020 (arXiv 2004.09297); BERT's block with a relative position bias shared by all layers.
//! Names and buckets as transformers' `MPNetModel`.

use super::ConfigSource;
use super::bert::Config;
use super::post_norm::{Block, Names, Shape};
use crate::encoder::{Encoder, Mode, PackedTokens, depth_by_prefix};
use crate::layers::lower;
use crate::{Embedding, LayerNorm, Result};
use ragduet_torch::ops::{AttentionOptions, Segments};
use ragduet_torch::{Kind, ParamBuilder, Tensor};

const NAMES: Names = Names {
    layers: &["encoder", "layer"],
    layer_prefix: "encoder.layer.",
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
};

/// transformers fixes the padding id, and with it the first position, whatever the config says.
const FIRST_POSITION: i64 = 2;

#[derive(Debug, serde::Deserialize)]
struct Buckets {
    #[serde(default = "default_buckets")]
    relative_attention_num_buckets: i64,
}

fn default_buckets() -> i64 {
    32
}

#[derive(Debug)]
pub(super) struct MpNet {
    words: Embedding,
    places: Embedding,
    norm: LayerNorm,
    blocks: Vec<Block>,
    /// [buckets, heads].
    bias: Embedding,
    shape: Shape,
}

impl MpNet {
    pub(super) fn build(source: &ConfigSource<'_>, b: &ParamBuilder) -> Result<Self> {
        let config: Config = source.parse()?;
        config.check(source)?;
        let buckets: Buckets = source.parse()?;
        if buckets.relative_attention_num_buckets != default_buckets() {
            // transformers' own forward pass uses 32 whatever the config says.
            return source.unsupported("relative_attention_num_buckets", "32");
        }
        let shape = config.shape(FIRST_POSITION);
        let (e, encoder, s) = (b.at("embeddings"), b.at("encoder"), &shape);
        Ok(Self {
            words: Embedding::build(&e.at("word_embeddings"), s.vocab, s.hidden, s.init_std)?,
            places: Embedding::build(&e.at("position_embeddings"), s.positions, s.hidden, s.init_std)?,
            norm: LayerNorm::build(&e.at("LayerNorm"), s.hidden, s.eps, true)?,
            blocks: (0..s.layers)
                .map(|i| Block::build(&encoder.at("layer").at(i), s, &NAMES))
                .collect::<Result<_>>()?,
            bias: Embedding::build(&encoder.at("relative_attention_bias"), 32, s.heads, s.init_std)?,
            shape,
        })
    }

    /// [heads, longest, longest], added to the scaled scores.
    fn position_bias(&self, longest: i64, like: &Tensor) -> Tensor {
        let buckets: Vec<i64> =
            (0..longest).flat_map(|query| (0..longest).map(move |key| bucket(key - query))).collect();
        let ids = Tensor::from_slice(&buckets).to_device(like.device());
        self.bias.forward(&ids).view([longest, longest, self.shape.heads]).permute([2, 0, 1])
    }
}

/// T5's bidirectional bucket of a relative position (key - query), 32 buckets up to distance 128.
fn bucket(relative: i64) -> i64 {
    let (half, exact) = (16i64, 8i64);
    let n = relative.abs();
    let within = if n < exact {
        n
    } else {
        let grown =
            ((n as f32 / exact as f32).ln() / (128.0f32 / exact as f32).ln() * (half - exact) as f32) as i64;
        (exact + grown).min(half - 1)
    };
    within + if relative > 0 { half } else { 0 }
}

/// Attention with an additive bias, text by text: the kernels for packed rows take none.
fn biased(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    segs: &Segments,
    o: &AttentionOptions,
) -> Tensor {
    let lengths: Vec<i64> = segs.lengths().collect();
    let split = |t: &Tensor| t.split_with_sizes(&lengths, 0);
    let rows: Vec<Tensor> = split(q)
        .iter()
        .zip(split(k).iter().zip(split(v).iter()))
        .map(|(q, (k, v))| {
            let heads = |t: &Tensor| t.transpose(0, 1).unsqueeze(0);
            let n = q.size()[0];
            let mask = bias.narrow(1, 0, n).narrow(2, 0, n).unsqueeze(0).to_kind(q.kind());
            Tensor::scaled_dot_product_attention(
                &heads(q),
                &heads(k),
                &heads(v),
                Some(&mask),
                o.dropout,
                false,
                Some(o.scale),
                false,
            )
            .squeeze_dim(0)
            .transpose(0, 1)
        })
        .collect();
    Tensor::cat(&rows, 0)
}

impl Encoder for MpNet {
    fn forward(&self, batch: &PackedTokens, m: Mode) -> Tensor {
        let s = &self.shape;
        let x = self.words.forward(&batch.ids) + self.places.forward(&(&batch.positions + s.first_position));
        let mut carry = self.norm.forward(&x).dropout(m.dropout(s.dropout), m.train);
        let mut low = lower(&carry, m.compute);
        let bias = self.position_bias(batch.segments.longest(), &x).to_kind(Kind::Float);
        for block in &self.blocks {
            (carry, low) =
                block.forward((&carry, &low), s, m, |q, k, v, o| biased(q, k, v, &bias, &batch.segments, o));
        }
        carry
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        self.shape.set_dropout(hidden, attention);
    }

    fn hidden_size(&self) -> i64 {
        self.shape.hidden
    }

    fn max_tokens(&self) -> usize {
        (self.shape.positions - self.shape.first_position) as usize
    }

    fn vocab_size(&self) -> usize {
        self.shape.vocab as usize
    }

    fn layers(&self) -> usize {
        self.blocks.len()
    }

    fn depth_of(&self, parameter: &str) -> Option<usize> {
        depth_by_prefix(parameter, NAMES.layer_prefix)
    }
}
