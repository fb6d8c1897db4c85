//! Measures multi-vector indexes over token vectors from files. `scripts/bench_multi_vector` drives it beside
//! fast-plaid; by hand:
//!
//! ```text
//! cargo run --release -p ragduet-index-benches --bin index_multi_vector -- DIR [bits]
//! ```
//!
//! `DIR` holds `passages.npy` and `queries.npy` (`float32`, one row a token) and `passages.txt` and `queries.txt` (the
//! number of tokens of each, one a line). The program builds an exact and a compressed index, says what they take, and
//! then does what each line on standard input asks for: `exact|default|plaid k`, or `alone k` for one query at a time.
//! It answers with one line of JSON: seconds, and the ids found.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use ragduet_index::{
    CompressedMultiVectorIndex, ExactConfig, ExactMultiVectorIndex, MultiSearchParams, MultiVectorIndex,
    MultiVectors, Precision, ResidualConfig, recall_of_multi_vectors,
};
use serde_json::json;

struct Sets {
    data: Vec<f32>,
    offsets: Vec<usize>,
    dim: usize,
}

impl Sets {
    fn read(dir: &Path, name: &str) -> Result<Self, Box<dyn Error>> {
        let bytes = fs_err::read(dir.join(format!("{name}.npy")))?;
        let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]])) + 10;
        let text = std::str::from_utf8(&bytes[10..header])?;
        let dim = text.split(&['(', ',', ')'][..]).filter_map(|part| part.trim().parse().ok()).nth(1);
        let (true, Some(dim)) = (text.contains("'<f4'") && text.contains("False"), dim) else {
            return Err(format!("{name}.npy is not a matrix of float32 by rows: {text}").into());
        };
        let data = bytes[header..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut offsets = vec![0];
        for line in fs_err::read_to_string(dir.join(format!("{name}.txt")))?.lines() {
            offsets.push(offsets[offsets.len() - 1] + line.trim().parse::<usize>()?);
        }
        Ok(Self { data, offsets, dim })
    }

    fn view(&self) -> ragduet_index::Result<MultiVectors<'_>> {
        MultiVectors::new(&self.data, &self.offsets, self.dim)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("give a directory")?;
    let bits = std::env::args().nth(2).map_or(Ok(4), |bits| bits.parse())?;
    let (passages, queries) =
        (Sets::read(Path::new(&dir), "passages")?, Sets::read(Path::new(&dir), "queries")?);
    let (passages, queries) = (passages.view()?, queries.view()?);

    let mut exact = ExactMultiVectorIndex::new(&ExactConfig { precision: Precision::F32 }, passages.dim())?;
    exact.add(passages)?;
    let config = ResidualConfig { bits, ..ResidualConfig::default() };
    let start = Instant::now();
    let index = CompressedMultiVectorIndex::build(&config, passages)?;
    println!(
        "{}",
        json!({
            "threads": rayon::current_num_threads(),
            "build_seconds": start.elapsed().as_secs_f64(),
            "passages": index.live(),
            "tokens": index.tokens(),
            "centroids": index.centroids(),
            "bytes": index.bytes(),
            "bytes_per_passage": index.bytes_per_passage(),
            "share_of_f32": index.bytes() as f64 / exact.bytes() as f64,
            "share_of_f16": index.bytes() as f64 / (exact.bytes() as f64 / 2.0),
            "recall_at_10": recall_of_multi_vectors(&index, &exact, queries, &MultiSearchParams::top(10))?,
        })
    );
    for line in std::io::stdin().lines() {
        let line = line?;
        let (what, k) = line.split_once(' ').ok_or("give what to search with, and k")?;
        let k = k.parse()?;
        let start = Instant::now();
        let hits = match what {
            "exact" => exact.search(queries, &MultiSearchParams::top(k))?,
            "default" => index.search(queries, &MultiSearchParams::top(k))?,
            "plaid" => index.search(queries, &MultiSearchParams::plaid(k))?,
            "alone" => {
                let mut hits = Vec::new();
                for query in queries.sets() {
                    let offsets = [0, query.len()];
                    let query = MultiVectors::new(query.data(), &offsets, query.dim())?;
                    hits.extend(index.search(query, &MultiSearchParams::top(k))?);
                }
                hits
            }
            _ => return Err(format!("{what}: not exact, default, plaid or alone").into()),
        };
        let seconds = start.elapsed().as_secs_f64();
        let ids: Vec<Vec<u32>> = hits.iter().map(|hits| hits.iter().map(|hit| hit.id).collect()).collect();
        println!("{}", json!({ "seconds": seconds, "ids": ids }));
    }
    Ok(())
}
