//! T5: Raffel et al., 2020 (arXiv 1910.10683), and its version 1.1, from which Flan-T5 (Chung et al., 2022, arXiv
//! 2210.11416), mT5 (Xue et al., 2021, arXiv 2010.11934) and umT5 (Chung et al., 2023, arXiv 2304.09151) come. As
//! transformers' `T5ForConditionalGeneration`.
//!
//! Pre-norm without means or biases, positions only in the first layer's bias (in umT5 in each layer's own), scores not
//! scaled.

use super::relative::{Buckets, Layout, RelativeBias};
use super::stream::{Norm, Stream};
use super::t5_config::{Config, Version, head_kind};
use super::t5_step::Step;
use crate::attention_mass::{AttentionMass, Looking, Readers};
use crate::config_source::ConfigSource;
use crate::kv_cache::{CacheShape, KvCache};
use crate::layers::lower;
use crate::lm::LmHead;
use crate::peft::{BottleneckSlot, SoftPass, SoftShape, SoftSlot, SubLayer};
use crate::seq2seq::{Seq2SeqCache, Seq2SeqLm};
use crate::{Activation, Embedding, Linear, Mode, PackedTokens, Result, RmsNorm};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Kind, ParamBuilder, Tensor, no_grad};

#[derive(Debug)]
struct Attention {
    norm: Norm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Attention {
    fn build(c: &Config, name: &str, b: &ParamBuilder) -> Result<Self> {
        let (h, inner, f) = (c.d_model, c.num_heads * c.d_kv, c.initializer_factor);
        let std = |n: i64| f * (n as f64).powf(-0.5);
        let a = b.at(name);
        // Queries start smaller because scores are not scaled.
        Ok(Self {
            norm: Norm::Rms(RmsNorm::build(&b.at("layer_norm"), h, c.layer_norm_epsilon)?),
            q: Linear::build(&a.at("q"), h, inner, false, std(h * c.d_kv))?,
            k: Linear::build(&a.at("k"), h, inner, false, std(h))?,
            v: Linear::build(&a.at("v"), h, inner, false, std(h))?,
            out: Linear::build(&a.at("o"), inner, h, false, std(inner))?,
        })
    }
}

#[derive(Debug)]
struct FeedForward {
    norm: Norm,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    fn build(c: &Config, (activation, gated): (Activation, bool), b: &ParamBuilder) -> Result<Self> {
        let (h, f) = (c.d_model, c.initializer_factor);
        let d = b.at("DenseReluDense");
        let std = |n: i64| f * (n as f64).powf(-0.5);
        let into = |name: &str| Linear::build(&d.at(name), h, c.d_ff, false, std(h));
        Ok(Self {
            norm: Norm::Rms(RmsNorm::build(&b.at("layer_norm"), h, c.layer_norm_epsilon)?),
            gate: if gated { Some(into("wi_0")?) } else { None },
            up: into(if gated { "wi_1" } else { "wi" })?,
            down: Linear::build(&d.at("wo"), c.d_ff, h, false, std(c.d_ff))?,
            activation,
        })
    }

    fn forward(&self, x: &Tensor, dropout: f64, m: Mode) -> Tensor {
        let inner = match &self.gate {
            None => self.up.forward_activated(x, self.activation, m),
            Some(gate) => {
                let parts = Linear::forward_joined(&[gate, &self.up], x, m).chunk(2, -1);
                self.activation.apply(&parts[0]) * &parts[1]
            }
        };
        self.down.forward(&drop(inner, dropout), m)
    }
}

fn drop(x: Tensor, p: f64) -> Tensor {
    if p > 0.0 { x.dropout(p, true) } else { x }
}

#[derive(Debug)]
struct Layer {
    own: Attention,
    /// A decoder's look at the source.
    cross: Option<Attention>,
    feed_forward: FeedForward,
    /// Behind self-attention and feed-forward.
    bottlenecks: [BottleneckSlot; 2],
}

/// The encoder or the decoder.
#[derive(Debug)]
struct Stack {
    layers: Vec<Layer>,
    /// One for all layers, or one for each.
    bias: Vec<RelativeBias>,
    norm: RmsNorm,
}

/// One way through a stack: how attention is computed, given the layer's number.
struct Pass<'a> {
    mode: Mode,
    dropout: f64,
    /// Of q, k, v.
    own: &'a dyn Fn(usize, &Tensor, &Tensor, &Tensor) -> Tensor,
    /// Of q, over the source.
    cross: &'a dyn Fn(usize, &Attention, &Tensor) -> Tensor,
}

impl Pass<'_> {
    /// The stream behind a sub-layer that gave `x` (compute dtype).
    fn behind(&self, slot: &BottleneckSlot, carry: Tensor, x: Tensor) -> Stream {
        Stream::behind(slot, carry, x, self.dropout, self.mode)
    }
}

impl Stack {
    /// `each`: whether every layer has a position bias of its own.
    fn build(
        c: &Config,
        feed_forward: (Activation, bool),
        (decoder, each): (bool, bool),
        b: &ParamBuilder,
    ) -> Result<Self> {
        let n = if decoder { c.num_decoder_layers.unwrap_or(c.num_layers) } else { c.num_layers };
        let layer = |i: i64| {
            let b = b.at("block").at(i).at("layer");
            let last = 1 + i64::from(decoder);
            let behind = |at: i64, sub| BottleneckSlot::build(&b.at(at), c.d_model, sub);
            Ok(Layer {
                own: Attention::build(c, "SelfAttention", &b.at(0))?,
                cross: if decoder { Some(Attention::build(c, "EncDecAttention", &b.at(1))?) } else { None },
                feed_forward: FeedForward::build(c, feed_forward, &b.at(last))?,
                bottlenecks: [behind(0, SubLayer::Attention), behind(last, SubLayer::FeedForward)],
            })
        };
        let buckets =
            Buckets { count: c.relative_attention_num_buckets, reach: c.relative_attention_max_distance };
        let std = c.initializer_factor * (c.d_model as f64).powf(-0.5);
        let bias = |i: i64| {
            let at = b.at("block").at(i).at("layer").at(0).at("SelfAttention").at("relative_attention_bias");
            RelativeBias::build(&at, &buckets, !decoder, c.num_heads, std)
        };
        Ok(Self {
            layers: (0..n).map(layer).collect::<Result<_>>()?,
            bias: (0..if each { n } else { 1 }).map(bias).collect::<Result<_>>()?,
            norm: RmsNorm::build(&b.at("final_layer_norm"), c.d_model, c.layer_norm_epsilon)?,
        })
    }

    /// Self-attention's layout for all layers, or for each.
    fn layouts(&self, segs: &Segments, m: Mode, device: Device) -> Vec<Layout> {
        let (n, options) = (segs.longest(), (m.compute.kind(), device));
        self.bias.iter().map(|b| Layout::new(segs, segs, Some(&b.last(n, n, m)), options)).collect()
    }

    /// [tokens, hidden] embeddings -> hidden states, f32.
    fn run(&self, embedded: Tensor, heads: i64, pass: &Pass<'_>) -> Tensor {
        let (p, m) = (pass.dropout, pass.mode);
        let mut stream = Stream { carry: drop(embedded, p), pending: None };
        for (i, layer) in self.layers.iter().enumerate() {
            let (carry, x) = layer.own.norm.add_then_norm(&stream, p, m);
            let a = &layer.own;
            let qkv = Linear::forward_joined(&[&a.q, &a.k, &a.v], &x, m).chunk(3, -1);
            let [q, k, v] = [0, 1, 2].map(|n| by_head(&qkv[n], heads));
            let mixed = (pass.own)(i, &q, &k, &v).flatten(1, 2);
            stream = pass.behind(&layer.bottlenecks[0], carry, a.out.forward(&mixed, m));
            if let Some(a) = &layer.cross {
                let (carry, x) = a.norm.add_then_norm(&stream, p, m);
                let q = by_head(&a.q.forward(&x, m), heads);
                let mixed = (pass.cross)(i, a, &q).flatten(1, 2);
                stream = Stream { carry, pending: Some(a.out.forward(&mixed, m)) };
            }
            let (carry, x) = layer.feed_forward.norm.add_then_norm(&stream, p, m);
            stream = pass.behind(&layer.bottlenecks[1], carry, layer.feed_forward.forward(&x, p, m));
        }
        let rest = stream.pending.map(|x| drop(x.to_kind(Kind::Float), p));
        let x = rest.map_or(stream.carry.shallow_clone(), |x| &stream.carry + x);
        drop(self.norm.forward(&x), p)
    }
}

/// [rows, heads * d] -> [rows, heads, d].
fn by_head(x: &Tensor, heads: i64) -> Tensor {
    x.unflatten(-1, [heads, -1])
}

#[derive(Debug)]
pub(super) struct T5 {
    words: Embedding,
    encoder: Stack,
    decoder: Stack,
    head: Linear,
    soft: SoftSlot,
    /// Of the head's input.
    scale: f64,
    heads: i64,
    head_dim: i64,
    vocab: i64,
    hidden: i64,
    dropout: f64,
    attention_dropout: f64,
}

pub(super) fn build(source: &ConfigSource<'_>, version: Version, b: &ParamBuilder) -> Result<T5> {
    let c: Config = source.parse()?;
    if c.relative_attention_num_buckets < 4 || c.relative_attention_num_buckets % 2 != 0 {
        return source.unsupported("relative_attention_num_buckets", "an even number from 4");
    }
    if c.relative_attention_max_distance <= c.relative_attention_num_buckets / 2 {
        return source.unsupported("relative_attention_max_distance", "more than half the number of buckets");
    }
    if c.num_heads < 1 || c.d_kv < 1 {
        return source.unsupported("num_heads", "at least 1, as for d_kv");
    }
    let words = Embedding::build(&b.at("shared"), c.vocab_size, c.d_model, c.initializer_factor)?;
    let at = b.at("lm_head");
    let (tied, scaled) = head_kind(source, version, at.has("weight"));
    let head = if tied {
        Linear::tied(&at, words.weight())
    } else {
        Linear::build(&at, c.d_model, c.vocab_size, false, c.initializer_factor)?
    };
    let feed_forward = c.feed_forward(source, version)?;
    let each = version == Version::Umt5;
    Ok(T5 {
        encoder: Stack::build(&c, feed_forward, (false, each), &b.at("encoder"))?,
        decoder: Stack::build(&c, feed_forward, (true, each), &b.at("decoder"))?,
        words,
        head,
        soft: SoftSlot::build(
            b,
            SoftShape {
                layers: c.num_decoder_layers.unwrap_or(c.num_layers),
                kv_heads: c.num_heads,
                head_dim: c.d_kv,
                hidden: c.d_model,
                embedding_scale: 1.0,
                encoder_decoder: true,
            },
        ),
        scale: if scaled { (c.d_model as f64).powf(-0.5) } else { 1.0 },
        heads: c.num_heads,
        head_dim: c.d_kv,
        vocab: c.vocab_size,
        hidden: c.d_model,
        dropout: c.dropout_rate,
        attention_dropout: c.dropout_rate,
    })
}

/// What is a layer's: its own, or the one that all share.
fn of(each: &[Layout], layer: usize) -> &Layout {
    &each[layer.min(each.len() - 1)]
}

impl T5 {
    /// k and v of the source for a decoder's layer.
    fn source_keys(&self, a: &Attention, encoded: &Tensor, m: Mode) -> (Tensor, Tensor) {
        let kv = Linear::forward_joined(&[&a.k, &a.v], encoded, m).chunk(2, -1);
        (by_head(&kv[0], self.heads), by_head(&kv[1], self.heads))
    }

    /// Borders of the sources in `encoded`, which holds a prompt's rows, too.
    ///
    /// # Panics
    /// Where `encoded` has been made with another adapter.
    fn encoded_segments(&self, sources: &Segments, encoded: &Tensor, mode: Mode) -> Segments {
        let rows = encoded.size()[0];
        let longer = self.soft.with_prompt(sources, mode, encoded.device());
        let segments = longer.filter(|_| rows != sources.tokens()).unwrap_or_else(|| sources.share());
        assert_eq!(segments.tokens(), rows, "sources encoded with the adapter that they are decoded with");
        segments
    }

    /// [`Seq2SeqLm::decode`], and what it looks at where that is asked for.
    fn decode_seen(
        &self,
        targets: &PackedTokens,
        encoded: &Tensor,
        sources: &Segments,
        mode: Mode,
        mass: Option<&AttentionMass<'_>>,
    ) -> Tensor {
        let segs = &targets.segments;
        let options = (mode.compute.kind(), targets.ids.device());
        let prefix = SoftPass::of(&self.soft, segs, &targets.ids, mode).filter(|s| !s.is_prompt());
        let whole = prefix.as_ref().map_or(segs, SoftPass::longer);
        let own = self.decoder.layouts(whole, mode, options.1);
        let behind = self.encoded_segments(sources, encoded, mode);
        let across = Layout::new(segs, &behind, None, options);
        let encoded = lower(encoded, mode);
        let dropout = mode.dropout(self.attention_dropout);
        let pass = Pass {
            mode,
            dropout: mode.dropout(self.dropout),
            own: &|layer, q, k, v| match &prefix {
                Some(p) => {
                    p.attend(layer, [q, k, v], segs, |q, k, v, _| of(&own, layer).attend(q, k, v, dropout))
                }
                None => of(&own, layer).attend(q, k, v, dropout),
            },
            cross: &|_, a, q| {
                let (k, v) = self.source_keys(a, &encoded, mode);
                if let Some(mass) = mass {
                    mass.add(
                        q,
                        &k,
                        &v,
                        segs,
                        &behind,
                        Looking { scale: 1.0, causal: false, window: None, cap: None },
                    );
                }
                across.attend(q, &k, &v, dropout)
            },
        };
        self.decoder.run(self.words.forward(&targets.ids, mode), self.heads, &pass)
    }
}

impl Seq2SeqLm for T5 {
    fn encode(&self, sources: &PackedTokens, mode: Mode) -> Tensor {
        let soft =
            SoftPass::of(&self.soft, &sources.segments, &sources.ids, mode).filter(SoftPass::is_prompt);
        let segs = soft.as_ref().map_or(&sources.segments, SoftPass::longer);
        let own = self.encoder.layouts(segs, mode, sources.ids.device());
        let dropout = mode.dropout(self.attention_dropout);
        let pass = Pass {
            mode,
            dropout: mode.dropout(self.dropout),
            own: &|layer, q, k, v| of(&own, layer).attend(q, k, v, dropout),
            cross: &|_, _, q| q.shallow_clone(),
        };
        let embedded = self.words.forward(&sources.ids, mode);
        let embedded = match &soft {
            Some(soft) => soft.embed(embedded),
            None => embedded,
        };
        self.encoder.run(embedded, self.heads, &pass)
    }

    fn decode(&self, targets: &PackedTokens, encoded: &Tensor, sources: &Segments, mode: Mode) -> Tensor {
        self.decode_seen(targets, encoded, sources, mode, None)
    }

    fn attention_received(
        &self,
        targets: &PackedTokens,
        readers: &Readers,
        encoded: &Tensor,
        sources: &Segments,
        mode: Mode,
    ) -> Tensor {
        let _guard = no_grad();
        let mass = AttentionMass::of(readers);
        let _ = self.decode_seen(targets, encoded, sources, mode, Some(&mass));
        mass.mean().unwrap_or_else(|| Tensor::zeros([encoded.size()[0]], (Kind::Float, encoded.device())))
    }
    fn start_cache(&self, encoded: &Tensor, sources: &Segments, capacity: usize, mode: Mode) -> Seq2SeqCache {
        let _guard = no_grad();
        let segments = self.encoded_segments(sources, encoded, mode);
        let encoded = lower(encoded, mode);
        let cross = self.decoder.layers.iter().filter_map(|l| l.cross.as_ref());
        let cross = cross.map(|a| self.source_keys(a, &encoded, mode)).collect();
        let shape = CacheShape {
            layers: self.decoder.layers.len(),
            kv_heads: self.heads,
            head_dim: self.head_dim,
            compute: mode.compute,
            adapter: mode.adapter,
            device: encoded.device(),
        };
        let prefix = SoftPass::of(&self.soft, sources, &encoded, mode).filter(|s| !s.is_prompt());
        let before = prefix.as_ref().map_or(0, |p| p.rows() as usize);
        let mut own = KvCache::new(sources.len(), before + capacity, shape);
        if let Some(p) = &prefix {
            own.begin_with(p.prefix());
        }
        Seq2SeqCache::new(own, cross, &segments)
    }

    fn extend(&self, batch: &PackedTokens, cache: &mut Seq2SeqCache) -> Tensor {
        let _guard = no_grad();
        let segs = &batch.segments;
        assert_eq!(segs.len(), cache.sequences(), "a segment for each sequence of the cache");
        let mode = Mode::eval(cache.own.compute()).with(cache.own.adapter());
        let new: Vec<i64> = segs.lengths().collect();
        let whole: Vec<i64> = cache.lengths().iter().zip(&new).map(|(&l, n)| l as i64 + n).collect();
        cache.own.reserve(whole.iter().copied().max().unwrap_or(0) as usize);
        cache.seat(&new);
        let step = Step::new((&self.decoder.bias, mode), cache, segs, whole, batch.ids.device());
        let pass = Pass {
            mode,
            dropout: 0.0,
            own: &|layer, q, k, v| step.own(layer, q, k, v),
            cross: &|layer, _, q| step.cross(layer, q),
        };
        let hidden = self.decoder.run(self.words.forward(&batch.ids, mode), self.heads, &pass);
        cache.advance(&new);
        hidden
    }

    fn head(&self, mode: Mode) -> LmHead {
        let (weight, bias) = self.head.effective(mode.adapter);
        LmHead { weight, bias, scale: self.scale, cap: None }
    }

    fn logits(&self, hidden: &Tensor, mode: Mode) -> Tensor {
        self.head.forward_wide(&(hidden * self.scale), mode)
    }

    fn hidden_size(&self) -> i64 {
        self.hidden
    }

    fn vocab_size(&self) -> usize {
        self.vocab as usize
    }

    fn max_tokens(&self) -> Option<usize> {
        None
    }

    fn layers(&self) -> usize {
        self.encoder.layers.len() + self.decoder.layers.len()
    }

    fn depth_of(&self, parameter: &str) -> Option<usize> {
        if parameter == "shared.weight" {
            return Some(0);
        }
        let of = |side: &str| parameter.strip_prefix(side)?.split('.').next()?.parse::<usize>().ok();
        let decoder = || of("decoder.block.").map(|n| n + self.encoder.layers.len());
        of("encoder.block.").or_else(decoder).map(|n| n + 1)
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        self.dropout = hidden.unwrap_or(self.dropout);
        self.attention_dropout = attention.unwrap_or(self.attention_dropout);
    }
}
