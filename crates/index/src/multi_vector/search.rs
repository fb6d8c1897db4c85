//! Searching a compressed index: candidates by their centroids, then fewer and fewer of them by more and more numbers.
//!
//! 1. The inner products of all query vectors with all centroids, once.
//! 2. Candidates: the passages in the lists of each query vector's `n_probe` nearest centroids.
//! 3. MaxSim with centroids in the place of vectors, read from the table of step 1: with the strong centroids only
//!    (where a threshold asks for it), then with all of a passage's.
//! 4. MaxSim with decompressed vectors for the `n_full` best.
//!
//! Where 2 and 3 cannot pay (few passages, a narrow filter, a large `k`), step 4 looks at every passage.

use rayon::prelude::*;

use super::CompressedMultiVectorIndex;
use super::MultiVectorIndex;
use super::panel::{Panel, raise_from};
use crate::topk::compare;
use crate::{Error, Hit, MultiSearchParams, MultiVectors, Result, Vectors};

const N_PROBE: usize = 8;
const N_DOCS: usize = 4096;
const N_DOCS_PER_HIT: usize = 16;
/// Of the passages ranked by centroids, one in so many is decompressed.
const FULL_SHARE: usize = 4;

/// Passages that a thread takes at a time.
const RANKED_AT_ONCE: usize = 128;
const DECODED_AT_ONCE: usize = 8;
/// Centroids that a thread takes at a time.
const CENTROIDS_AT_ONCE: usize = 512;

/// What a search needs and keeps for the next one.
#[derive(Default)]
pub(super) struct Scratch {
    /// `table[centroid * width + i]`: the product of a centroid with query vector `i`.
    table: Vec<f32>,
    /// One bit a passage, all zero between searches.
    met: Vec<u64>,
}

impl CompressedMultiVectorIndex {
    fn prepare(&self, vectors: Vectors<'_>) -> Result<()> {
        if vectors.dim() != self.dim() {
            return Err(Error::Dimension { expected: self.dim(), got: vectors.dim() });
        }
        match vectors.data().iter().position(|number| !number.is_finite()) {
            Some(at) => {
                let (row, column) = (at / self.dim(), at % self.dim());
                Err(Error::NotFinite { row, column, value: vectors.data()[at] })
            }
            None => Ok(()),
        }
    }

    pub(super) fn search_all(
        &self,
        queries: MultiVectors<'_>,
        params: &MultiSearchParams<'_>,
    ) -> Result<Vec<Vec<Hit>>> {
        self.prepare(queries.vectors())?;
        let allowed = match params.filter {
            Some(_) => (0..self.len() as u32).filter(|&id| self.may_come_back(id, params)).count(),
            None => self.live(),
        };
        (0..queries.len())
            .into_par_iter()
            .map(|query| {
                let panel = Panel::new(queries.set(query).data(), self.dim());
                if panel.len() == 0 || params.k == 0 {
                    return Ok(Vec::new());
                }
                let mut scratch = self.pool.lock().ok().and_then(|mut pool| pool.pop()).unwrap_or_default();
                let hits = self.search_one(&panel, params, allowed, &mut scratch);
                if let Ok(mut pool) = self.pool.lock() {
                    pool.push(scratch);
                }
                hits
            })
            .collect()
    }

    pub(super) fn score_all(&self, query: Vectors<'_>, ids: &[u32]) -> Result<Vec<f32>> {
        self.prepare(query)?;
        ids.iter().try_for_each(|&id| self.spans.check(id).map(drop))?;
        let mut hits: Vec<Hit> = ids.iter().map(|&id| Hit { id, score: 0.0 }).collect();
        self.score_full(&Panel::new(query.data(), self.dim()), &mut hits)?;
        Ok(hits.into_iter().map(|hit| hit.score).collect())
    }

    fn may_come_back(&self, id: u32, params: &MultiSearchParams<'_>) -> bool {
        !self.spans.get(id).is_empty() && params.filter.is_none_or(|filter| filter.allows(id))
    }

    fn search_one(
        &self,
        query: &Panel,
        params: &MultiSearchParams<'_>,
        allowed: usize,
        scratch: &mut Scratch,
    ) -> Result<Vec<Hit>> {
        let n_docs = params.n_docs.unwrap_or(N_DOCS.max(N_DOCS_PER_HIT * params.k)).max(params.k);
        let n_full = params.n_full.unwrap_or(n_docs / FULL_SHARE).max(params.k);
        let mut hits = Vec::new();
        if n_full < allowed {
            self.candidates(query, params, scratch, &mut hits);
            if hits.len() > n_full
                && let Some(threshold) = params.threshold
            {
                let strong = self.strong(query, threshold, &scratch.table);
                self.score_centroids(query, &scratch.table, Some(&strong), &mut hits);
                keep(&mut hits, n_docs);
            }
            if hits.len() > n_full {
                self.score_centroids(query, &scratch.table, None, &mut hits);
                keep(&mut hits, n_full);
            }
        }
        if hits.len() < params.k.min(allowed) {
            let ids = (0..self.len() as u32).filter(|&id| self.may_come_back(id, params));
            hits = ids.map(|id| Hit { id, score: 0.0 }).collect();
        }
        self.score_full(query, &mut hits)?;
        keep(&mut hits, params.k);
        hits.sort_unstable_by(|a, b| compare(b, a));
        Ok(hits)
    }

    /// Fills the table, and `hits` with the passages in the lists of the nearest centroids.
    fn candidates(
        &self,
        query: &Panel,
        params: &MultiSearchParams<'_>,
        scratch: &mut Scratch,
        hits: &mut Vec<Hit>,
    ) {
        let (width, dim) = (query.width(), self.dim());
        scratch.table.resize(self.codec.len() * width, 0.0);
        scratch
            .table
            .par_chunks_mut(CENTROIDS_AT_ONCE * width)
            .zip(self.codec.centroids().par_chunks(CENTROIDS_AT_ONCE * dim))
            .for_each(|(table, centroids)| query.products(centroids, table));

        let n_probe = params.n_probe.unwrap_or(N_PROBE).clamp(1, self.codec.len());
        let mut probed = nearest(&scratch.table, width, query.len(), n_probe);
        probed.sort_unstable();
        probed.dedup();
        scratch.met.resize(self.len().div_ceil(64), 0);
        for list in probed.iter().map(|&centroid| &self.lists[centroid as usize]) {
            for &id in list {
                let (word, bit) = (id as usize / 64, 1 << (id % 64));
                if scratch.met[word] & bit == 0 {
                    scratch.met[word] |= bit;
                    hits.push(Hit { id, score: 0.0 });
                }
            }
        }
        for hit in hits.iter() {
            scratch.met[hit.id as usize / 64] = 0;
        }
        if let Some(filter) = params.filter {
            hits.retain(|hit| filter.allows(hit.id));
        }
    }

    /// Which centroids are at least so similar to a query vector.
    fn strong(&self, query: &Panel, threshold: f32, table: &[f32]) -> Vec<bool> {
        table
            .chunks_exact(query.width())
            .map(|products| products[..query.len()].iter().any(|&product| product >= threshold))
            .collect()
    }

    /// Scores passages by their centroids, by the strong ones only if these are given.
    fn score_centroids(&self, query: &Panel, table: &[f32], strong: Option<&[bool]>, hits: &mut [Hit]) {
        let width = query.width();
        hits.par_chunks_mut(RANKED_AT_ONCE).for_each_init(
            || (vec![0.0; width], Vec::new()),
            |(best, kept), hits| {
                for hit in hits {
                    best.fill(f32::NEG_INFINITY);
                    let mut codes = &self.codes[self.spans.get(hit.id)];
                    if let Some(strong) = strong {
                        kept.clear();
                        kept.extend(codes.iter().filter(|&&code| strong[code as usize]));
                        codes = kept;
                    }
                    raise_from(table, width, codes, best);
                    hit.score = query.sum(best);
                }
            },
        );
    }

    /// Scores passages by their decompressed vectors.
    fn score_full(&self, query: &Panel, hits: &mut [Hit]) -> Result<()> {
        let dim = self.dim();
        hits.par_chunks_mut(DECODED_AT_ONCE).try_for_each_init(
            || (vec![0.0; query.width()], Vec::new(), Vec::new()),
            |(best, vectors, bytes), hits| {
                for hit in hits {
                    let rows = self.spans.get(hit.id);
                    vectors.resize(rows.len() * dim, 0.0);
                    let residuals = self.residuals(rows.clone(), bytes)?;
                    self.codec.decode(&self.codes[rows], residuals, vectors);
                    best.fill(f32::NEG_INFINITY);
                    query.raise(vectors, best);
                    hit.score = query.sum(best);
                }
                Ok(())
            },
        )
    }
}

/// Keeps the best `n`, in any order.
fn keep(hits: &mut Vec<Hit>, n: usize) {
    if hits.len() > n {
        if n > 0 {
            hits.select_nth_unstable_by(n - 1, |a, b| compare(b, a));
        }
        hits.truncate(n);
    }
}

/// The `n` nearest centroids of each of the first `len` query vectors, one list after the other.
fn nearest(table: &[f32], width: usize, len: usize, n: usize) -> Vec<u32> {
    // For each query vector its best so far, ascending, so that the first is what a centroid has to exceed.
    let mut best = vec![(f32::NEG_INFINITY, 0u32); len * n];
    let mut floor = vec![f32::NEG_INFINITY; len];
    for (centroid, products) in table.chunks_exact(width).enumerate() {
        for (i, (&product, floor)) in products.iter().zip(&mut floor).enumerate() {
            if product > *floor {
                let best = &mut best[i * n..(i + 1) * n];
                let at = best.partition_point(|(other, _)| *other < product);
                best.copy_within(1..at, 0);
                best[at - 1] = (product, centroid as u32);
                *floor = best[0].0;
            }
        }
    }
    best.into_iter().map(|(_, centroid)| centroid).collect()
}
