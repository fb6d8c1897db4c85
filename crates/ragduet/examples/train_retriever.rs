//! Train a retriever on questions and the passages that answer them, measure it, and use it.
//!
//!     cargo run --release -p ragduet --example train_retriever
//!
//! It needs no network: a small encoder with random weights learns from the dataset that comes with the project
//! (`datasets/maravel`, in the layout of BEIR). A few seconds make it better than it was, not good; for a good one start
//! from a pretrained model (`[model] base = "..."` instead of `[model.scratch]`) and train longer.

use ragduet::train::{self, RetrieverConfig, RunOptions};
use ragduet::{Index, Retriever, read_corpus, use_caching_allocator};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    // Steps on the CPU are faster with it. It belongs before the first tensor.
    use_caching_allocator();
    run()
}

/// The example.
pub fn run() -> Result<(), Box<dyn Error>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/maravel");

    // 1. The config: the same keys as for `ragduet train retriever`; `docs/config/retriever.md` has all of them. From a
    //    file: `train::load_config("retriever.toml", &["optim.lr=1e-3"])?`.
    let mut config: RetrieverConfig = train::parse_config(
        r#"
        [run]
        seed = 1
        max_steps = 40

        [model]
        max_query_tokens = 32
        max_passage_tokens = 64

        [model.scratch]
        vocab_size = 2000
        hidden_size = 64
        layers = 1
        heads = 2
        intermediate_size = 128
        max_positions = 64
        dropout = 0.0

        [data]
        train = "set below"

        [batch]
        size = { examples = 64 }

        [optim]
        lr = 3e-3

        [eval]
        measures = ["ndcg@10", "recall@10"]
        max_passages = 500
        "#,
    )?;
    //    Its tables are fields, so that what only the program knows can be set from code. The dev set decides which model
    //    of the run is the best.
    config.data.train = data.clone();
    config.data.dev = Some(data.clone());

    // 2. The run. Its folder gets the best model, checkpoints and metrics; Ctrl-C saves, and `RunOptions::resume` goes on.
    let folder = tempfile::tempdir()?;
    let options = RunOptions { quiet: true, ..RunOptions::new(folder.path().join("run")) };
    let outcome = train::retriever(&config, &options)?;
    for ((name, before), (_, after)) in outcome.before.iter().zip(&outcome.best) {
        println!("{name:<10} {before:.4} -> {after:.4}  ({} steps)", outcome.step);
    }

    // 3. The best model is a sentence-transformers folder, here and in Python.
    let best = outcome.model.ok_or("the run was interrupted before it had a model")?;
    let retriever = Retriever::load(best)?;
    let index = Index::build(&retriever, read_corpus(&data)?)?;
    let question = "What is the wingspan of the marsh tordra?";
    println!("\n{question}");
    for hit in index.search(&retriever, question, 3)? {
        let start: String = hit.passage.text.chars().take(90).collect();
        println!("  {:.3}  {}: {start}...", hit.score, hit.passage.title.unwrap_or_default());
    }
    Ok(())
}
