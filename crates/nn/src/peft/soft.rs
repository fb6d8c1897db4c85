//! Soft prompts and prefixes: learned rows before every text of a packed batch.
//!
//! Rows are put in front of each text, and taken out again behind the layers: nothing outside sees them. Real tokens
//! get the positions behind them, as in peft. In an encoder-decoder, as in peft, a prompt stands before the source alone
//! (whose hidden states the decoder sees with the prompt's) and a prefix in the decoder's self-attention alone.
//!
//! A prefix's queries are dummies that nobody reads, which lets the packed attention kernels do the rest, with dropout,
//! windows and gradients. peft lays an encoder-decoder's rows out for self- and cross-attention, drops the second part,
//! and so gives layer l the pair 2 l mod layers: with an even number of layers half of the rows are never used
//! (findings/prefix_rows.sh). Read and trained the same way here, so that folders mean the same (`pair_of`).

use super::slot::Slot;
use super::{AdapterId, PrefixConfig, PromptConfig, PromptInit};
use crate::{Mode, Result};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Init, Kind, ParamBuilder, Tensor, no_grad};
use std::rc::Rc;

/// Sizes that prompts and prefixes follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SoftShape {
    pub layers: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    pub hidden: i64,
    /// Multiplies rows of the token embedding before the layers; learned rows stand behind that.
    pub embedding_scale: f64,
    /// Whether a decoder looks at an encoder's states.
    pub encoder_decoder: bool,
}

impl SoftShape {
    /// Which of a prefix's pairs of k and v is a layer's. peft lays an encoder-decoder's out twice, as if for self- and
    /// cross-attention, and then never gives cross-attention its part: a layer has every second pair, so that with an even
    /// number of layers half of them are nobody's. What it saves is read in this way, so it is done here as well.
    fn pair_of(&self, layer: i64) -> i64 {
        if self.encoder_decoder { 2 * layer % self.layers } else { layer }
    }
}

/// Where prompts and prefixes go. A clone is the same place.
#[derive(Debug, Clone)]
pub(crate) struct SoftSlot {
    pub shape: SoftShape,
    slot: Rc<Slot<Soft>>,
}

impl SoftSlot {
    /// A slot at the builder's path.
    pub fn build(b: &ParamBuilder, shape: SoftShape) -> Self {
        let slot = Self { shape, slot: Rc::default() };
        b.attach(slot.clone());
        slot
    }

    /// Borders of texts with a prompt's rows before each; None where the pass has no prompt here.
    pub fn with_prompt(&self, segments: &Segments, m: Mode, device: Device) -> Option<Segments> {
        let n = self.get(m).filter(|s| matches!(**s, Soft::Prompt(_)))?.rows();
        let lengths: Vec<usize> = segments.lengths().map(|l| (l + n) as usize).collect();
        Some(Segments::new(&lengths, device))
    }

    /// What a pass has here.
    fn get(&self, m: Mode) -> Option<Rc<Soft>> {
        self.slot.get(m.adapter)
    }

    pub(super) fn slot(&self) -> &Slot<Soft> {
        &self.slot
    }
}

/// Learned rows.
#[derive(Debug)]
pub(super) enum Soft {
    /// Embeddings [n, hidden].
    Prompt(Tensor),
    /// Keys and values.
    Prefix(Prefix),
}

impl Soft {
    /// How many rows.
    pub fn rows(&self) -> i64 {
        match self {
            Soft::Prompt(p) => p.size()[0],
            Soft::Prefix(p) => p.rows.size()[0],
        }
    }

    /// `b` is where the adapter's `prompt_embeddings` are; `table` the token embedding, whose rows the model multiplies
    /// with `scale`.
    pub(super) fn prompt(b: &ParamBuilder, table: &Tensor, scale: f64, c: &PromptConfig) -> Result<Self> {
        let n = c.tokens;
        let given = b.has("prompt_embeddings");
        let start = Init::Normal(deviation(table) * scale);
        let rows = b.get("prompt_embeddings", &[n, table.size()[1]], start)?;
        let vocab = table.size()[0];
        let ids = match &c.init {
            _ if given => None,
            PromptInit::Random => None,
            PromptInit::Vocabulary => Some(Tensor::randint(vocab, [n], (Kind::Int64, table.device()))),
            PromptInit::Tokens(ids) if ids.is_empty() => None,
            PromptInit::Tokens(ids) => {
                let again: Vec<i64> =
                    ids.iter().cycle().take(n as usize).map(|&i| i64::from(i).min(vocab - 1)).collect();
                Some(Tensor::from_slice(&again).to_device(table.device()))
            }
        };
        if let Some(ids) = ids {
            let _guard = no_grad();
            let chosen = table.index_select(0, &ids);
            rows.shallow_clone().copy_(&if scale == 1.0 { chosen } else { chosen * scale });
        }
        Ok(Soft::Prompt(rows))
    }

    /// `b` is where the adapter's `prompt_embeddings` are.
    pub(super) fn prefix(b: &ParamBuilder, s: SoftShape, c: &PrefixConfig) -> Result<Self> {
        let width = s.layers * 2 * s.kv_heads * s.head_dim;
        // A saved prefix is what the network made of it.
        let network = match c.projection.filter(|_| !b.has("prompt_embeddings")) {
            None => None,
            Some(inner) => {
                let token = s.kv_heads * s.head_dim;
                let linear = |name: &str, inputs: i64, outputs: i64| -> Result<_> {
                    let bound = Init::Uniform((inputs as f64).powf(-0.5));
                    let l = b.at("transform").at(name);
                    Ok((l.get("weight", &[outputs, inputs], bound)?, l.get("bias", &[outputs], bound)?))
                };
                Some((token, linear("0", token, inner)?, linear("2", inner, width)?))
            }
        };
        let rows = match &network {
            None => b.get("prompt_embeddings", &[c.tokens, width], Init::Normal(0.02))?,
            Some((token, ..)) => b.at("embedding").get("weight", &[c.tokens, *token], Init::Normal(1.0))?,
        };
        Ok(Soft::Prefix(Prefix { rows, network: network.map(|(_, a, b)| [a, b]), shape: s }))
    }
}

/// The deviation of the embedding's entries.
fn deviation(table: &Tensor) -> f64 {
    let _guard = no_grad();
    f64::try_from(table.std(false)).unwrap_or(0.02)
}

/// Keys and values before every text.
#[derive(Debug)]
pub(super) struct Prefix {
    /// [n, layers * 2 * kv_heads * head_dim], or what the network takes.
    rows: Tensor,
    network: Option<[(Tensor, Tensor); 2]>,
    shape: SoftShape,
}

impl Prefix {
    /// [n, layers * 2 * kv_heads * head_dim], f32: what peft stores.
    pub fn whole(&self) -> Tensor {
        match &self.network {
            None => self.rows.shallow_clone(),
            Some([(w1, b1), (w2, b2)]) => self.rows.linear(w1, Some(b1)).tanh().linear(w2, Some(b2)),
        }
    }

    /// Per layer k and v, [n, kv_heads, head_dim] in the compute dtype.
    pub fn layers(&self, m: Mode) -> Vec<(Tensor, Tensor)> {
        let s = self.shape;
        let all = self.whole().to_kind(m.compute.kind());
        let parts = all.view([-1, s.layers * 2, s.kv_heads, s.head_dim]).unbind(1);
        let own = |layer: i64| {
            let pair = 2 * s.pair_of(layer) as usize;
            (parts[pair].shallow_clone(), parts[pair + 1].shallow_clone())
        };
        (0..s.layers).map(own).collect()
    }
}

/// Rows put before each text of a packed batch.
#[derive(Debug)]
struct Inserted {
    n: i64,
    /// For each row of the longer batch: a learned row (below n), or n + the row of the batch.
    from: Tensor,
    /// Where the batch's rows are in the longer one.
    kept: Tensor,
    /// Borders of the longer batch.
    segments: Segments,
}

impl Inserted {
    /// `n` rows before each text.
    fn new(n: i64, segments: &Segments, like: &Tensor) -> Self {
        let (mut from, mut kept, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for w in segments.offsets().windows(2) {
            from.extend(0..n);
            kept.extend((w[0]..w[1]).enumerate().map(|(i, _)| (from.len() + i) as i64));
            from.extend((w[0]..w[1]).map(|row| n + row));
            lengths.push((n + w[1] - w[0]) as usize);
        }
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(like.device());
        Self { n, from: tensor(&from), kept: tensor(&kept), segments: Segments::new(&lengths, like.device()) }
    }

    /// `rows` [tokens, ..] with `learned` [n, ..] before each text.
    fn insert(&self, learned: &Tensor, rows: &Tensor) -> Tensor {
        Tensor::cat(&[learned, rows], 0).index_select(0, &self.from)
    }

    /// `rows` with zeros before each text: places that nobody reads.
    fn pad(&self, rows: &Tensor) -> Tensor {
        let mut size = rows.size();
        size[0] = self.n;
        self.insert(&Tensor::zeros(size, (rows.kind(), rows.device())), rows)
    }

    /// Positions, 0.. within each text.
    fn positions(&self, positions: &Tensor) -> Tensor {
        let own = Tensor::arange(self.n, (Kind::Int64, positions.device()));
        self.insert(&own, &(positions + self.n))
    }

    /// The batch's own rows.
    fn strip(&self, rows: &Tensor) -> Tensor {
        rows.index_select(0, &self.kept)
    }
}

/// A pass with learned rows.
#[derive(Debug)]
pub(crate) struct SoftPass {
    inserted: Rc<Inserted>,
    /// [n, hidden].
    prompt: Option<Tensor>,
    /// Per layer, from layer `first`.
    prefix: Vec<(Tensor, Tensor)>,
    first: usize,
}

impl SoftPass {
    /// What the pass has in this slot.
    pub fn of(slot: &SoftSlot, segments: &Segments, like: &Tensor, m: Mode) -> Option<Self> {
        let soft = slot.get(m)?;
        let inserted = Rc::new(Inserted::new(soft.rows(), segments, like));
        Some(match &*soft {
            Soft::Prompt(p) => {
                Self { inserted, prompt: Some(p.shallow_clone()), prefix: Vec::new(), first: 0 }
            }
            Soft::Prefix(p) => Self { inserted, prompt: None, prefix: p.layers(m), first: 0 },
        })
    }

    /// The same rows in one layer alone, with these keys and values for a prefix's: what a recomputed layer sees, whose
    /// inputs they must be.
    pub fn in_layer(&self, layer: usize, prefix: Option<(Tensor, Tensor)>) -> Self {
        let prompt = self.prompt.as_ref().map(Tensor::detach);
        Self { inserted: self.inserted.clone(), prompt, prefix: prefix.into_iter().collect(), first: layer }
    }

    /// Borders with the learned rows.
    pub fn longer(&self) -> &Segments {
        &self.inserted.segments
    }

    /// How many rows stand before each text.
    pub fn rows(&self) -> i64 {
        self.inserted.n
    }

    /// Per layer k and v of a prefix.
    pub fn prefix(&self) -> &[(Tensor, Tensor)] {
        &self.prefix
    }

    /// Whether this is a prompt, rather than a prefix.
    pub fn is_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// Token embeddings, with a prompt's rows.
    pub fn embed(&self, rows: Tensor) -> Tensor {
        match &self.prompt {
            Some(p) => self.inserted.insert(&p.to_kind(rows.kind()), &rows),
            None => rows,
        }
    }

    /// Ids that go with the rows: zeros for a prompt's.
    pub fn ids(&self, ids: &Tensor) -> Tensor {
        if self.prompt.is_some() { self.inserted.pad(ids) } else { ids.shallow_clone() }
    }

    /// Positions of the rows.
    pub fn positions(&self, positions: &Tensor) -> Tensor {
        if self.prompt.is_some() { self.inserted.positions(positions) } else { positions + self.inserted.n }
    }

    /// Borders of the rows between the layers.
    pub fn segments<'a>(&'a self, own: &'a Segments) -> &'a Segments {
        if self.prompt.is_some() { &self.inserted.segments } else { own }
    }

    /// Attention with what a prefix adds: its keys and values stand before each text's, for which queries are added
    /// that nobody reads.
    pub fn attend(
        &self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        own: &Segments,
        f: impl Fn(&Tensor, &Tensor, &Tensor, &Segments) -> Tensor,
    ) -> Tensor {
        let Some((pk, pv)) = self.prefix.get(layer.wrapping_sub(self.first)) else {
            return f(q, k, v, self.segments(own));
        };
        let i = &self.inserted;
        i.strip(&f(&i.pad(q), &i.insert(pk, k), &i.insert(pv, v), &i.segments))
    }

    /// The batch's own rows.
    pub fn strip(&self, hidden: Tensor) -> Tensor {
        if self.prompt.is_some() { self.inserted.strip(&hidden) } else { hidden }
    }
}

/// Removes an adapter's rows.
pub(super) fn remove(slots: &[(String, SoftSlot)], id: AdapterId) {
    slots.iter().for_each(|(_, s)| s.slot.remove(id));
}
