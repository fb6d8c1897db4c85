//! A way through the layers of a decoder-only model, packed or with a cache: what a layer sees of it, and its attention.

use super::capped::{self, Rows};
use super::seen::Seen;
use super::site::Sight;
use super::stream::Stream;
use crate::attention_mass::{AttentionMass, Looking};
use crate::kv_cache::KvCache;
use crate::peft::{BottleneckSlot, SoftPass};
use crate::rope::Angles;
use crate::{Mode, kernels};
use ragduet_torch::ops::{AttentionOptions, Segments};
use ragduet_torch::{Kind, Tensor, grad};
use std::rc::Rc;

/// A layer.
pub(super) trait Block: std::fmt::Debug {
    /// Layer `index` of the model.
    fn forward(&self, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream;
}

/// How attention scores are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scoring {
    /// Multiplies scores.
    pub scale: f64,
    /// How far one sees; none: the whole text, or what of it stands before.
    pub window: Option<i64>,
    /// Scores are cap * tanh(score / cap).
    pub cap: Option<f64>,
}

impl Scoring {
    /// Without window and cap.
    pub fn plain(scale: f64) -> Self {
        Self { scale, window: None, cap: None }
    }
}

/// One way through the layers.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub mode: Mode,
    /// 0 outside training.
    pub hidden_dropout: f64,
    pub attention_dropout: f64,
    /// One for each of the model's ropes.
    pub angles: Vec<Angles>,
    pub segments: &'a Segments,
    pub sight: Sight,
    pub soft: Option<&'a SoftPass>,
    pub cached: Option<Append<'a>>,
    /// Where what is looked at is asked for.
    pub mass: Option<&'a AttentionMass<'a>>,
    /// Where some rows only look.
    pub seen: Option<Seen<'a>>,
}

/// How new tokens join a cache.
#[derive(Debug)]
pub(super) struct Append<'a> {
    pub cache: &'a KvCache,
    /// Where k and v of each token go: sequence * capacity + position.
    pub slots: Tensor,
    /// Lengths with the new tokens.
    pub lengths: Vec<i64>,
    pub route: Route,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    /// All sequences are new: attention among the new tokens.
    Prompt,
    /// A token for each.
    Token,
    /// Anything else.
    Several,
}

impl Pass<'_> {
    /// The stream behind a sub-layer that gave `x` (compute dtype).
    pub fn behind(&self, slot: &BottleneckSlot, carry: Tensor, x: Tensor) -> Stream {
        Stream::behind(slot, carry, x, self.hidden_dropout, self.mode)
    }

    /// The angles of the model's rope `rope`; none where a layer does not rotate.
    pub fn angles(&self, rope: Option<usize>) -> Option<&Angles> {
        rope.and_then(|i| self.angles.get(i))
    }

    /// Attention within each text: `q` [tokens, heads, d], `k` and `v` [tokens, kv_heads, d] -> [tokens, heads * d].
    pub fn attend(&self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor, scoring: Scoring) -> Tensor {
        let Scoring { scale, window, cap } = scoring;
        let (causal, sight) = (self.sight == Sight::Causal, self.sight);
        if let Some(mass) = self.mass {
            mass.add(q, k, v, self.segments, self.segments, Looking { scale, causal, window, cap });
        }
        let packed = || {
            let o = AttentionOptions { scale, dropout: self.attention_dropout, causal, window };
            if let Some(seen) = &self.seen {
                return seen.attend([q, k, v], sight, &o, cap);
            }
            let plain = |q: &_, k: &_, v: &_, s: &_| match cap {
                None => kernels::varlen_attention(q, k, v, s, &o),
                Some(_) => {
                    let rows = Rows { queries: s, keys: s, first: None, sight };
                    capped::attend([q, k, v], &rows, scoring, self.attention_dropout)
                }
            };
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
                    Route::Token | Route::Several if cap.is_some() => {
                        filled(q, [keys, values], self.segments, &a.lengths, scoring)
                    }
                    Route::Token => kernels::cached_attention(q, keys, values, &a.lengths, scale, window),
                    Route::Several => several(q, keys, values, self.segments, &a.lengths, scale, window),
                }
            }
        };
        mixed.flatten(1, 2)
    }
}

/// New tokens on a filled cache, with capped scores.
fn filled(
    q: &Tensor,
    [keys, values]: [&Tensor; 2],
    segments: &Segments,
    lengths: &[i64],
    scoring: Scoring,
) -> Tensor {
    let held = |t: &Tensor| {
        let cut = |(i, &n): (usize, &i64)| t.get(i as i64).narrow(0, 0, n);
        Tensor::cat(&lengths.iter().enumerate().map(cut).collect::<Vec<_>>(), 0)
    };
    let first: Vec<i64> = segments.lengths().zip(lengths).map(|(new, &whole)| whole - new).collect();
    let whole: Vec<usize> = lengths.iter().map(|&n| n as usize).collect();
    let keys_of = Segments::new(&whole, q.device());
    let rows = Rows { queries: segments, keys: &keys_of, first: Some(&first), sight: Sight::Causal };
    capped::attend([q, &held(keys), &held(values)], &rows, scoring, 0.0)
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
pub(super) fn recomputed(block: &Rc<dyn Block>, index: usize, stream: Stream, pass: &Pass<'_>) -> Stream {
    let device = stream.carry.device();
    let (block, segments) = (Rc::clone(block), pass.segments.share());
    let share = |all: &[Angles]| -> Vec<Angles> {
        all.iter().map(|(cos, sin)| (cos.shallow_clone(), sin.shallow_clone())).collect()
    };
    let angles = share(&pass.angles);
    let (mode, hidden_dropout, attention_dropout) = (pass.mode, pass.hidden_dropout, pass.attention_dropout);
    assert!(pass.seen.is_none(), "what encoders alone do is not recomputed");
    let sight = pass.sight;
    let prefix = pass.soft.and_then(|s| s.prefix().get(index));
    let soft = pass.soft.map(|s| s.in_layer(index, None));
    let pends = stream.pending.is_some();
    let forward = move |x: &[Tensor]| {
        let angles = share(&angles);
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
            sight,
            soft: soft.as_ref(),
            cached: None,
            mass: None,
            seen: None,
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
