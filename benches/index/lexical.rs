//! Measures a lexical index: seconds to build it, queries per second. `scripts/bench_lexical` runs it beside bm25s.
//!
//! ```text
//! cargo run --release -p ragduet-index-benches --bin index_lexical -- texts.txt queries.txt
//! ```
//!
//! The files hold one text or query a line, its terms separated by spaces. One line of JSON comes out.

use std::time::Instant;

use ragduet_index::{LexicalConfig, LexicalIndex, SearchParams};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut lines = || -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let path = args.next().ok_or("give two files: texts and queries")?;
        Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
    };
    let (texts, queries) = (lines()?, lines()?);

    let start = Instant::now();
    let mut index = LexicalIndex::new(&LexicalConfig::terms_as_they_are())?;
    index.add(&texts)?;
    // The first search computes the scores.
    index.search(&queries[..1], &SearchParams::top(1))?;
    let build = start.elapsed().as_secs_f64();

    let mut rates = serde_json::Map::new();
    for k in [10, 100] {
        let start = Instant::now();
        let hits = index.search(&queries, &SearchParams::top(k))?;
        let rate = queries.len() as f64 / start.elapsed().as_secs_f64();
        let best: f64 = hits.iter().filter_map(|hits| hits.first()).map(|hit| f64::from(hit.score)).sum();
        rates.insert(k.to_string(), serde_json::json!({"rate": rate, "best": best}));
    }
    println!("{}", serde_json::json!({"build": build, "top": rates}));
    Ok(())
}
