//! Which index is the cheaper for a round of mining: a scan, or an HNSW graph built for it?
//!
//! A round searches for every training query once, and after it the model moves and the vectors are stale: the graph
//! has to pay for itself within the round. With `Q` queries, `N` rows and `d` dimensions
//!
//! ```text
//! scan   = Q N d / SCAN
//! graph  = N d / BUILD + Q d / WALK
//! ```
//!
//! The scan's time is a product, the graph's a sum: with few queries the scan wins at any `N` (below
//! `SCAN / BUILD` of them), with many and a large corpus the graph. A graph also misses some rows, so the scan wins ties.

use std::fmt;

use crate::{HnswBuilder, IndexKind};

/// Multiplications per second and core in a scan. Measured with 2 shared cores of a Xeon with AVX-512 (20 000 rows of
/// dimension 384, 2 000 queries): 6.0e7 to 7.5e7 products a second.
const SCAN: f64 = 1.3e10;
/// Numbers of vectors that `hnsw_rs` puts into a graph per second and core (`m` 16, `ef_construction` 200): there,
/// 520 rows a second.
const BUILD_HNSW_RS: f64 = 1.0e5;
/// The same for the native builder: 2 550 rows a second.
const BUILD_NATIVE: f64 = 4.9e5;
/// Numbers of queries searched for per second and core at an `ef` of 256, as mining's many hits ask for: 1 400 to
/// 2 100 queries a second.
const WALK: f64 = 3.3e5;

/// Which index to mine with, and what either would take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The cheaper one.
    pub index: IndexKind,
    /// Queries of the round.
    pub queries: usize,
    /// Rows to search.
    pub rows: usize,
    /// What a scan is estimated to take.
    pub scan_seconds: f64,
    /// What building a graph and walking it is estimated to take.
    pub hnsw_seconds: f64,
}

/// Estimates for this process's number of threads and the default builder.
pub fn choose_for_mining(n_queries: usize, n_docs: usize, dim: usize) -> Choice {
    choose_for_mining_with(n_queries, n_docs, dim, HnswBuilder::default())
}

/// Estimates for this process's number of threads and a given builder.
pub fn choose_for_mining_with(queries: usize, rows: usize, dim: usize, builder: HnswBuilder) -> Choice {
    let threads = rayon::current_num_threads().max(1) as f64;
    let (q, n, d) = (queries as f64, rows as f64, dim as f64);
    let build = match builder {
        HnswBuilder::HnswRs => BUILD_HNSW_RS * threads,
        HnswBuilder::HnswRsSerial => BUILD_HNSW_RS,
        HnswBuilder::Native => BUILD_NATIVE * threads,
    };
    let scan_seconds = q * n * d / (SCAN * threads);
    let hnsw_seconds = n * d / build + q * d / (WALK * threads);
    let index = if scan_seconds <= hnsw_seconds { IndexKind::Exact } else { IndexKind::Hnsw };
    Choice { index, queries, rows, scan_seconds, hnsw_seconds }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, queries, rows, scan_seconds, hnsw_seconds } = self;
        let (name, why) = match index {
            IndexKind::Exact => ("exact scan", "and it misses nothing"),
            // The choice is between these two alone.
            _ => ("HNSW", "measure its recall on a sample"),
        };
        write!(
            f,
            "{name} for {queries} queries over {rows} rows: a scan takes about {scan_seconds:.0} s, building and \
             walking a graph about {hnsw_seconds:.0} s; {why}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_queries_are_scanned_for_whatever_the_corpus() {
        for rows in [0, 1_000, 1_000_000, 100_000_000] {
            assert_eq!(choose_for_mining(100_000, rows, 384).index, IndexKind::Exact);
        }
        assert_eq!(choose_for_mining(0, 0, 0).index, IndexKind::Exact);
    }

    #[test]
    fn many_queries_over_many_rows_want_a_graph() {
        let choice = choose_for_mining(2_000_000, 5_000_000, 768);
        assert_eq!(choice.index, IndexKind::Hnsw);
        assert!(
            choice.to_string().starts_with("HNSW for 2000000 queries over 5000000 rows: a scan"),
            "{choice}"
        );
        assert_eq!(choose_for_mining(2_000_000, 1_000, 768).index, IndexKind::Exact);
    }
}
