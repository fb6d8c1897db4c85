//! Attention with capped scores, cap * tanh(score / cap) (Gemma 2: arXiv 2408.00118, section 2), in plain operators: text by
//! text, since no fused kernel has a cap on the CPU.

use super::pass::Scoring;
use super::site::Sight;
use ragduet_torch::ops::Segments;
use ragduet_torch::{Kind, Tensor};

/// Where queries and keys are, and which keys a query sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub queries: &'a Segments,
    /// Segment i of the queries looks at segment i of the keys, whose first is at place 0.
    pub keys: &'a Segments,
    /// The place of each segment's first query; none: 0.
    pub first: Option<&'a [i64]>,
    pub sight: Sight,
}

/// `q` [query rows, heads, d], `k` and `v` [key rows, kv heads, d] -> [query rows, heads, d]. A row that sees no key gets
/// nothing.
pub(super) fn attend([q, k, v]: [&Tensor; 3], rows: &Rows<'_>, scoring: Scoring, dropout: f64) -> Tensor {
    let groups = q.size()[1] / k.size()[1].max(1);
    let each = rows.queries.offsets().windows(2).zip(rows.keys.offsets().windows(2)).enumerate();
    let parts: Vec<Tensor> = each
        .filter(|(_, (of, _))| of[1] > of[0])
        .map(|(i, (of, to))| {
            let heads = |t: &Tensor, r: &[i64]| t.narrow(0, r[0], r[1] - r[0]).transpose(0, 1);
            let wide = |t: &Tensor| heads(t, to).repeat_interleave_self_int(groups, 0, None);
            let mut scores = heads(q, of).matmul(&wide(k).transpose(1, 2)) * scoring.scale;
            if let Some(cap) = scoring.cap {
                scores = (scores / cap).tanh() * cap;
            }
            let first = rows.first.map_or(0, |f| f[i]);
            let p = match hidden((of[1] - of[0], first), to[1] - to[0], rows.sight, scoring.window) {
                None => scores.softmax(-1, Kind::Float),
                Some(hidden) => {
                    let hidden = hidden.to_device(q.device());
                    let p = scores.masked_fill(&hidden, -1e30).softmax(-1, Kind::Float);
                    p.masked_fill(&hidden, 0.0)
                }
            };
            let p = if dropout > 0.0 { p.dropout(dropout, true) } else { p };
            p.to_kind(v.kind()).matmul(&wide(v)).transpose(0, 1)
        })
        .collect();
    if parts.is_empty() { q.shallow_clone() } else { Tensor::cat(&parts, 0) }
}

/// Which of `keys` each of so many queries from place `first` does not see, [queries, keys]; none: all are seen.
fn hidden((queries, first): (i64, i64), keys: i64, sight: Sight, window: Option<i64>) -> Option<Tensor> {
    let cpu = ragduet_torch::Device::Cpu;
    let own = Tensor::arange_start(first, first + queries, (Kind::Int64, cpu)).unsqueeze(1);
    let place = Tensor::arange(keys, (Kind::Int64, cpu)).unsqueeze(0);
    let later = (sight == Sight::Causal).then(|| place.gt_tensor(&own));
    let far = window.map(|w| (&own - &place).abs().gt(w as f64));
    match (later, far) {
        (Some(a), Some(b)) => Some(a.logical_or(&b)),
        (a, b) => a.or(b),
    }
}
