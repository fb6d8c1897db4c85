//! MaxSim between all queries and passages of a batch, and its gradient, without the products' tensor.
//!
//! The forward pass keeps the argmax (the best passage row of each query row, 4 bytes) instead of the products, and the
//! backward pass sends gradients to those rows only.

use super::{Segments, expect};
use crate::{Kind, Tensor, ffi};
use std::ptr::null_mut;

/// Scores [queries, passages] of late interaction: the sum over a query's rows of the largest inner product with a row of
/// the passage (Khattab & Zaharia, 2020, arXiv 2004.12832). `queries` and `passages` are [rows, dim] in f32 (or f64), cut
/// into texts by their segments. Sums are in the rows' dtype, products never exist all at once.
///
/// `wanted` [queries, passages], where given, says which scores are needed; the others are 0. A text without rows scores 0
/// with everything.
///
/// # Panics
/// On shapes and dtypes that do not fit.
pub fn maxsim(
    queries: &Tensor,
    query_segments: &Segments,
    passages: &Tensor,
    passage_segments: &Segments,
    wanted: Option<&[bool]>,
) -> Tensor {
    let (q, d) = (query_segments.offsets(), passage_segments.offsets());
    let table = wanted.map(|w| {
        let shape = [query_segments.len() as i64, passage_segments.len() as i64];
        Tensor::from_slice(w).to_kind(Kind::Uint8).view(shape)
    });
    let mut out = null_mut();
    // SAFETY: handles and slices are valid for the call; the result is adopted only on success.
    expect(unsafe {
        ffi::rd_maxsim(
            ffi::handle(queries),
            q.as_ptr(),
            q.len(),
            ffi::handle(passages),
            d.as_ptr(),
            d.len(),
            table.as_ref().map_or(null_mut(), ffi::handle),
            &mut out,
        )
    });
    ffi::adopt(out)
}

#[cfg(test)]
mod tests;
