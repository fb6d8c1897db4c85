//! A bias on attention scores by relative position, as MPNet has it.

use crate::{Embedding, Mode};
use ragduet_torch::Tensor;
use ragduet_torch::ops::{AttentionOptions, Segments};

/// [heads, longest, longest], added to the scaled scores; `table` [buckets, heads].
pub(super) fn bias(table: &Embedding, longest: i64, m: Mode) -> Tensor {
    let buckets: Vec<i64> =
        (0..longest).flat_map(|query| (0..longest).map(move |key| bucket(key - query))).collect();
    let ids = Tensor::from_slice(&buckets).to_device(table.weight().device());
    table.forward(&ids, m).view([longest, longest, -1]).permute([2, 0, 1])
}

/// T5's bidirectional bucket of a relative position (key - query), 32 buckets up to distance 128.
fn bucket(relative: i64) -> i64 {
    let (half, exact) = (16i64, 8i64);
    let n = relative.abs();
    let within = if n < exact {
        n
    } else {
        let grown =
            ((n as f32 / exact as f32).ln() / (128.0f32 / exact as f32).ln() * (half - exact) as f32) as i64;
        (exact + grown).min(half - 1)
    };
    within + if relative > 0 { half } else { 0 }
}

/// Attention with an additive bias, text by text: the kernels for packed rows take none.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: &Tensor,
    segs: &Segments,
    o: &AttentionOptions,
) -> Tensor {
    let lengths: Vec<i64> = segs.lengths().collect();
    let split = |t: &Tensor| t.split_with_sizes(&lengths, 0);
    let rows: Vec<Tensor> = split(q)
        .iter()
        .zip(split(k).iter().zip(split(v).iter()))
        .filter(|(q, _)| q.size()[0] > 0)
        .map(|(q, (k, v))| {
            let heads = |t: &Tensor| t.transpose(0, 1).unsqueeze(0);
            let n = q.size()[0];
            let mask = bias.narrow(1, 0, n).narrow(2, 0, n).unsqueeze(0).to_kind(q.kind());
            Tensor::scaled_dot_product_attention(
                &heads(q),
                &heads(k),
                &heads(v),
                Some(&mask),
                o.dropout,
                false,
                Some(o.scale),
                false,
            )
            .squeeze_dim(0)
            .transpose(0, 1)
        })
        .collect();
    Tensor::cat(&rows, 0)
}
