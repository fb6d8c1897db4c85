//! The block that BERT, RoBERTa, DistilBERT and MPNet share: self-attention and feed-forward, each followed by
//! dropout, residual and LayerNorm. The families differ in names, which [`Names`] holds.

use super::relative::{Layout, RelativeBias, SeenLayout};
use crate::encoder::{Encoder, depth_by_prefix};
use crate::layers::lower;
use crate::peft::{BottleneckSlot, SoftPass, SoftShape, SoftSlot, SubLayer};
use crate::{Activation, Embedding, LayerNorm, Linear, Mode, PackedTokens, Result};
use ragduet_torch::ops::{AttentionOptions, varlen_attention};
use ragduet_torch::{Kind, ParamBuilder, Tensor};

/// Sizes and rates of one model.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub vocab: i64,
    /// Of embeddings; where they are narrower than the layers, a projection follows.
    pub embedding: i64,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub inner: i64,
    pub positions: i64,
    /// Position of a text's first token: 0, or the padding id + 1 in RoBERTa's line.
    pub first_position: i64,
    /// Rows of the segment embedding; 0: none.
    pub types: i64,
    pub activation: Activation,
    /// After the feed-forward, and on the embeddings.
    pub dropout: f64,
    /// After the attention's output projection.
    pub out_dropout: f64,
    /// On the attention probabilities.
    pub attention_dropout: f64,
    pub eps: f64,
    pub init_std: f64,
}

impl Shape {
    pub(super) fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        if let Some(p) = hidden {
            self.dropout = p;
            // A family without dropout here keeps none.
            if self.out_dropout > 0.0 {
                self.out_dropout = p;
            }
        }
        self.attention_dropout = attention.unwrap_or(self.attention_dropout);
    }
}

/// Where a family keeps its parameters.
#[derive(Debug)]
pub(super) struct Names {
    /// Path of the list of layers.
    pub layers: &'static [&'static str],
    /// The same with dots, for [`Encoder::depth_of`].
    pub layer_prefix: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_out: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub output_norm: &'static str,
    /// Where AdapterHub puts what stands behind attention and feed-forward.
    pub bottlenecks: [&'static str; 2],
}

#[derive(Debug)]
pub(super) struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
    bottlenecks: [BottleneckSlot; 2],
}

impl Block {
    pub(super) fn build(b: &ParamBuilder, s: &Shape, n: &Names) -> Result<Self> {
        let square = |name: &str| Linear::build(&b.at(name), s.hidden, s.hidden, true, s.init_std);
        let norm = |name: &str| LayerNorm::build(&b.at(name), s.hidden, s.eps, true);
        Ok(Self {
            query: square(n.query)?,
            key: square(n.key)?,
            value: square(n.value)?,
            out: square(n.attention_out)?,
            attention_norm: norm(n.attention_norm)?,
            up: Linear::build(&b.at(n.up), s.hidden, s.inner, true, s.init_std)?,
            down: Linear::build(&b.at(n.down), s.inner, s.hidden, true, s.init_std)?,
            output_norm: norm(n.output_norm)?,
            bottlenecks: [
                BottleneckSlot::build(&b.at(n.bottlenecks[0]), s.hidden, SubLayer::Attention),
                BottleneckSlot::build(&b.at(n.bottlenecks[1]), s.hidden, SubLayer::FeedForward),
            ],
        })
    }

    /// `carry`: f32 residual; `low`: the same rows in the compute dtype. Returns both for the next block.
    /// `attend` mixes q, k, v of [tokens, heads, head_dim] within each text.
    pub(super) fn forward(
        &self,
        (carry, low): (&Tensor, &Tensor),
        s: &Shape,
        m: Mode,
        attend: impl Fn(&Tensor, &Tensor, &Tensor, &AttentionOptions) -> Tensor,
    ) -> (Tensor, Tensor) {
        let (tokens, head) = (low.size()[0], s.hidden / s.heads);
        let qkv = Linear::forward_joined(&[&self.query, &self.key, &self.value], low, m)
            .view([tokens, 3, s.heads, head])
            .unbind(1);
        let options = AttentionOptions {
            scale: (head as f64).powf(-0.5),
            dropout: m.dropout(s.attention_dropout),
            causal: false,
            window: None,
        };
        let mixed = attend(&qkv[0], &qkv[1], &qkv[2], &options).reshape([tokens, s.hidden]);
        let projected = self.out.forward(&mixed, m);
        let add = |at: usize, norm: &LayerNorm, x: &Tensor, carry: &Tensor, dropout: f64| match self
            .bottlenecks[at]
            .apply(x, carry, Some(norm), dropout, m)
        {
            Some(x) => norm.add(&x, carry, 0.0, m),
            None => norm.add(x, carry, dropout, m),
        };
        let (carry, low) = add(0, &self.attention_norm, &projected, carry, m.dropout(s.out_dropout));
        let inner = self.up.forward_activated(&low, s.activation, m);
        add(1, &self.output_norm, &self.down.forward(&inner, m), &carry, m.dropout(s.dropout))
    }
}

/// A whole encoder of this kind.
#[derive(Debug)]
pub(super) struct PostNorm {
    words: Embedding,
    places: Embedding,
    types: Option<Embedding>,
    norm: LayerNorm,
    /// From embeddings to the layers' size, where the two differ.
    project: Option<Linear>,
    blocks: Vec<Block>,
    /// MPNet's: buckets of relative positions to a bias per head, added to the scores of every layer.
    relative: Option<RelativeBias>,
    soft: SoftSlot,
    shape: Shape,
    names: &'static Names,
}

impl PostNorm {
    pub(super) fn build(shape: Shape, names: &'static Names, b: &ParamBuilder) -> Result<Self> {
        let e = b.at("embeddings");
        let s = &shape;
        let mut at = b.clone();
        for part in names.layers {
            at = at.at(part);
        }
        Ok(Self {
            words: Embedding::build(&e.at("word_embeddings"), s.vocab, s.embedding, s.init_std)?,
            places: Embedding::build(&e.at("position_embeddings"), s.positions, s.embedding, s.init_std)?,
            types: if s.types > 0 {
                Some(Embedding::build(&e.at("token_type_embeddings"), s.types, s.embedding, s.init_std)?)
            } else {
                None
            },
            norm: LayerNorm::build(&e.at("LayerNorm"), s.embedding, s.eps, true)?,
            project: if s.embedding == s.hidden {
                None
            } else {
                let at = b.at("embeddings_project");
                Some(Linear::build(&at, s.embedding, s.hidden, true, s.init_std)?)
            },
            blocks: (0..s.layers).map(|i| Block::build(&at.at(i), s, names)).collect::<Result<_>>()?,
            relative: None,
            soft: SoftSlot::build(
                b,
                SoftShape {
                    layers: s.layers,
                    kv_heads: s.heads,
                    head_dim: s.hidden / s.heads,
                    hidden: s.embedding,
                    embedding_scale: 1.0,
                    encoder_decoder: false,
                },
            ),
            shape,
            names,
        })
    }

    /// With a bias by relative position.
    pub(super) fn with_relative(self, bias: RelativeBias) -> Self {
        Self { relative: Some(bias), ..self }
    }
}

impl Encoder for PostNorm {
    fn forward(&self, batch: &PackedTokens, m: Mode) -> Tensor {
        let s = &self.shape;
        let soft = SoftPass::of(&self.soft, &batch.segments, &batch.ids, m);
        let (mut x, mut positions) = (self.words.forward(&batch.ids, m), batch.positions.shallow_clone());
        let mut types = batch.type_ids.shallow_clone();
        if let Some(soft) = &soft {
            (x, positions, types) = (soft.embed(x), soft.positions(&positions), soft.ids(&types));
        }
        x += self.places.forward(&(positions + s.first_position), m);
        if let Some(table) = &self.types {
            x += table.forward(&types, m);
        }
        let segs = soft.as_ref().map_or(&batch.segments, SoftPass::longer);
        let bias = self.relative.as_ref().map(|bias| bias.last(segs.longest(), segs.longest(), m));
        let seen = SeenLayout::of(batch, bias.as_ref(), m.compute.kind());
        assert!(seen.is_none() || soft.is_none(), "rows that are not seen go with no soft prompts");
        let layout = bias
            .filter(|_| seen.is_none())
            .map(|bias| Layout::new(segs, segs, Some(&bias), (m.compute.kind(), batch.ids.device())));
        let mix = |q: &Tensor, k: &Tensor, v: &Tensor, segs: &_, o: &AttentionOptions| match (&seen, &layout)
        {
            (Some(seen), _) => seen.attend([q, k, v], o),
            (None, Some(layout)) => layout.attend(&(q * o.scale), k, v, o.dropout),
            (None, None) => varlen_attention(q, k, v, segs, o),
        };
        let mut carry = self.norm.forward(&x, m).dropout(m.dropout(s.dropout), m.train);
        if let Some(project) = &self.project {
            carry = project.forward(&carry, m).to_kind(Kind::Float);
        }
        let mut low = lower(&carry, m);
        for (i, block) in self.blocks.iter().enumerate() {
            (carry, low) = block.forward((&carry, &low), s, m, |q, k, v, o| match &soft {
                Some(soft) => {
                    soft.attend(i, [q, k, v], &batch.segments, |q, k, v, segs| mix(q, k, v, segs, o))
                }
                None => mix(q, k, v, &batch.segments, o),
            });
        }
        match &soft {
            Some(soft) => soft.strip(carry),
            None => carry,
        }
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

    fn truncate(&mut self, layers: usize) {
        self.blocks.truncate(layers);
    }

    fn depth_of(&self, parameter: &str) -> Option<usize> {
        depth_by_prefix(parameter, self.names.layer_prefix)
    }
}
