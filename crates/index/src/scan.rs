//! Exact search: every query against every row, as a blocked matrix product with a bounded heap per query.
//!
//! Memory beyond the vectors and the hits is bounded: one slab of rows (where they are not in memory as `f32`) and
//! one tile of scores per thread, whatever the numbers of queries and rows.

use rayon::prelude::*;

use crate::rows::{Rows, SlabIds};
use crate::topk::TopK;
use crate::{Hit, IdFilter, Result, kernel};

/// Queries per tile of scores. With `ROW_BLOCK_BYTES` this keeps a tile's operands in the second-level cache.
const QUERY_BLOCK: usize = 64;
const ROW_BLOCK_BYTES: usize = 384 << 10;

/// The best `k` rows for each query. `queries` are prepared: whole rows, checked and scaled.
pub(crate) fn scan(
    rows: &Rows,
    queries: &[f32],
    k: usize,
    filter: Option<&IdFilter>,
) -> Result<Vec<Vec<Hit>>> {
    let dim = rows.dim();
    let k = k.min(rows.len());
    let mut best = vec![TopK::new(k); queries.len() / dim];
    if k > 0 && !best.is_empty() {
        rows.for_each_slab(filter, |ids, slab| {
            scan_slab(ids, slab, queries, dim, &mut best);
            Ok(())
        })?;
    }
    Ok(best.into_par_iter().map(TopK::into_sorted).collect())
}

fn scan_slab(ids: SlabIds<'_>, slab: &[f32], queries: &[f32], dim: usize, best: &mut [TopK]) {
    let per_block = (ROW_BLOCK_BYTES / (dim * 4)).clamp(16, 4096);
    let n_rows = slab.len() / dim;
    // Few queries: the threads share the rows instead, each with heaps of its own.
    let query_blocks = best.len().div_ceil(QUERY_BLOCK);
    let wanted = (4 * rayon::current_num_threads()).div_ceil(query_blocks);
    let parts = if query_blocks >= 4 * rayon::current_num_threads() { 1 } else { wanted };
    let per_part = n_rows.div_ceil(parts).next_multiple_of(per_block).max(per_block);

    best.par_chunks_mut(QUERY_BLOCK).zip(queries.par_chunks(QUERY_BLOCK * dim)).for_each(
        |(best, queries)| {
            if per_part >= n_rows {
                scan_part(ids, 0, slab, queries, dim, per_block, best);
                return;
            }
            let k: Vec<TopK> = best.iter().map(TopK::emptied).collect();
            let found: Vec<Vec<TopK>> = slab
                .par_chunks(per_part * dim)
                .enumerate()
                .map(|(part, rows)| {
                    let mut best = k.clone();
                    scan_part(ids, part * per_part, rows, queries, dim, per_block, &mut best);
                    best
                })
                .collect();
            for part in found {
                for (best, part) in best.iter_mut().zip(part) {
                    best.merge(part);
                }
            }
        },
    );
}

/// One thread's share: a few queries against consecutive rows of a slab, the first of which is row `first` of it.
fn scan_part(
    ids: SlabIds<'_>,
    first: usize,
    rows: &[f32],
    queries: &[f32],
    dim: usize,
    per_block: usize,
    best: &mut [TopK],
) {
    let mut scores = vec![0.0; best.len() * per_block];
    for (block, rows) in rows.chunks(per_block * dim).enumerate() {
        let n = rows.len() / dim;
        let scores = &mut scores[..best.len() * n];
        kernel::block(queries, rows, dim, scores);
        let first = first + block * per_block;
        for (best, scores) in best.iter_mut().zip(scores.chunks_exact(n)) {
            for (at, &score) in scores.iter().enumerate() {
                if score >= best.floor() {
                    best.push(Hit { id: ids.id(first + at), score });
                }
            }
        }
    }
}
