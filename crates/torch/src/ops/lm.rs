//! Kernels of language models: few-row products, RMSNorm, rotary positions, SwiGLU, attention over a cache.
//!
//! On the CPU in f32 and bf16 they are the shim's own; anything else goes to ATen operators.
//!
//! Each of these is one pass; grouped key heads are repeated by a stride of 0, never copied. Decoding multiplies few
//! rows with large weights: `csrc/skinny.cpp` and, with AMX, `csrc/tiles.cpp` read every weight once, where it lies. At
//! how many rows that stops paying is measured by `benches/products.rs`.

use super::expect;
use crate::{Tensor, ffi};
use std::ptr::null_mut;

/// x w^T + b: `x` [.., in] and `w` [out, in] of one dtype, `b` [out]. The result has that dtype, or with `wide` f32.
///
/// Where no gradient is wanted, a few rows on the CPU are multiplied by kernels that read the weights once.
pub fn linear(x: &Tensor, w: &Tensor, b: Option<&Tensor>, wide: bool) -> Tensor {
    let mut out = null_mut();
    let b = b.map_or(null_mut(), ffi::handle);
    // SAFETY: handles are valid for the call; the result is adopted only on success.
    expect(unsafe { ffi::rd_linear(ffi::handle(x), ffi::handle(w), b, wide.into(), &mut out) });
    ffi::adopt(out)
}

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in f32; x's dtype. `weight` in f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    let mut out = null_mut();
    // SAFETY: as above.
    expect(unsafe { ffi::rd_rms_norm(ffi::handle(x), ffi::handle(weight), eps, &mut out) });
    ffi::adopt(out)
}

/// s = dropout(x) + residual, as (s in f32, rms_norm(s) in x's dtype). `residual` in f32.
pub fn add_then_rms_norm(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    eps: f64,
    dropout: f64,
) -> (Tensor, Tensor) {
    let (mut sum, mut normed) = (null_mut(), null_mut());
    // SAFETY: as above, for two results.
    expect(unsafe {
        ffi::rd_dropout_add_rms_norm(
            ffi::handle(x),
            ffi::handle(residual),
            ffi::handle(weight),
            eps,
            dropout,
            &mut sum,
            &mut normed,
        )
    });
    (ffi::adopt(sum), ffi::adopt(normed))
}

/// Rotates the first 2n of each head's numbers, pairing element i with i + n: `x` [tokens, heads, head_dim], `cos` and
/// `sin` [tokens, n] in f32. The rest of a head passes through.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let mut out = null_mut();
    // SAFETY: as above.
    expect(unsafe { ffi::rd_rope(ffi::handle(x), ffi::handle(cos), ffi::handle(sin), &mut out) });
    ffi::adopt(out)
}

/// A joined projection [tokens, heads + 2 kv_heads, head_dim] as q [tokens, heads, head_dim] and k [tokens, kv_heads,
/// head_dim], both turned as by [`rope`], and v as it is. Without gradients `qkv` may be changed in place.
pub fn rope_split(
    qkv: Tensor,
    cos: &Tensor,
    sin: &Tensor,
    heads: i64,
    kv_heads: i64,
) -> (Tensor, Tensor, Tensor) {
    let (mut q, mut k, mut v) = (null_mut(), null_mut(), null_mut());
    // SAFETY: as above, for three results; the caller gave `qkv` away.
    expect(unsafe {
        let (x, cos, sin) = (ffi::handle(&qkv), ffi::handle(cos), ffi::handle(sin));
        ffi::rd_rope_split(x, cos, sin, heads, kv_heads, &mut q, &mut k, &mut v)
    });
    (ffi::adopt(q), ffi::adopt(k), ffi::adopt(v))
}

/// silu(gate) * up of [.., 2n] whose first half is the gate: [.., n].
pub fn swiglu(x: &Tensor) -> Tensor {
    let mut out = null_mut();
    // SAFETY: as above.
    expect(unsafe { ffi::rd_swiglu(ffi::handle(x), &mut out) });
    ffi::adopt(out)
}

/// One query row per sequence against its cache, without a gradient: `q` [rows, heads, d], caches [rows, capacity,
/// kv_heads, d], of which the first `lengths` are seen (the last `window + 1` of them, where there is a window).
/// [rows, heads, d].
pub fn cached_attention(
    q: &Tensor,
    k_cache: &Tensor,
    v_cache: &Tensor,
    lengths: &[i64],
    scale: f64,
    window: Option<i64>,
) -> Tensor {
    let mut out = null_mut();
    // SAFETY: as above; the slice of lengths is valid for the call.
    expect(unsafe {
        ffi::rd_cached_attention(
            ffi::handle(q),
            ffi::handle(k_cache),
            ffi::handle(v_cache),
            lengths.as_ptr(),
            lengths.len(),
            scale,
            window.unwrap_or(-1),
            &mut out,
        )
    });
    ffi::adopt(out)
}

/// Writes rows of `k` and `v` [tokens, kv_heads, d] to places `slots` [tokens] (sequence * capacity + position) of the
/// caches [sequences, capacity, kv_heads, d].
pub fn cache_write(k_cache: &Tensor, v_cache: &Tensor, slots: &Tensor, k: &Tensor, v: &Tensor) {
    let [k_cache, v_cache, slots, k, v] = [k_cache, v_cache, slots, k, v].map(ffi::handle);
    // SAFETY: as above; the caches are changed in place through libtorch.
    expect(unsafe { ffi::rd_cache_write(k_cache, v_cache, slots, k, v) });
}

#[cfg(test)]
mod tests;
