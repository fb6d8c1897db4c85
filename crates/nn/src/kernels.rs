//! The operations of language models that `ragduet_torch::ops` fuses, in plain ATen operators.
//!
//! One function each, with the fused operation's signature.

use ragduet_torch::ops::{AttentionOptions, Segments};
use ragduet_torch::{Device, Kind, Tensor, grad_enabled, ops};

/// x W^T + b. A single row in bf16 on the CPU, where no gradient is wanted, goes through ATen's matrix-vector kernel, which reads the
/// weights 1.2 to 1.7 times faster than the one for matrices.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let single = x.dim() == 2 && x.size()[0] == 1;
    if grad_enabled() || !(single && x.kind() == Kind::BFloat16 && x.device() == Device::Cpu) {
        return x.linear(weight, bias);
    }
    let row = x.view(-1);
    match bias {
        Some(b) => b.addmv(weight, &row),
        None => weight.mv(&row),
    }
    .unsqueeze(0)
}

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension; x's dtype, computed in f32.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    let wide = x.to_kind(Kind::Float);
    let scale = (wide.square().mean_dim(-1, true, Kind::Float) + eps).rsqrt();
    (wide * scale * weight).to_kind(x.kind())
}

/// s = dropout(x) + residual, as (s in f32, rms_norm(s) in x's dtype).
pub(crate) fn add_then_rms_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f64,
    dropout: f64,
) -> (Tensor, Tensor) {
    let sum = x.to_kind(Kind::Float).dropout(dropout, dropout > 0.0) + residual;
    let normed = rms_norm(&sum, weight, eps).to_kind(x.kind());
    (sum, normed)
}

/// Rotates the first 2n of each head's numbers, pairing element i with i + n: `x` [tokens, heads, head_dim],
/// `cos` and `sin` [tokens, n] in f32. The rest of a head passes through.
pub(crate) fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let n = cos.size()[1];
    let (cos, sin) = (cos.unsqueeze(1), sin.unsqueeze(1));
    let part = |at, len| x.narrow(-1, at, len).to_kind(Kind::Float);
    let (a, b) = (part(0, n), part(n, n));
    let mut out = vec![(&a * &cos - &b * &sin).to_kind(x.kind()), (&b * &cos + &a * &sin).to_kind(x.kind())];
    let rest = x.size()[2] - 2 * n;
    if rest > 0 {
        out.push(x.narrow(-1, 2 * n, rest));
    }
    Tensor::cat(&out, -1)
}

/// silu(gate) * up of [tokens, 2n] whose first half is the gate: [tokens, n].
pub(crate) fn swiglu(x: &Tensor) -> Tensor {
    let parts = x.chunk(2, -1);
    parts[0].silu() * &parts[1]
}

/// Attention within each sequence; `k` and `v` may have fewer heads, each for a run of query heads.
pub(crate) fn varlen_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segs: &Segments,
    o: &AttentionOptions,
) -> Tensor {
    let repeats = q.size()[1] / k.size()[1];
    let wide = |t: &Tensor| {
        if repeats > 1 { t.repeat_interleave_self_int(repeats, 1, None) } else { t.shallow_clone() }
    };
    ops::varlen_attention(q, &wide(k), &wide(v), segs, o)
}

/// One query row per sequence against its cache: `q` [rows, heads, d], caches [rows, capacity, kv_heads, d], of which
/// the first `lengths` are seen (the last `window + 1` of them, where there is a window). [rows, heads, d].
pub(crate) fn cached_attention(
    q: &Tensor,
    k_cache: &Tensor,
    v_cache: &Tensor,
    lengths: &[i64],
    scale: f64,
    window: Option<i64>,
) -> Tensor {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let reach = window.map_or(longest, |w| (w + 1).min(longest));
    let heads_first = |t: &Tensor, from, n| t.narrow(1, from, n).transpose(1, 2);
    let [rows, heads, d] = [0, 1, 2].map(|i| q.size()[i]);
    // The query heads of one key head are as rows of one sequence: nothing is repeated.
    let kv_heads = k_cache.size()[2];
    let grouped = q.reshape([rows, kv_heads, heads / kv_heads, d]);
    let (from, n, mask) = if lengths.iter().all(|&l| l == longest) {
        (longest - reach, reach, None)
    } else {
        (0, longest, Some(seen(lengths, longest, window, q.device())))
    };
    let (k, v) = (heads_first(k_cache, from, n), heads_first(v_cache, from, n));
    Tensor::scaled_dot_product_attention(&grouped, &k, &v, mask, 0.0, false, scale, false)
        .reshape([rows, heads, d])
}

/// Which places of a cache each row sees, [rows, 1, 1, longest].
fn seen(lengths: &[i64], longest: i64, window: Option<i64>, device: Device) -> Tensor {
    let ends = Tensor::from_slice(lengths).to_device(device).unsqueeze(1);
    let place = Tensor::arange(longest, (Kind::Int64, device)).unsqueeze(0);
    let mut seen = place.lt_tensor(&ends);
    if let Some(window) = window {
        seen = seen.logical_and(&place.ge_tensor(&(ends - (window + 1))));
    }
    seen.view([lengths.len() as i64, 1, 1, longest])
}
