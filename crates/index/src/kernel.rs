//! Inner products at the machine's full width, chosen when the program runs.
//!
//! Both operands have their rows contiguous along the dimension that is summed over, so a block of products needs
//! no packing: tiles of a few queries by a few rows keep all their sums in registers, and each loaded number is used
//! several times.
//!
//! *Invariant:* the sum for a pair of vectors is always formed in the same order, whichever tile it falls into. So a
//! score does not depend on what else is in the batch, exact and approximate search give the same number for the
//! same pair, and results are reproducible on one kind of machine. (Machines of another vector width may differ in
//! the last bits.)

pub(crate) mod int;

use std::ops::Range;
use std::sync::LazyLock;

use pulp::{Arch, Simd, WithSimd};

pub(crate) static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Bytes of rows that are compared with all queries of a block before the next rows come.
const GROUP_BYTES: usize = 16 << 10;

/// The inner product of two rows.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut out = [0.0];
    ARCH.dispatch(Block { queries: a, rows: b, dim: a.len(), out: &mut out });
    out[0]
}

/// `out[q * n_rows + r]` becomes the inner product of query `q` and row `r`.
pub(crate) fn block(queries: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    ARCH.dispatch(Block { queries, rows, dim, out });
}

/// `out[i]` becomes the inner product of the query and row `ids[i]` of `data`.
pub(crate) fn gather(query: &[f32], data: &[f32], ids: &[u32], out: &mut Vec<f32>) {
    out.clear();
    out.resize(ids.len(), 0.0);
    ARCH.dispatch(Gather { query, data, ids, out });
}

struct Block<'a> {
    queries: &'a [f32],
    rows: &'a [f32],
    dim: usize,
    out: &'a mut [f32],
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, rows, dim, out } = self;
        let n = rows.len() / dim;
        let row = |r: usize| &rows[r * dim..(r + 1) * dim];
        let query = |q: usize| &queries[q * dim..(q + 1) * dim];
        let n_queries = queries.len() / dim;
        // A few rows stay in the first-level cache while all queries pass by.
        let group = (GROUP_BYTES / (dim * 4)).next_multiple_of(4);
        for first in (0..n).step_by(group) {
            let rows = first..n.min(first + group);
            let mut q = 0;
            // 16 sums and 5 operands fit 32 registers, 12 and 4 fit 16.
            while q + 4 <= n_queries && S::REGISTER_COUNT >= 32 {
                let queries = [query(q), query(q + 1), query(q + 2), query(q + 3)];
                across(simd, queries, row, rows.clone(), |i, r, sum| out[(q + i) * n + r] = sum);
                q += 4;
            }
            while q + 3 <= n_queries {
                let queries = [query(q), query(q + 1), query(q + 2)];
                across(simd, queries, row, rows.clone(), |i, r, sum| out[(q + i) * n + r] = sum);
                q += 3;
            }
            while q < n_queries {
                alone(simd, query(q), row, rows.clone(), |r, sum| out[q * n + r] = sum);
                q += 1;
            }
        }
    }
}

struct Gather<'a> {
    query: &'a [f32],
    data: &'a [f32],
    ids: &'a [u32],
    out: &'a mut [f32],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, data, ids, out } = self;
        let dim = query.len();
        let row = |r: usize| &data[ids[r] as usize * dim..(ids[r] as usize + 1) * dim];
        alone(simd, query, row, 0..ids.len(), |r, sum| out[r] = sum);
    }
}

/// Some queries against some rows, four rows at a time.
#[inline(always)]
fn across<'a, S: Simd, const Q: usize>(
    simd: S,
    queries: [&[f32]; Q],
    row: impl Fn(usize) -> &'a [f32],
    rows: Range<usize>,
    mut put: impl FnMut(usize, usize, f32),
) {
    let mut r = rows.start;
    while r + 4 <= rows.end {
        step(simd, queries, [row(r), row(r + 1), row(r + 2), row(r + 3)], r, &mut put);
        r += 4;
    }
    while r < rows.end {
        step(simd, queries, [row(r)], r, &mut put);
        r += 1;
    }
}

/// One query against some rows, eight at a time: with fewer sums, each addition would wait for the one before.
#[inline(always)]
fn alone<'a, S: Simd>(
    simd: S,
    query: &[f32],
    row: impl Fn(usize) -> &'a [f32],
    rows: Range<usize>,
    mut put: impl FnMut(usize, f32),
) {
    let mut put = |_: usize, r: usize, sum: f32| put(r, sum);
    let mut r = rows.start;
    while r + 8 <= rows.end {
        let rows =
            [row(r), row(r + 1), row(r + 2), row(r + 3), row(r + 4), row(r + 5), row(r + 6), row(r + 7)];
        step(simd, [query], rows, r, &mut put);
        r += 8;
    }
    across(simd, [query], row, r..rows.end, put);
}

/// A tile, and where its sums go.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn step<S: Simd, const Q: usize, const R: usize>(
    simd: S,
    queries: [&[f32]; Q],
    rows: [&[f32]; R],
    first: usize,
    put: &mut impl FnMut(usize, usize, f32),
) {
    let sums = tile(simd, queries, rows);
    for i in 0..Q {
        for j in 0..R {
            put(i, first + j, sums[i][j]);
        }
    }
}

/// Plain loops over indexes, because `array::map` and its like are not always inlined, and what is not inlined is
/// compiled without the wide instructions (measured: half the speed).
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn tile<S: Simd, const Q: usize, const R: usize>(
    simd: S,
    queries: [&[f32]; Q],
    rows: [&[f32]; R],
) -> [[f32; R]; Q] {
    let mut sums = [[simd.splat_f32s(0.0); R]; Q];
    let (no_whole, no_rest): (&[S::f32s], &[f32]) = (&[], &[]);
    let (mut query_whole, mut query_rest) = ([no_whole; Q], [no_rest; Q]);
    let (mut row_whole, mut row_rest) = ([no_whole; R], [no_rest; R]);
    // Slices of one length let the compiler drop the bounds checks below.
    let whole = rows[0].len() / S::F32_LANES;
    for i in 0..Q {
        let (head, tail) = S::as_simd_f32s(queries[i]);
        (query_whole[i], query_rest[i]) = (&head[..whole], tail);
    }
    for j in 0..R {
        let (head, tail) = S::as_simd_f32s(rows[j]);
        (row_whole[j], row_rest[j]) = (&head[..whole], tail);
    }
    for at in 0..whole {
        // The queries stay in registers, the rows come one by one.
        let mut query = [simd.splat_f32s(0.0); Q];
        for i in 0..Q {
            query[i] = query_whole[i][at];
        }
        for j in 0..R {
            let row = row_whole[j][at];
            for i in 0..Q {
                sums[i][j] = simd.mul_add_e_f32s(query[i], row, sums[i][j]);
            }
        }
    }
    if !row_rest[0].is_empty() {
        let mut row = [simd.splat_f32s(0.0); R];
        for j in 0..R {
            row[j] = simd.partial_load_f32s(row_rest[j]);
        }
        for i in 0..Q {
            let query = simd.partial_load_f32s(query_rest[i]);
            for j in 0..R {
                sums[i][j] = simd.mul_add_e_f32s(query, row[j], sums[i][j]);
            }
        }
    }
    let mut out = [[0.0; R]; Q];
    for i in 0..Q {
        for j in 0..R {
            out[i][j] = simd.reduce_sum_f32s(sums[i][j]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn every_tile_gives_the_same_sum() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for dim in [1, 3, 8, 15, 16, 17, 64, 384, 385] {
            let mut numbers =
                |n: usize| (0..n * dim).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
            let (queries, rows) = (numbers(11), numbers(14));
            let mut out = vec![0.0; 11 * 14];
            block(&queries, &rows, dim, &mut out);
            let mut gathered = Vec::new();
            let ids: Vec<u32> = (0..14).rev().collect();
            for (q, query) in queries.chunks(dim).enumerate() {
                gather(query, &rows, &ids, &mut gathered);
                for (r, row) in rows.chunks(dim).enumerate() {
                    let exact: f64 = query.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    assert!((f64::from(out[q * 14 + r]) - exact).abs() < 1e-4);
                    assert_eq!(out[q * 14 + r].to_bits(), dot(query, row).to_bits());
                    assert_eq!(out[q * 14 + r].to_bits(), gathered[13 - r].to_bits());
                }
            }
        }
    }
}
