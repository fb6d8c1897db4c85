//! Measures build time, recall and queries per second of the indexes on clustered unit vectors.
//!
//! ```text
//! cargo run --release -p ragduet-index-benches --bin index_measure -- [rows] [dim] [native|hnsw_rs]
//! ```

#[path = "../../crates/index/tests/it/common.rs"]
mod common;

use std::time::Instant;

use common::clustered;
use ragduet_index::{
    AuditOptions, ExactConfig, ExactIndex, HnswBuilder, HnswConfig, HnswIndex, Precision, SearchParams,
    Similarity, VectorIndex, VectorIndexMut, Vectors, recall_against_exact,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rows: usize = args.next().map_or(Ok(20_000), |arg| arg.parse())?;
    let dim: usize = args.next().map_or(Ok(384), |arg| arg.parse())?;
    let only = args.next();
    let data = clustered(rows, dim, (rows / 100).max(1), 1);
    let queries = clustered(2_000, dim, (rows / 100).max(1), 2);
    let (rows_view, queries_view) = (Vectors::new(&data, dim)?, Vectors::new(&queries, dim)?);
    println!("{rows} rows of dimension {dim}, {} threads", rayon::current_num_threads());

    let mut exact = ExactIndex::new(&ExactConfig::default(), Similarity::Cosine, dim)?;
    exact.add(rows_view)?;
    let mut half = ExactIndex::new(&ExactConfig { precision: Precision::F16 }, Similarity::Cosine, dim)?;
    half.add(rows_view)?;
    for (name, index) in [("exact f32", &exact), ("exact f16", &half)] {
        let start = Instant::now();
        index.search(queries_view, &SearchParams::top(10))?;
        let batch = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for query in queries_view.blocks(1).take(50) {
            index.search(query, &SearchParams::top(10))?;
        }
        let single = start.elapsed().as_secs_f64() / 50.0;
        let products = queries_view.len() as f64 * rows as f64 / batch;
        println!(
            "{name}: {:.0} queries/s in a batch ({products:.2e} products/s, {:.0} GFLOP/s), {:.2} ms alone",
            queries_view.len() as f64 / batch,
            products * 2.0 * dim as f64 / 1e9,
            single * 1e3,
        );
    }

    for (name, builder) in [("native", HnswBuilder::Native), ("hnsw_rs", HnswBuilder::HnswRs)] {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        let config = HnswConfig { builder, ..HnswConfig::default() };
        let mut index = HnswIndex::new(&config, Similarity::Cosine, dim)?;
        let start = Instant::now();
        index.add(rows_view)?;
        let built = start.elapsed().as_secs_f64();
        println!("hnsw by {name}: built in {built:.1} s ({:.0} rows/s)", rows as f64 / built);
        let start = Instant::now();
        let audit = index.audit(&AuditOptions::default());
        println!(
            "  audit in {:.1} s: {} unreachable, self-recall {:.5}",
            start.elapsed().as_secs_f64(),
            audit.unreachable.len(),
            audit.self_recall()
        );
        for ef in [16, 32, 64, 128, 256] {
            let params = SearchParams { k: 10, filter: None, ef: Some(ef) };
            let start = Instant::now();
            index.search(queries_view, &params)?;
            let seconds = start.elapsed().as_secs_f64();
            let report = recall_against_exact(&index, &exact, queries_view, &params)?;
            println!(
                "  ef {ef}: recall@10 {:.4} (worst {:.1}), {:.0} queries/s",
                report.recall,
                report.worst,
                queries_view.len() as f64 / seconds
            );
        }
    }
    Ok(())
}
