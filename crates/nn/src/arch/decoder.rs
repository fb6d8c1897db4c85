//! What decoder-only models share: embeddings, the way through the layers (packed or with a cache), the head. The same
//! model is the encoder of a retriever ([`Encoder`]), with attention to both sides where its config says so.
//! An architecture is a [`Block`], the config it is built from and a row in the table of `arch/mod.rs`.
//!
//! The way through the layers, packed or with a cache, exists once: an architecture is a layer (`Block`) and the names
//! of its checkpoint. Generation reads the weights that `Linear` keeps joined (q, k, v; gate, up) and cast.

use super::pass::{Append, Block, Pass, Route, recomputed};
use super::seen::Seen;
use super::site::{Sight, Site};
use super::stream::{Norm, Stream};
use crate::attention_mass::{AttentionMass, Readers};
use crate::encoder::depth_by_prefix;
use crate::kv_cache::{CacheShape, KvCache};
use crate::lm::{CausalLm, LmHead};
use crate::peft::{SoftPass, SoftShape, SoftSlot};
use crate::rope::{Angles, Rope};
use crate::{Embedding, Encoder, Linear, Mode, PackedTokens};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Compute, Device, Kind, ParamBuilder, Tensor, grad_enabled, no_grad};
use std::rc::Rc;

/// Sizes, dropout and names.
#[derive(Debug)]
pub(super) struct Shape {
    pub vocab: i64,
    pub hidden: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    pub positions: i64,
    /// Multiplies token embeddings; 1: nothing does.
    pub embedding_scale: f64,
    /// Whether it multiplies the rows of a soft prompt as well, which else stand behind it.
    pub scales_prompts: bool,
    /// Multiplies logits.
    pub logit_scale: f64,
    /// Logits are cap * tanh(logit / cap).
    pub logit_cap: Option<f64>,
    /// On embeddings, and on what layers add.
    pub embedding_dropout: f64,
    pub hidden_dropout: f64,
    pub attention_dropout: f64,
    /// What tokens see.
    pub sight: Sight,
    /// What precedes parameter names.
    pub prefix: &'static str,
    /// What stands between that and a layer's number.
    pub layers_at: &'static str,
    /// The names of embedding tables.
    pub embeddings: &'static [&'static str],
}

impl Shape {
    /// What most families have in common: sizes of 0, factors of 1, no dropout, the names of Llama's family.
    pub fn usual(site: &Site<'_>, sight: Sight) -> Self {
        Self {
            vocab: 0,
            hidden: 0,
            kv_heads: 0,
            head_dim: 0,
            positions: 0,
            embedding_scale: 1.0,
            scales_prompts: false,
            logit_scale: 1.0,
            logit_cap: None,
            embedding_dropout: 0.0,
            hidden_dropout: 0.0,
            attention_dropout: 0.0,
            sight,
            prefix: site.prefix(),
            layers_at: "layers.",
            embeddings: &["embed_tokens.weight"],
        }
    }

    /// The place for prompts and prefixes.
    pub fn soft(&self, b: &ParamBuilder, layers: usize) -> SoftSlot {
        let shape = SoftShape {
            layers: layers as i64,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            hidden: self.hidden,
            embedding_scale: if self.scales_prompts { 1.0 } else { self.embedding_scale },
            encoder_decoder: false,
        };
        SoftSlot::build(b, shape)
    }
}

/// A factor as the compute dtype holds it: transformers multiplies with a tensor of the weights' dtype.
fn held(factor: f64, compute: Compute) -> f64 {
    let bits = (factor as f32).to_bits();
    let bits = match compute {
        Compute::F32 => bits,
        // To the nearest bf16, ties to the even one.
        Compute::Bf16 => (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000,
    };
    f64::from(f32::from_bits(bits))
}

/// The model.
#[derive(Debug)]
pub(super) struct Decoder {
    pub words: Embedding,
    /// Learned positions.
    pub places: Option<Embedding>,
    /// Of rotary models; a layer names its own by its place here.
    pub ropes: Vec<Rope>,
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
        let soft = |x: Tensor| match soft {
            Some(soft) => soft.embed(x),
            None => x,
        };
        if self.shape.scales_prompts {
            x = soft(x);
        }
        if self.shape.embedding_scale != 1.0 {
            x *= held(self.shape.embedding_scale, m.compute);
        }
        if !self.shape.scales_prompts {
            x = soft(x);
        }
        if let Some(places) = &self.places {
            x = &x + places.forward(positions, m);
        }
        let dropout = m.dropout(self.shape.embedding_dropout);
        Stream { carry: if dropout > 0.0 { x.dropout(dropout, true) } else { x }, pending: None }
    }

    fn angles(&self, positions: &Tensor, segments: &Segments, lengths: &[i64]) -> Vec<Angles> {
        self.ropes.iter().map(|r| r.angles(positions, segments, lengths)).collect()
    }

    fn run(&self, mut stream: Stream, pass: &Pass<'_>) -> Tensor {
        for (i, block) in self.blocks.iter().enumerate() {
            stream = if self.recompute && pass.cached.is_none() && grad_enabled() {
                recomputed(block, i, stream, pass)
            } else {
                block.forward(i, stream, pass)
            };
        }
        self.norm.forward(&stream.settled(pass.hidden_dropout), pass.mode)
    }

    fn depth(&self, parameter: &str) -> Option<usize> {
        let own = parameter.strip_prefix(self.shape.prefix)?;
        if self.shape.embeddings.contains(&own) {
            Some(0)
        } else {
            depth_by_prefix(own, self.shape.layers_at)
        }
    }

    fn drop(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        if let Some(p) = hidden {
            self.shape.hidden_dropout = p;
            self.shape.embedding_dropout = p;
        }
        self.shape.attention_dropout = attention.unwrap_or(self.shape.attention_dropout);
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
            angles: self.angles(&positions, segments, &lengths),
            segments,
            sight: self.shape.sight,
            soft,
            cached: None,
            mass,
            seen: batch.seen.as_ref().map(|_| Seen::new(batch)),
        };
        assert!(pass.seen.is_none() || soft.is_none(), "rows that are not seen go with no soft prompts");
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
            angles: self.angles(&positions, segments, &lengths),
            segments,
            soft: None,
            sight: self.shape.sight,
            cached: Some(Append { cache, slots: tensor(&slots), lengths, route }),
            mass: None,
            seen: None,
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
        LmHead { weight, bias, scale: self.shape.logit_scale, cap: self.shape.logit_cap }
    }

    fn logits(&self, hidden: &Tensor, mode: Mode) -> Tensor {
        let z = self.head.forward_wide(hidden, mode);
        let z = if self.shape.logit_scale == 1.0 { z } else { z * self.shape.logit_scale };
        match self.shape.logit_cap {
            Some(cap) => (z / cap).tanh() * cap,
            None => z,
        }
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
        self.depth(parameter)
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        self.drop(hidden, attention);
    }

    fn set_recompute(&mut self, on: bool) {
        self.recompute = on;
    }
}

/// As the encoder of a retriever.
impl Encoder for Decoder {
    fn forward(&self, batch: &PackedTokens, mode: Mode) -> Tensor {
        CausalLm::forward(self, batch, mode)
    }

    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>) {
        self.drop(hidden, attention);
    }

    fn hidden_size(&self) -> i64 {
        self.shape.hidden
    }

    fn max_tokens(&self) -> usize {
        self.shape.positions as usize
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
        self.depth(parameter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_rounded_as_the_dtype_rounds_it() {
        for hidden in [640.0f64, 1152.0, 2560.0, 3072.0, 3840.0, 24.0] {
            let x = hidden.sqrt();
            let low = Tensor::from_slice(&[x as f32]).to_kind(Kind::BFloat16).double_value(&[0]);
            assert_eq!(held(x, Compute::Bf16), low);
            assert_eq!(held(x, Compute::F32), f64::from(x as f32));
        }
        assert_eq!(held(3072.0f64.sqrt(), Compute::Bf16), 55.5);
    }
}
