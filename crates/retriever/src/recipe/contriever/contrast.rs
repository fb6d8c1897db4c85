//! What a query crop is compared with: its key, and the keys of other chunks, from the queue or from the batch.
//!
//! -(1/B) sum_i [ s(i, k_i) - log( exp s(i, k_i) + sum_{n in N_i} exp s(i, n) ) ], s = q . k / T; with label smoothing
//! as torch's cross_entropy has it. N_i: `moco` the queue, `in_batch` the other keys of the batch. A key of the query's
//! own chunk is no negative: on small corpora a queue, or a batch across two epochs, may hold one.

use crate::loss::smoothed_cross_entropy;
use ragduet_torch::{Kind, Tensor};

/// Queries against their candidates.
#[derive(Debug)]
pub struct Contrast {
    /// [queries, candidates], divided by the temperature.
    logits: Tensor,
    /// [queries, candidates], true where a candidate does not count.
    hidden: Tensor,
    /// [queries], the column of each query's key.
    labels: Tensor,
}

impl Contrast {
    /// Queries [n, dim] against their keys [n, dim] and a queue [m, dim]. `own`: [n], `owners`: [m], chunks.
    pub fn moco(
        queries: &Tensor,
        keys: &Tensor,
        queue: &Tensor,
        (own, owners): (&Tensor, &Tensor),
        temperature: f64,
    ) -> Self {
        let positive = (queries * keys).sum_dim_intlist([1i64].as_slice(), true, queries.kind());
        let logits = Tensor::cat(&[positive, queries.matmul(&queue.transpose(0, 1))], 1) / temperature;
        let same = own.unsqueeze(1).eq_tensor(&owners.unsqueeze(0));
        let hidden = Tensor::cat(&[Tensor::zeros_like(&own.unsqueeze(1)).to_kind(Kind::Bool), same], 1);
        Self { logits, hidden, labels: Tensor::zeros_like(own) }
    }

    /// Queries [n, dim] against the keys [n, dim] of the batch. `own`: [n], chunks.
    pub fn in_batch(queries: &Tensor, keys: &Tensor, own: &Tensor, temperature: f64) -> Self {
        let n = own.size()[0];
        let logits = queries.matmul(&keys.transpose(0, 1)) / temperature;
        let other = Tensor::eye(n, (Kind::Bool, own.device())).logical_not();
        let hidden = own.unsqueeze(1).eq_tensor(&own.unsqueeze(0)).logical_and(&other);
        Self { logits, hidden, labels: Tensor::arange(n, (Kind::Int64, own.device())) }
    }

    /// The mean loss, a scalar.
    pub fn loss(&self, label_smoothing: f64) -> Tensor {
        smoothed_cross_entropy(&self.logits, &self.hidden, &self.labels, label_smoothing)
    }

    /// How many queries are nearest to their key, a scalar without a graph.
    pub fn hits(&self) -> Tensor {
        let best = self.logits.detach().masked_fill(&self.hidden, f64::NEG_INFINITY).argmax(1, false);
        best.eq_tensor(&self.labels).sum(Kind::Double)
    }
}
