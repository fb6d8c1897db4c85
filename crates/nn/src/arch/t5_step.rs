//! A step of T5's decoder with a cache.

use super::relative::{RelativeBias, attention};
use crate::Mode;
use crate::seq2seq::Seq2SeqCache;
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Tensor};

/// How new tokens of answers join a cache and look at it.
pub(super) struct Step<'a> {
    cache: &'a Seq2SeqCache,
    segments: &'a Segments,
    /// Where k and v of each token go: sequence * capacity + position.
    slots: Tensor,
    /// Lengths with the new tokens.
    whole: Vec<i64>,
    /// For all layers or for each: [heads, new, whole] for all sequences where they are alike, else one each.
    bias: Vec<Vec<Tensor>>,
}

impl<'a> Step<'a> {
    pub fn new(
        (bias, mode): (&[RelativeBias], Mode),
        cache: &'a Seq2SeqCache,
        segments: &'a Segments,
        whole: Vec<i64>,
        device: Device,
    ) -> Self {
        let new: Vec<i64> = segments.lengths().collect();
        let capacity = cache.own.capacity() as i64;
        let places = new.iter().zip(&whole).enumerate();
        let slots: Vec<i64> =
            places.flat_map(|(i, (&n, &w))| (w - n..w).map(move |p| i as i64 * capacity + p)).collect();
        let mut sizes: Vec<(i64, i64)> = new.into_iter().zip(whole.iter().copied()).collect();
        if sizes.windows(2).all(|w| w[0] == w[1]) {
            sizes.truncate(1);
        }
        let kind = cache.own.compute().kind();
        let of = |b: &RelativeBias| sizes.iter().map(|&(n, w)| b.last(n, w, mode).to_kind(kind)).collect();
        let bias = bias.iter().map(of).collect();
        Self { cache, segments, slots: Tensor::from_slice(&slots).to_device(device), whole, bias }
    }

    /// Keeps k and v of the new tokens; attention among an answer's tokens, [tokens, heads, d].
    pub fn own(&self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        self.cache.own.write(layer, &self.slots, k, v);
        let (keys, values) = self.cache.own.layer(layer);
        let heads_first = |t: Tensor| t.transpose(1, 2);
        let [heads, d] = [1, 2].map(|i| q.size()[i]);
        let bias = &self.bias[layer.min(self.bias.len() - 1)];
        if let [bias] = bias.as_slice() {
            let (rows, whole) = (self.whole.len() as i64, self.whole[0]);
            let cut = |t: &Tensor| heads_first(t.narrow(1, 0, whole));
            let q = heads_first(q.view([rows, -1, heads, d]));
            let mixed = attention(&q, &cut(keys), &cut(values), Some(&bias.unsqueeze(0)), 0.0);
            return heads_first(mixed).reshape([-1, heads, d]);
        }
        let rows = self.segments.offsets().windows(2).zip(bias).enumerate();
        let rows = rows.filter(|(_, (w, _))| w[1] > w[0]).map(|(i, (w, bias))| {
            let cut = |t: &Tensor| heads_first(t.narrow(0, i as i64, 1).narrow(1, 0, self.whole[i]));
            let q = heads_first(q.narrow(0, w[0], w[1] - w[0]).unsqueeze(0));
            heads_first(attention(&q, &cut(keys), &cut(values), Some(&bias.unsqueeze(0)), 0.0)).squeeze_dim(0)
        });
        Tensor::cat(&rows.collect::<Vec<_>>(), 0)
    }

    /// Attention over the sources, [tokens, heads, d].
    pub fn cross(&self, layer: usize, q: &Tensor) -> Tensor {
        let Some(seats) = self.cache.seats() else { return q.shallow_clone() };
        let (k, v) = self.cache.cross(layer);
        let [heads, d] = [1, 2].map(|i| q.size()[i]);
        let laid = q.index_select(0, &seats.rows).view([-1, seats.width, heads, d]).transpose(1, 2);
        let mixed = attention(&laid, &k.transpose(1, 2), &v.transpose(1, 2), seats.mask.as_ref(), 0.0);
        mixed.transpose(1, 2).reshape([-1, heads, d]).index_select(0, &seats.seats)
    }
}
