//! Every query against every row, in blocks, with a bounded heap per query: the loop that exact and compressed
//! search have in common. How a block is scored is the rows' own affair ([`Scored`]).
//!
//! Memory beyond the vectors and the hits is bounded: one slab of rows (where they are not in memory as `f32`) and
//! one tile of scores per thread, whatever the numbers of queries and rows.

use std::ops::Range;

use rayon::prelude::*;

use crate::rows::{Rows, SlabIds};
use crate::topk::TopK;
use crate::{Hit, IdFilter, Result, kernel};

/// Queries that a block of rows is compared with: whole numbers of the kernel's three or four, and as many as fit the
/// second-level cache, so that rows come from memory as seldom as can be.
const QUERY_BLOCK: usize = 192;

/// Bytes of a block of rows.
const ROW_BLOCK_BYTES: usize = 96 << 10;

/// Scores that are compared with the worst hit at a time: most groups hold none that is better.
const GROUP: usize = 32;

/// Queries and rows that can be scored against each other.
pub(crate) trait Scored: Sync {
    /// Rows there are.
    fn rows(&self) -> usize;

    /// Queries there are.
    fn queries(&self) -> usize;

    /// Bytes of one row: what decides how many make a block.
    fn row_bytes(&self) -> usize;

    /// `out[q * rows.len() + r]` becomes the score of query `queries.start + q` and row `rows.start + r`. No score is
    /// NaN.
    fn score(&self, queries: Range<usize>, rows: Range<usize>, out: &mut [f32]);
}

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
            // Slabs hold no row that the filter does not let through.
            scan_scored(&Slab { rows: slab, queries, dim }, ids, None, &mut best);
            Ok(())
        })?;
    }
    Ok(sorted(best))
}

/// The best `k` rows for each query, of rows that know how they are scored.
pub(crate) fn scan_all(scored: &impl Scored, k: usize, filter: Option<&IdFilter>) -> Vec<Vec<Hit>> {
    let k = k.min(scored.rows());
    let mut best = vec![TopK::new(k); scored.queries()];
    if k > 0 && !best.is_empty() {
        scan_scored(scored, SlabIds::From(0), filter, &mut best);
    }
    sorted(best)
}

fn sorted(best: Vec<TopK>) -> Vec<Vec<Hit>> {
    best.into_par_iter().map(TopK::into_sorted).collect()
}

/// Consecutive rows as `f32`.
struct Slab<'a> {
    rows: &'a [f32],
    queries: &'a [f32],
    dim: usize,
}

impl Scored for Slab<'_> {
    fn rows(&self) -> usize {
        self.rows.len() / self.dim
    }

    fn queries(&self) -> usize {
        self.queries.len() / self.dim
    }

    fn row_bytes(&self) -> usize {
        self.dim * 4
    }

    fn score(&self, queries: Range<usize>, rows: Range<usize>, out: &mut [f32]) {
        let numbers = |rows: Range<usize>| rows.start * self.dim..rows.end * self.dim;
        kernel::block(&self.queries[numbers(queries)], &self.rows[numbers(rows)], self.dim, out);
    }
}

fn scan_scored(scored: &impl Scored, ids: SlabIds<'_>, filter: Option<&IdFilter>, best: &mut [TopK]) {
    let per_block = (ROW_BLOCK_BYTES / scored.row_bytes().max(1)).clamp(16, 1024);
    let n_rows = scored.rows();
    // Few queries: the threads share the rows instead, each with heaps of its own.
    let query_blocks = best.len().div_ceil(QUERY_BLOCK);
    let wanted = (4 * rayon::current_num_threads()).div_ceil(query_blocks);
    let parts = if query_blocks >= 4 * rayon::current_num_threads() { 1 } else { wanted };
    let per_part = n_rows.div_ceil(parts).next_multiple_of(per_block).max(per_block);

    best.par_chunks_mut(QUERY_BLOCK).enumerate().for_each(|(block, best)| {
        let queries = block * QUERY_BLOCK..block * QUERY_BLOCK + best.len();
        let part = Part { scored, ids, filter, queries, per_block };
        if per_part >= n_rows {
            part.scan(0..n_rows, best);
            return;
        }
        let empty: Vec<TopK> = best.iter().map(TopK::emptied).collect();
        let found: Vec<Vec<TopK>> = (0..n_rows.div_ceil(per_part))
            .into_par_iter()
            .map(|at| {
                let mut best = empty.clone();
                part.scan(at * per_part..n_rows.min((at + 1) * per_part), &mut best);
                best
            })
            .collect();
        for found in found {
            for (best, found) in best.iter_mut().zip(found) {
                best.merge(found);
            }
        }
    });
}

/// A few queries, and how their rows are looked at.
struct Part<'a, S> {
    scored: &'a S,
    ids: SlabIds<'a>,
    filter: Option<&'a IdFilter>,
    queries: Range<usize>,
    per_block: usize,
}

impl<S: Scored> Part<'_, S> {
    /// One thread's share: consecutive rows.
    fn scan(&self, rows: Range<usize>, best: &mut [TopK]) {
        let mut scores = vec![0.0; best.len() * self.per_block];
        for first in rows.clone().step_by(self.per_block) {
            let block = first..rows.end.min(first + self.per_block);
            let n = block.len();
            let scores = &mut scores[..best.len() * n];
            self.scored.score(self.queries.clone(), block, scores);
            for (best, scores) in best.iter_mut().zip(scores.chunks_exact(n)) {
                self.take(first, scores, best);
            }
        }
    }

    fn take(&self, first: usize, scores: &[f32], best: &mut TopK) {
        for (group, scores) in scores.chunks(GROUP).enumerate() {
            let floor = best.floor();
            // Without a branch per score this is a few wide comparisons.
            if !scores.iter().fold(false, |any, &score| any | (score >= floor)) {
                continue;
            }
            for (at, &score) in scores.iter().enumerate() {
                if score >= best.floor() {
                    let id = self.ids.id(first + group * GROUP + at);
                    if self.filter.is_none_or(|filter| filter.allows(id)) {
                        best.push(Hit { id, score });
                    }
                }
            }
        }
    }
}
