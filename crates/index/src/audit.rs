//! How often is an approximate index right? Its hits against those of an exact index over the same rows.

use serde::Serialize;

use crate::{Error, ExactIndex, Result, SearchParams, VectorIndex, Vectors};

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
    // Blocks bound the memory for the hits.
    const BLOCK: usize = 4096;
    let (mut sum, mut worst, mut complete) = (0.0, 1.0f64, 0);
    for block in queries.blocks(BLOCK) {
        let truth = exact.search(block, params)?;
        for (truth, found) in truth.iter().zip(index.search(block, params)?) {
            let share = match truth.last() {
                Some(last) => {
                    let right = found.iter().filter(|hit| hit.score >= last.score).count();
                    right as f64 / truth.len() as f64
                }
                None => 1.0,
            };
            sum += share;
            worst = worst.min(share);
            complete += usize::from(share >= 1.0);
        }
    }
    let n = queries.len();
    let recall = if n == 0 { 1.0 } else { sum / n as f64 };
    Ok(RecallReport { k: params.k, queries: n, recall, worst, complete })
}
