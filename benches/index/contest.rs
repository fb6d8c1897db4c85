//! Our side of `scripts/bench_index.py`: does what it is told, a line of the standard input at a time, and answers
//! with the seconds that took and the ids that were found.
//!
//! ```text
//! cargo run --release -p ragduet-index-benches --bin index_contest -- corpus.npy queries.npy
//! ```

mod npy;

use std::io::{BufRead, Write};
use std::time::Instant;

use ragduet_index::{
    CompressedIndex, CompressionConfig, ExactConfig, ExactIndex, HnswBuilder, HnswConfig, HnswIndex,
    SearchParams, Similarity, VectorIndex, VectorIndexMut, Vectors,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [corpus, queries] = &paths[..] else { return Err("contest CORPUS.npy QUERIES.npy".into()) };
    let ((corpus, dim), (queries, _)) = (npy::read(corpus)?, npy::read(queries)?);
    let (corpus, queries) = (Vectors::new(&corpus, dim)?, Vectors::new(&queries, dim)?);
    let mut exact = ExactIndex::new(&ExactConfig::default(), Similarity::Dot, dim)?;
    exact.add(corpus)?;
    let mut int8 = CompressedIndex::new(&CompressionConfig::default(), Similarity::Dot, dim)?;
    int8.add(corpus)?;
    let mut graph = HnswIndex::new(&HnswConfig::default(), Similarity::Cosine, dim)?;

    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (what, number) = line.split_once(' ').ok_or("a command and a number")?;
        let start = Instant::now();
        let (seconds, ids) = match what {
            "native" | "hnsw_rs" => {
                let builder = if what == "native" { HnswBuilder::Native } else { HnswBuilder::HnswRs };
                let config = HnswConfig { builder, ..HnswConfig::default() };
                graph = HnswIndex::new(&config, Similarity::Cosine, dim)?;
                graph.add(corpus)?;
                (start.elapsed().as_secs_f64(), Vec::new())
            }
            _ => {
                let index: &dyn VectorIndex = match what {
                    "scan" => &exact,
                    "int8" => &int8,
                    "walk" => &graph,
                    other => return Err(format!("what is {other:?}?").into()),
                };
                let params = SearchParams { k: 10, filter: None, ef: Some(number.parse()?) };
                let hits = index.search(queries, &params)?;
                let seconds = start.elapsed().as_secs_f64();
                (
                    seconds,
                    hits.iter()
                        .map(|hits| hits.iter().map(|hit| hit.id).collect())
                        .collect::<Vec<Vec<u32>>>(),
                )
            }
        };
        writeln!(out, "{}", serde_json::json!({ "seconds": seconds, "ids": ids }))?;
        out.flush()?;
    }
    Ok(())
}
