//! How often is an approximate index right? Its hits against those of an exact index over the same rows.

use serde::Serialize;

use crate::{
    Error, ExactIndex, ExactMultiVectorIndex, Hit, MultiSearchParams, MultiVectorIndex, MultiVectors, Result,
    SearchParams, VectorIndex, Vectors,
};

/// The outcome of [`recall_against_exact`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecallReport {
    /// Hits per query.
    pub k: usize,
    /// Queries compared.
    pub queries: usize,
    /// The mean share of the true best `k` that came back.
    pub recall: f64,
    /// The least share that came back for a query.
    pub worst: f64,
    /// Queries for which all came back.
    pub complete: usize,
}

/// Compares the hits of an index with those of an exact index over the same rows.
///
/// A hit counts if its score reaches the exact search's `k`-th, so that which of several equal rows came back does
/// not matter. With no query the recall is 1.
pub fn recall_against_exact(
    index: &dyn VectorIndex,
    exact: &ExactIndex,
    queries: Vectors<'_>,
    params: &SearchParams<'_>,
) -> Result<RecallReport> {
    if index.len() != exact.len() {
        return Err(Error::RowCount { what: "the exact index", got: exact.len(), expected: index.len() });
    }
    let mut tally = Tally::default();
    for block in queries.blocks(BLOCK) {
        let truth = exact.search(block, params)?;
        for (truth, found) in truth.iter().zip(index.search(block, params)?) {
            tally.query(truth, found.iter().map(|hit| hit.score));
        }
    }
    Ok(tally.report(params.k))
}

/// The same for multi-vector indexes. A hit counts if its exact score reaches the exact search's `k`-th; what score the
/// index gave it does not matter.
pub fn recall_of_multi_vectors(
    index: &dyn MultiVectorIndex,
    exact: &ExactMultiVectorIndex,
    queries: MultiVectors<'_>,
    params: &MultiSearchParams<'_>,
) -> Result<RecallReport> {
    if index.live() != exact.live() {
        return Err(Error::RowCount { what: "the exact index", got: exact.live(), expected: index.live() });
    }
    let truth = exact.search(queries, params)?;
    let found = index.search(queries, params)?;
    let mut tally = Tally::default();
    for (query, (truth, found)) in queries.sets().zip(truth.iter().zip(&found)) {
        let ids: Vec<u32> = found.iter().map(|hit| hit.id).collect();
        tally.query(truth, exact.score(query, &ids)?.into_iter());
    }
    Ok(tally.report(params.k))
}

/// Queries compared at a time, which bounds the memory for the hits.
const BLOCK: usize = 4096;

/// Shares of the true hits that came back.
#[derive(Default)]
struct Tally {
    queries: usize,
    sum: f64,
    worst: Option<f64>,
    complete: usize,
}

impl Tally {
    /// One more query: its true hits, and the exact scores of those that came back.
    fn query(&mut self, truth: &[Hit], found: impl Iterator<Item = f32>) {
        let share = match truth.last() {
            Some(last) => found.filter(|&score| score >= last.score).count() as f64 / truth.len() as f64,
            None => 1.0,
        };
        self.queries += 1;
        self.sum += share;
        self.worst = Some(self.worst.map_or(share, |worst| worst.min(share)));
        self.complete += usize::from(share >= 1.0);
    }

    fn report(self, k: usize) -> RecallReport {
        let Self { queries, sum, worst, complete } = self;
        let recall = if queries == 0 { 1.0 } else { sum / queries as f64 };
        RecallReport { k, queries, recall, worst: worst.unwrap_or(1.0), complete }
    }
}
