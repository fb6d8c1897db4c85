//! What decoder-only models share: embeddings, the way through the layers (packed or with a cache), the head.
//! An architecture is a [`Block`] and the names of its checkpoint.

use crate::attention_mass::{AttentionMass, Looking, Readers};
use crate::encoder::{Mode, PackedTokens, depth_by_prefix};
use crate::kv_cache::{CacheShape, KvCache};
use crate::layers::{LayerNorm, RmsNorm, lower};
use crate::lm::{CausalLm, LmHead};
use crate::peft::{BottleneckSlot, SoftPass, SoftSlot, SubLayer};
use crate::rope::{Angles, Rope};
use crate::{Embedding, Linear, kernels};
use ragduet_torch::ops::{AttentionOptions, Segments};
use ragduet_torch::{Device, Kind, ParamBuilder, Tensor, grad, grad_enabled, no_grad};
use std::rc::Rc;

/// Sizes, dropout and names.
#[derive(Debug)]
pub(super) struct Shape {
    pub vocab: i64,
    pub hidden: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    pub positions: i64,
    /// On embeddings, and on what layers add.
    pub embedding_dropout: f64,
    pub hidden_dropout: f64,
    pub attention_dropout: f64,
    /// What precedes a layer's number in parameter names.
    pub layer_prefix: &'static str,
    /// The names of embedding tables.
    pub embedding_names: &'static [&'static str],
}

/// The residual stream between two sub-layers: its value is `carry + dropout(pending)`. The sum is left to the next
/// norm, which makes it in the same pass over memory.
#[derive(Debug)]
pub(super) struct Stream {
    /// f32.
    pub carry: Tensor,
    /// Compute dtype.
    pub pending: Option<Tensor>,
}

impl Stream {
    /// The stream behind a sub-layer that gave `x` (compute dtype).
    pub fn behind(slot: &BottleneckSlot, carry: Tensor, x: Tensor, dropout: f64, m: Mode) -> Self {
        match slot.apply(&x, &carry, None, dropout, m) {
            // Its dropout is done: the next norm must not do it again.
            Some(y) => Self { carry: carry + y.to_kind(Kind::Float), pending: None },
            None => Self { carry, pending: Some(x) },
        }
    }
}

/// A layer.
pub(super) trait Block: std::fmt::Debug {
    /// Layer `index` of the model.
    fn forward(&self, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream;
}

/// The norm at the end.
#[derive(Debug)]
pub(super) enum Norm {
    Layer(LayerNorm),
    Rms(RmsNorm),
}

impl Norm {
    /// (carry + dropout(pending) in f32, its norm in the compute dtype).
    pub fn add_then_norm(&self, stream: &Stream, dropout: f64, m: Mode) -> (Tensor, Tensor) {
        match (&stream.pending, self) {
            (Some(x), Norm::Layer(n)) => n.add_then_norm(x, &stream.carry, dropout, m),
            (Some(x), Norm::Rms(n)) => n.add_then_norm(x, &stream.carry, dropout),
            (None, Norm::Layer(n)) => (stream.carry.shallow_clone(), lower(&n.forward(&stream.carry, m), m)),
            (None, Norm::Rms(n)) => (stream.carry.shallow_clone(), lower(&n.forward(&stream.carry), m)),
        }
    }

    fn forward(&self, x: &Tensor, m: Mode) -> Tensor {
        match self {
            Norm::Layer(n) => n.forward(x, m),
            Norm::Rms(n) => n.forward(x),
        }
    }
}

/// One way through the layers.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub mode: Mode,
    /// 0 outside training.
    pub hidden_dropout: f64,
    attention_dropout: f64,
    /// Of rotary models.
    pub angles: Option<Angles>,
    segments: &'a Segments,
    soft: Option<&'a SoftPass>,
    cached: Option<Append<'a>>,
    /// Where what is looked at is asked for.
    mass: Option<&'a AttentionMass<'a>>,
}

/// How new tokens join a cache.
#[derive(Debug)]
struct Append<'a> {
    cache: &'a KvCache,
    /// Where k and v of each token go: sequence * capacity + position.
    slots: Tensor,
    /// Lengths with the new tokens.
    lengths: Vec<i64>,
    route: Route,
}

#[derive(Debug, Clone, Copy)]
enum Route {
    /// All sequences are new: attention among the new tokens.
    Prompt,
    /// A token for each.
    Token,
    /// Anything else.
    Several,
}

/// The places behind a layer's two sub-layers.
pub(super) fn behind(b: &ParamBuilder, hidden: i64) -> [BottleneckSlot; 2] {
    [("attention_adapters", SubLayer::Attention), ("output_adapters", SubLayer::FeedForward)]
        .map(|(name, sub)| BottleneckSlot::build(&b.at(name), hidden, sub))
}

impl Pass<'_> {
    /// The stream behind a sub-layer that gave `x` (compute dtype).
    pub fn behind(&self, slot: &BottleneckSlot, carry: Tensor, x: Tensor) -> Stream {
        Stream::behind(slot, carry, x, self.hidden_dropout, self.mode)
    }

    /// Causal attention: `q` [tokens, heads, d], `k` and `v` [tokens, kv_heads, d] -> [tokens, heads * d].
    /// `window`: how many tokens before its own one sees.
    pub fn attend(
        &self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        scale: f64,
        window: Option<i64>,
    ) -> Tensor {
        if let Some(mass) = self.mass {
            mass.add(q, k, v, self.segments, self.segments, Looking { scale, causal: true, window });
        }
        let packed = || {
            let o = AttentionOptions { scale, dropout: self.attention_dropout, causal: true, window };
            let plain = |q: &_, k: &_, v: &_, s: &_| kernels::varlen_attention(q, k, v, s, &o);
            match self.soft {
                Some(soft) => soft.attend(layer, [q, k, v], self.segments, plain),
                None => plain(q, k, v, self.segments),
            }
        };
        let mixed = match &self.cached {
            None => packed(),
            Some(a) => {
                a.cache.write(layer, &a.slots, k, v);
                let (keys, values) = a.cache.layer(layer);
                match a.route {
                    Route::Prompt => packed(),
                    Route::Token => kernels::cached_attention(q, keys, values, &a.lengths, scale, window),
                    Route::Several => several(q, keys, values, self.segments, &a.lengths, scale, window),
                }
            }
        };
        mixed.flatten(1, 2)
    }
}

/// Several new tokens per sequence on a filled cache: sequence by sequence, with a mask. Rare (a second turn, checking a
/// draft), and short against the prompt.
fn several(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    segments: &Segments,
    lengths: &[i64],
    scale: f64,
    window: Option<i64>,
) -> Tensor {
    let heads_first = |t: Tensor| t.transpose(0, 1).unsqueeze(0);
    let rows = segments.offsets().windows(2).zip(lengths).enumerate().map(|(i, (w, &whole))| {
        let new = w[1] - w[0];
        let cut = |t: &Tensor| heads_first(t.get(i as i64).narrow(0, 0, whole));
        let own = Tensor::arange_start(whole - new, whole, (Kind::Int64, q.device())).unsqueeze(1);
        let place = Tensor::arange(whole, (Kind::Int64, q.device())).unsqueeze(0);
        let mut seen = place.le_tensor(&own);
        if let Some(window) = window {
            seen = seen.logical_and(&place.ge_tensor(&(own - window)));
        }
        let q = heads_first(q.narrow(0, w[0], new));
        let (k, v) = (cut(keys), cut(values));
        Tensor::scaled_dot_product_attention(&q, &k, &v, Some(seen), 0.0, false, scale, true)
            .squeeze_dim(0)
            .transpose(0, 1)
    });
    Tensor::cat(&rows.collect::<Vec<_>>(), 0)
}

/// A layer whose inner values are made again in the backward pass.
fn recomputed(block: &Rc<dyn Block>, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream {
    let device = stream.carry.device();
    let (block, segments) = (Rc::clone(block), pass.segments.share());
    let angles = pass.angles.as_ref().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone()));
    let (mode, hidden_dropout, attention_dropout) = (pass.mode, pass.hidden_dropout, pass.attention_dropout);
    let prefix = pass.soft.and_then(|s| s.prefix().get(index));
    let soft = pass.soft.map(|s| s.in_layer(index, None));
    let pends = stream.pending.is_some();
    let forward = move |x: &[Tensor]| {
        let angles = angles.as_ref().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone()));
        let mut x = x.iter().map(Tensor::shallow_clone);
        let Some(carry) = x.next() else { panic!("a layer without an input") };
        let pending = if pends { x.next() } else { None };
        let prefix = x.next().zip(x.next());
        let soft = soft.as_ref().map(|s| s.in_layer(index, prefix));
        let pass = Pass {
            mode,
            hidden_dropout,
            attention_dropout,
            angles,
            segments: &segments,
            soft: soft.as_ref(),
            cached: None,
            mass: None,
        };
        let stream = Stream { carry, pending };
        let out = block.forward(index, stream, &pass);
        std::iter::once(out.carry).chain(out.pending).collect()
    };
    let prefix = prefix.into_iter().flat_map(|(k, v)| [k.shallow_clone(), v.shallow_clone()]);
    let inputs: Vec<Tensor> = std::iter::once(stream.carry).chain(stream.pending).chain(prefix).collect();
    let mut out = match grad::checkpoint(device, &inputs, forward) {
        Ok(out) => out.into_iter(),
        // As every operator in a forward pass does.
        Err(e) => panic!("{e}"),
    };
    match out.next() {
        Some(carry) => Stream { carry, pending: out.next() },
        None => panic!("a layer without a result"),
    }
}

/// The model.
#[derive(Debug)]
pub(super) struct Decoder {
    pub words: Embedding,
    /// Learned positions.
    pub places: Option<Embedding>,
    pub rope: Option<Rope>,
    /// Shared with the graph where layers are recomputed.
    pub blocks: Vec<Rc<dyn Block>>,
    pub norm: Norm,
    /// Shares the embedding's weight where the two are tied.
    pub head: Linear,
    pub soft: SoftSlot,
    pub shape: Shape,
    pub recompute: bool,
}

impl Decoder {
    fn embed(&self, ids: &Tensor, positions: &Tensor, soft: Option<&SoftPass>, m: Mode) -> Stream {
        let mut x = self.words.forward(ids, m);
        if let Some(soft) = soft {
            x = soft.embed(x);
        }
        if let Some(places) = &self.places {
            x = &x + places.forward(positions, m);
        }
        let dropout = m.dropout(self.shape.embedding_dropout);
        Stream { carry: if dropout > 0.0 { x.dropout(dropout, true) } else { x }, pending: None }
    }

    fn run(&self, mut stream: Stream, pass: &Pass<'_>) -> Tensor {
        for (i, block) in self.blocks.iter().enumerate() {
            stream = if self.recompute && pass.cached.is_none() && grad_enabled() {
                recomputed(block, i, stream, pass)
            } else {
                block.forward(i, stream, pass)
            };
        }
        if let Some(x) = &stream.pending {
            let x = x.to_kind(Kind::Float);
            let x = if pass.hidden_dropout > 0.0 { x.dropout(pass.hidden_dropout, true) } else { x };
            stream.carry = &stream.carry + x;
        }
        self.norm.forward(&stream.carry, pass.mode)
    }

    /// [`CausalLm::forward`], and what is looked at where that is asked for.
    fn forward_seen(
        &self,
        batch: &PackedTokens,
        mode: Mode,
        soft: Option<&SoftPass>,
        mass: Option<&AttentionMass<'_>>,
    ) -> Tensor {
        let segments = soft.map_or(&batch.segments, |s| s.segments(&batch.segments));
        let positions =
            soft.map_or_else(|| batch.positions.shallow_clone(), |s| s.positions(&batch.positions));
        let before = soft.map_or(0, SoftPass::rows);
        let lengths: Vec<i64> = batch.segments.lengths().map(|n| n + before).collect();
        let pass = Pass {
            mode,
            hidden_dropout: mode.dropout(self.shape.hidden_dropout),
            attention_dropout: mode.dropout(self.shape.attention_dropout),
            angles: self.rope.as_ref().map(|r| r.angles(&positions, segments, &lengths)),
            segments,
            soft,
            cached: None,
            mass,
        };
        let stream = self.embed(&batch.ids, &positions, soft, mode);
        let hidden = self.run(stream, &pass);
        match soft {
            Some(s) => s.strip(hidden),
            None => hidden,
        }
    }
}

impl CausalLm for Decoder {
    fn forward(&self, batch: &PackedTokens, mode: Mode) -> Tensor {
        let soft = SoftPass::of(&self.soft, &batch.segments, &batch.ids, mode);
        self.forward_seen(batch, mode, soft.as_ref(), None)
    }

    fn attention_received(&self, batch: &PackedTokens, readers: &Readers, mode: Mode) -> Tensor {
        let _guard = no_grad();
        let soft = SoftPass::of(&self.soft, &batch.segments, &batch.ids, mode);
        let before = soft.as_ref().filter(|s| s.is_prompt()).map_or(0, SoftPass::rows);
        let readers: Vec<Vec<i64>> =
            readers.iter().map(|r| r.iter().map(|row| row + before).collect()).collect();
        let mass = AttentionMass::of(&readers);
        let _ = self.forward_seen(batch, mode, soft.as_ref(), Some(&mass));
        let seen = mass
            .mean()
            .unwrap_or_else(|| Tensor::zeros([batch.ids.size()[0]], (Kind::Float, batch.ids.device())));
        match soft {
            Some(s) => s.strip(seen),
            None => seen,
        }
    }
    fn extend(&self, batch: &PackedTokens, cache: &mut KvCache) -> Tensor {
        let _guard = no_grad();
        assert_eq!(batch.segments.len(), cache.sequences(), "a segment for each sequence of the cache");
        let mode = Mode::eval(cache.compute()).with(cache.adapter());
        // A prompt's rows are appended with the first tokens; a prefix is in the cache before them.
        let empty = cache.lengths().iter().all(|&l| l == 0);
        let soft = if empty { SoftPass::of(&self.soft, &batch.segments, &batch.ids, mode) } else { None };
        if let Some(s) = soft.as_ref().filter(|s| !s.prefix().is_empty()) {
            cache.reserve(s.rows() as usize);
            cache.begin_with(s.prefix());
        }
        let soft = soft.as_ref().filter(|s| s.prefix().is_empty());
        let segments = soft.map_or(&batch.segments, |s| s.segments(&batch.segments));
        let new: Vec<i64> = segments.lengths().collect();
        let lengths: Vec<i64> = cache.lengths().iter().zip(&new).map(|(&l, n)| l as i64 + n).collect();
        cache.reserve(lengths.iter().copied().max().unwrap_or(0) as usize);
        let route = if cache.lengths().iter().all(|&l| l == 0) {
            Route::Prompt
        } else if new.iter().all(|&n| n == 1) {
            Route::Token
        } else {
            Route::Several
        };
        let (mut positions, mut slots) = (Vec::new(), Vec::new());
        for (i, (&whole, &n)) in lengths.iter().zip(&new).enumerate() {
            positions.extend(whole - n..whole);
            slots.extend((whole - n..whole).map(|p| (i * cache.capacity()) as i64 + p));
        }
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(batch.ids.device());
        let positions = tensor(&positions);
        let pass = Pass {
            mode,
            hidden_dropout: 0.0,
            attention_dropout: 0.0,
            angles: self.rope.as_ref().map(|r| r.angles(&positions, segments, &lengths)),
            segments,
            soft: None,
            cached: Some(Append { cache, slots: tensor(&slots), lengths, route }),
            mass: None,
        };
        let hidden = self.run(self.embed(&batch.ids, &positions, soft, mode), &pass);
        cache.advance(new.into_iter());
        match soft {
            Some(s) => s.strip(hidden),
            None => hidden,
        }
    }

    fn new_cache(&self, sequences: usize, capacity: usize, mode: Mode, device: Device) -> KvCache {
        let shape = CacheShape {
            layers: self.blocks.len(),
            kv_heads: self.shape.kv_heads,
            head_dim: self.shape.head_dim,
            compute: mode.compute,
            adapter: mode.adapter,
            device,
        };
        KvCache::new(sequences, capacity, shape)
    }

    fn head(&self, mode: Mode) -> LmHead {
        let (weight, bias) = self.head.effective(mode.adapter);
        LmHead { weight, bias, scale: 1.0 }
    }

    fn logits(&self, hidden: &Tensor, mode: Mode) -> Tensor {
        self.head.forward_wide(hidden, mode)
    }

    fn hidden_size(&self) -> i64 {
        self.shape.hidden
    }

    fn vocab_size(&self) -> usize {
        self.shape.vocab as usize
    }

    fn max_tokens(&self) -> Option<usize> {
        self.places.as_ref().map(|_| self.shape.positions as usize)
    }

    fn context_length(&self) -> usize {
        self.shape.positions as usize
    }

    fn layers(&self) -> usize {
        self.blocks.len()
    }

    fn depth_of(&self, parameter: &str) -> Option<usize> {
        if self.shape.embedding_names.contains(&parameter) {
            return Some(0);
        }
        depth_by_prefix(parameter, self.shape.layer_prefix)
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        if let Some(p) = hidden {
            self.shape.hidden_dropout = p;
            self.shape.embedding_dropout = p;
        }
        self.shape.attention_dropout = attention.unwrap_or(self.shape.attention_dropout);
    }

    fn set_recompute(&mut self, on: bool) {
        self.recompute = on;
    }
}
