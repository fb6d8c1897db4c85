//! Keys and values of the sequences that a language model continues.

use crate::adapter_id::AdapterId;
use crate::kernels;
use ragduet_torch::{Compute, Device, Tensor, no_grad};

/// The sizes of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheShape {
    pub layers: usize,
    pub kv_heads: i64,
    pub head_dim: i64,
    pub compute: Compute,
    pub adapter: Option<AdapterId>,
    pub device: Device,
}

/// What a model remembers of the sequences it continues.
#[derive(Debug)]
pub struct KvCache {
    /// Per layer k and v, [sequences, capacity, kv_heads, head_dim] in the compute dtype.
    layers: Vec<(Tensor, Tensor)>,
    lengths: Vec<usize>,
    capacity: usize,
    shape: CacheShape,
}

impl KvCache {
    pub(crate) fn new(sequences: usize, capacity: usize, shape: CacheShape) -> Self {
        let mut cache = Self { layers: Vec::new(), lengths: Vec::new(), capacity: 0, shape };
        cache.reset(sequences, capacity);
        cache
    }

    /// Empties the cache for other sequences.
    pub fn reset(&mut self, sequences: usize, capacity: usize) {
        let s = self.shape;
        if (sequences, capacity) != (self.lengths.len(), self.capacity) || self.layers.is_empty() {
            self.layers = (0..s.layers)
                .map(|_| (self.room(sequences, capacity), self.room(sequences, capacity)))
                .collect();
        }
        self.lengths = vec![0; sequences];
        self.capacity = capacity;
    }

    /// Zeros, because attention over several rows reads behind the end of the shorter ones (and masks it).
    fn room(&self, sequences: usize, capacity: usize) -> Tensor {
        let s = self.shape;
        let size = [sequences as i64, capacity as i64, s.kv_heads, s.head_dim];
        Tensor::zeros(size, (s.compute.kind(), s.device))
    }

    /// How many tokens each sequence holds.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How many sequences.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// How many tokens a sequence can hold before [`KvCache::grow`].
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The dtype it was made for.
    pub fn compute(&self) -> Compute {
        self.shape.compute
    }

    /// The adapter that acts on what is appended.
    pub fn adapter(&self) -> Option<AdapterId> {
        self.shape.adapter
    }

    /// Puts the same keys and values, [n, kv_heads, head_dim] per layer, at the start of every sequence of an empty
    /// cache that has room for them.
    pub(crate) fn begin_with(&mut self, rows: &[(Tensor, Tensor)]) {
        let _guard = no_grad();
        let n = rows.first().map_or(0, |(k, _)| k.size()[0]);
        for ((k, v), (own_k, own_v)) in self.layers.iter().zip(rows) {
            for (cache, own) in [(k, own_k), (v, own_v)] {
                cache.narrow(1, 0, n).copy_(&own.unsqueeze(0).expand_as(&cache.narrow(1, 0, n)));
            }
        }
        self.lengths.iter_mut().for_each(|l| *l = n as usize);
    }

    /// Makes room for at least `capacity` tokens per sequence.
    pub fn grow(&mut self, capacity: usize) {
        if capacity > self.capacity {
            let all: Vec<usize> = (0..self.sequences()).collect();
            self.copy(&all, capacity);
        }
    }

    /// Sequence i becomes a copy of the present sequence `from[i]`: beams change places, a prompt fans out,
    /// finished sequences are dropped.
    ///
    /// # Panics
    /// On a number that is no sequence.
    pub fn reorder(&mut self, from: &[usize]) {
        if from.len() != self.sequences() || from.iter().enumerate().any(|(i, &f)| i != f) {
            self.copy(from, self.capacity);
        }
    }

    fn copy(&mut self, from: &[usize], capacity: usize) {
        let _guard = no_grad();
        let lengths: Vec<usize> = from.iter().map(|&f| self.lengths[f]).collect();
        let used = lengths.iter().copied().max().unwrap_or(0) as i64;
        let rows: Vec<i64> = from.iter().map(|&f| f as i64).collect();
        let rows = Tensor::from_slice(&rows).to_device(self.shape.device);
        let moved = |t: &Tensor| {
            let new = self.room(from.len(), capacity);
            new.narrow(1, 0, used).copy_(&t.narrow(1, 0, used).index_select(0, &rows));
            new
        };
        self.layers = self.layers.iter().map(|(k, v)| (moved(k), moved(v))).collect();
        self.lengths = lengths;
        self.capacity = capacity;
    }

    /// The sequences as they were with at most `length` tokens each (rejected drafts, a shared prompt).
    pub fn truncate(&mut self, length: usize) {
        self.lengths.iter_mut().for_each(|l| *l = (*l).min(length));
    }

    pub(crate) fn layer(&self, layer: usize) -> (&Tensor, &Tensor) {
        let (k, v) = &self.layers[layer];
        (k, v)
    }

    /// Writes rows of k and v [tokens, kv_heads, head_dim] at `slots` (sequence * capacity + position).
    pub(crate) fn write(&self, layer: usize, slots: &Tensor, k: &Tensor, v: &Tensor) {
        let (keys, values) = &self.layers[layer];
        kernels::cache_write(keys, values, slots, k, v);
    }

    pub(crate) fn advance(&mut self, by: impl Iterator<Item = i64>) {
        for (length, n) in self.lengths.iter_mut().zip(by) {
            *length += n as usize;
        }
    }

    /// Room for the new tokens; grows by doubling, so that appending stays cheap.
    pub(crate) fn reserve(&mut self, needed: usize) {
        if needed > self.capacity {
            self.grow(needed.max(self.capacity * 2));
        }
    }
}
