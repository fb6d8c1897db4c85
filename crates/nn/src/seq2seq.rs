//! What every encoder-decoder does, and what it remembers of the answers it continues.

use crate::attention_mass::Readers;
use crate::kv_cache::KvCache;
use crate::lm::LmHead;
use crate::{Mode, PackedTokens};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Kind, Tensor, no_grad};
use std::fmt::Debug;

/// An encoder-decoder over packed rows: target i of a batch answers source i.
pub trait Seq2SeqLm: Debug {
    /// The encoder's hidden states after its final norm, [source tokens, hidden], f32. Under a soft prompt there are its
    /// rows, too, before each source's: the decoder sees them.
    ///
    /// # Panics
    /// On token ids outside the vocabulary.
    fn encode(&self, sources: &PackedTokens, mode: Mode) -> Tensor;

    /// The decoder's hidden states after its final norm, [target tokens, hidden], f32: causal within each target, whose
    /// tokens see all of `encoded` [source tokens, hidden] that belongs to their source. `sources` are the borders of the
    /// sources with or without a soft prompt's rows; `encoded` has been made with the mode's adapter.
    ///
    /// # Panics
    /// On token ids outside the vocabulary, unless there is a source, of at least a token, for each target.
    fn decode(&self, targets: &PackedTokens, encoded: &Tensor, sources: &Segments, mode: Mode) -> Tensor;

    /// How much each row of `encoded` is looked at by the decoder's cross-attention while it reads the rows `readers` of
    /// each target: attention times the norm of the value, the mean over layers, heads and readers; [source rows], f32,
    /// without a graph (see `attention_mass`).
    ///
    /// # Panics
    /// As [`Seq2SeqLm::decode`].
    fn attention_received(
        &self,
        targets: &PackedTokens,
        readers: &Readers,
        encoded: &Tensor,
        sources: &Segments,
        mode: Mode,
    ) -> Tensor;

    /// A sequence without tokens for each source, with the sources' keys and values. `capacity`: tokens of an answer. The
    /// mode's adapter acts on all that is appended.
    fn start_cache(&self, encoded: &Tensor, sources: &Segments, capacity: usize, mode: Mode) -> Seq2SeqCache;

    /// Appends segment i of `batch` to sequence i of the cache and returns the new tokens' hidden states
    /// [tokens, hidden], f32, without a graph. A segment may be empty, the cache grows where it is full, and
    /// `batch.positions` is not read.
    ///
    /// # Panics
    /// As [`Seq2SeqLm::decode`], and where the batch has not a segment per sequence.
    fn extend(&self, batch: &PackedTokens, cache: &mut Seq2SeqCache) -> Tensor;

    /// The output projection, for losses that never make the logits whole.
    fn head(&self, mode: Mode) -> LmHead;

    /// Logits of rows of the decoder's hidden states: [rows, hidden] -> [rows, vocab], f32.
    fn logits(&self, hidden: &Tensor, mode: Mode) -> Tensor;

    /// Size of a hidden state.
    fn hidden_size(&self) -> i64;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> usize;

    /// The longest source and the longest target that can be computed; None: relative positions do not end.
    fn max_tokens(&self) -> Option<usize>;

    /// Number of transformer layers, of both sides.
    fn layers(&self) -> usize;

    /// For layer-wise learning rates and freezing: 0 for embeddings, then the encoder's layers from 1 and the decoder's
    /// after them, None for the rest.
    fn depth_of(&self, parameter: &str) -> Option<usize>;

    /// Replaces the config's dropout: in the hidden layers (and on embeddings), and on attention probabilities.
    fn set_dropout(&mut self, hidden: Option<f64>, attention: Option<f64>);
}

/// Keys and values of growing answers, and once per source those of the source.
#[derive(Debug)]
pub struct Seq2SeqCache {
    /// The answers'.
    pub(crate) own: KvCache,
    /// Per layer k and v, [sources, longest source, heads, head_dim] in the compute dtype.
    cross: Vec<(Tensor, Tensor)>,
    lengths: Vec<i64>,
    /// The source of each sequence.
    source: Vec<usize>,
    /// None until asked for after a change.
    seats: Option<Seats>,
}

/// Where the rows of a step sit while each source is looked at by all of its rows at once.
#[derive(Debug)]
pub(crate) struct Seats {
    /// Row of each seat, [sources * width]; seats that are left over repeat row 0.
    pub rows: Tensor,
    /// Seat of each row.
    pub seats: Tensor,
    pub width: i64,
    /// 0 or minus infinity to add to scores, [sources, 1, 1, longest], where sources differ in length.
    pub mask: Option<Tensor>,
}

impl Seq2SeqCache {
    /// `cross`: per layer packed k and v, [source tokens, heads, head_dim].
    pub(crate) fn new(own: KvCache, cross: Vec<(Tensor, Tensor)>, sources: &Segments) -> Self {
        let _guard = no_grad();
        let lengths: Vec<i64> = sources.lengths().collect();
        let longest = sources.longest();
        let padded = |t: &Tensor| {
            let size = [sources.len() as i64, longest, t.size()[1], t.size()[2]];
            let out = Tensor::zeros(size, (t.kind(), t.device()));
            for (i, w) in sources.offsets().windows(2).enumerate() {
                out.get(i as i64).narrow(0, 0, w[1] - w[0]).copy_(&t.narrow(0, w[0], w[1] - w[0]));
            }
            out
        };
        let cross = cross.iter().map(|(k, v)| (padded(k), padded(v))).collect();
        let source = (0..sources.len()).collect();
        Self { own, cross, lengths, source, seats: None }
    }

    /// How many tokens each answer holds.
    pub fn lengths(&self) -> &[usize] {
        self.own.lengths()
    }

    /// How many answers.
    pub fn sequences(&self) -> usize {
        self.source.len()
    }

    /// Answer i becomes a copy of the present answer `from[i]`. Sources are not copied for answers that share one, and
    /// forgotten with their last answer.
    ///
    /// # Panics
    /// On a number that is no answer.
    pub fn reorder(&mut self, from: &[usize]) {
        let _guard = no_grad();
        self.own.reorder(from);
        let source: Vec<usize> = from.iter().map(|&f| self.source[f]).collect();
        if source == self.source {
            return;
        }
        let mut kept = source.clone();
        kept.sort_unstable();
        kept.dedup();
        if kept.len() < self.lengths.len() {
            self.lengths = kept.iter().map(|&s| self.lengths[s]).collect();
            let longest = self.lengths.iter().copied().max().unwrap_or(0);
            let rows: Vec<i64> = kept.iter().map(|&s| s as i64).collect();
            let rows = Tensor::from_slice(&rows).to_device(self.device());
            let picked = |t: &Tensor| t.narrow(1, 0, longest).index_select(0, &rows);
            self.cross = self.cross.iter().map(|(k, v)| (picked(k), picked(v))).collect();
        }
        self.source = source.iter().map(|s| kept.partition_point(|k| k < s)).collect();
        self.seats = None;
    }

    fn device(&self) -> Device {
        self.cross.first().map_or(Device::Cpu, |(k, _)| k.device())
    }

    /// k and v of the sources at a layer.
    pub(crate) fn cross(&self, layer: usize) -> (&Tensor, &Tensor) {
        let (k, v) = &self.cross[layer];
        (k, v)
    }

    /// Makes the seats for new tokens: `new[i]` rows of sequence i, one sequence after another.
    pub(crate) fn seat(&mut self, new: &[i64]) {
        let single = new.iter().all(|&n| n == 1);
        if single && self.seats.is_some() {
            return;
        }
        let mut of_source = vec![Vec::new(); self.lengths.len()];
        let mut row = 0;
        for (&s, &n) in self.source.iter().zip(new) {
            of_source[s].extend(row..row + n);
            row += n;
        }
        let width = of_source.iter().map(Vec::len).max().unwrap_or(0);
        let (mut rows, mut seats) = (vec![0i64; of_source.len() * width], vec![0i64; row as usize]);
        for (s, own) in of_source.iter().enumerate() {
            for (i, &r) in own.iter().enumerate() {
                rows[s * width + i] = r;
                seats[r as usize] = (s * width + i) as i64;
            }
        }
        let device = self.device();
        let tensor = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let kind = self.own.compute().kind();
        let mask = self
            .lengths
            .iter()
            .any(|&l| l != longest)
            .then(|| past_the_end(&self.lengths, longest, (kind, device)));
        self.seats = Some(Seats { rows: tensor(&rows), seats: tensor(&seats), width: width as i64, mask });
    }

    /// What [`Seq2SeqCache::seat`] made.
    pub(crate) fn seats(&self) -> Option<&Seats> {
        self.seats.as_ref()
    }

    /// Seats are kept only while every sequence gets a token at a time.
    pub(crate) fn advance(&mut self, new: &[i64]) {
        self.own.advance(new.iter().copied());
        if new.iter().any(|&n| n != 1) {
            self.seats = None;
        }
    }
}

/// 0 where a row of `width` places is within its length, else minus infinity: [lengths, 1, 1, width].
pub(crate) fn past_the_end(lengths: &[i64], width: i64, options: (Kind, Device)) -> Tensor {
    let ends = Tensor::from_slice(lengths).to_device(options.1).unsqueeze(1);
    let place = Tensor::arange(width, (Kind::Int64, options.1)).unsqueeze(0);
    let size = [lengths.len() as i64, width];
    Tensor::zeros(size, options).masked_fill(&place.ge_tensor(&ends), f64::NEG_INFINITY).view([
        lengths.len() as i64,
        1,
        1,
        width,
    ])
}
