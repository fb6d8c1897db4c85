//! Attention mass: how much attention tokens receive from the tokens of an answer, weighted by the norm of their values. As
//! the teacher of attention distillation: Izacard and Grave, 2021 (arXiv 2012.04584); with the values' norms as in Atlas
//! (arXiv 2208.03299).
//!
//! It is recorded in the forward pass, by the same code for a decoder's self-attention and for cross-attention: attention
//! is computed a second time, for the rows of the answer only, in a pass without a graph.

use ragduet_torch::ops::Segments;
use ragduet_torch::{Kind, Tensor, no_grad};
use std::cell::RefCell;

/// Which rows of each segment of the queries look.
pub type Readers = [Vec<i64>];

/// Adds up what the layers of a pass show.
#[derive(Debug)]
pub(crate) struct AttentionMass<'a> {
    readers: &'a Readers,
    sum: RefCell<Option<Tensor>>,
    layers: RefCell<f64>,
}

/// How a layer attends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looking {
    pub scale: f64,
    /// A row sees itself and those before it; queries and keys are the same rows then.
    pub causal: bool,
    /// And no more than so many before it.
    pub window: Option<i64>,
    /// Scores are cap * tanh(score / cap).
    pub cap: Option<f64>,
}

impl<'a> AttentionMass<'a> {
    pub fn of(readers: &'a Readers) -> Self {
        Self { readers, sum: RefCell::new(None), layers: RefCell::new(0.0) }
    }

    /// A layer's: `q` [query rows, heads, d], `k` and `v` [key rows, kv heads, d]; segment i of the queries looks at segment
    /// i of the keys.
    pub fn add(&self, q: &Tensor, k: &Tensor, v: &Tensor, queries: &Segments, keys: &Segments, how: Looking) {
        let _guard = no_grad();
        let groups = q.size()[1] / k.size()[1].max(1);
        let wide = |t: &Tensor| t.to_kind(Kind::Float).repeat_interleave_self_int(groups, 1, None);
        let (k, v) = (wide(k), wide(v));
        // [rows, heads]
        let sizes = v.norm_scalaropt_dim(2.0, [-1i64].as_slice(), false);
        let each = queries.offsets().windows(2).zip(keys.offsets().windows(2)).zip(self.readers);
        let parts: Vec<Tensor> = each
            .map(|((of, to), rows)| {
                let n = to[1] - to[0];
                if rows.is_empty() {
                    return Tensor::zeros([n], (Kind::Float, q.device()));
                }
                let on = |v: &[i64]| Tensor::from_slice(v).to_device(q.device());
                let at: Vec<i64> = rows.iter().map(|r| of[0] + r).collect();
                let q = q.index_select(0, &on(&at)).to_kind(Kind::Float).transpose(0, 1);
                let keys = k.narrow(0, to[0], n).permute([1, 2, 0]);
                let mut scores = q.matmul(&keys) * how.scale;
                if let Some(cap) = how.cap {
                    scores = (scores / cap).tanh() * cap;
                }
                if how.causal {
                    let own = on(rows).unsqueeze(1);
                    let place = Tensor::arange(n, (Kind::Int64, q.device())).unsqueeze(0);
                    let mut hidden = place.gt_tensor(&own);
                    if let Some(w) = how.window {
                        hidden = hidden.logical_or(&place.lt_tensor(&(own - w)));
                    }
                    scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
                }
                let weighted =
                    scores.softmax(-1, Kind::Float) * sizes.narrow(0, to[0], n).transpose(0, 1).unsqueeze(1);
                weighted.mean_dim([0i64, 1].as_slice(), false, Kind::Float)
            })
            .collect();
        let layer = Tensor::cat(&parts, 0);
        let before = self.sum.take();
        self.sum.replace(Some(before.map_or(layer.shallow_clone(), |s| s + &layer)));
        *self.layers.borrow_mut() += 1.0;
    }

    /// The mean over the layers, heads and readers, [key rows], f32; None where there was no layer.
    pub fn mean(self) -> Option<Tensor> {
        let layers = self.layers.into_inner();
        self.sum.into_inner().map(|s| s / layers)
    }
}
