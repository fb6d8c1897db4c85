//! What the tests of recipes share. Each takes what it needs.
#![allow(dead_code)]

use ragduet_data::BatchSize;
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::RunOptions;
use ragduet_testkit::max_diff;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Device, Tensor};
use ragduet_train::config::Config as _;
use std::path::{Path, PathBuf};

pub fn options(out: &Path, resume: bool, stop_after: Option<u64>) -> RunOptions {
    RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() }
}

/// The parameters of a run's last checkpoint.
pub fn last_weights(run: &Path) -> Vec<(String, Tensor)> {
    let mut all: Vec<_> =
        std::fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    let w = Weights::open_file(&all.last().unwrap().join("parameters.safetensors")).unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

/// Two runs ended with the same parameters, bit for bit.
#[track_caller]
pub fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (last_weights(a), last_weights(b));
    assert_eq!(a.len(), b.len());
    for ((n, x), (m, y)) in a.iter().zip(&b) {
        assert_eq!(n, m);
        assert!(x.equal(y), "{n} differs by {:.2e}", max_diff(x, y));
    }
}

pub const THINGS: [&str; 10] =
    ["anchor", "beacon", "copper", "delta", "ember", "falcon", "granite", "harbour", "island", "juniper"];

/// A question and a passage for each thing.
pub fn write_pairs(dir: &Path) -> PathBuf {
    let row = |(i, t): (usize, &&str)| {
        let passage = format!("The {t}, of the north, stands {i} miles behind the road.");
        serde_json::json!({"query": format!("where is the {t}?"), "positive": passage}).to_string() + "\n"
    };
    let path = dir.join("pairs.jsonl");
    std::fs::write(&path, THINGS.iter().enumerate().map(row).collect::<String>()).unwrap();
    path
}

/// A tiny model on those pairs: `model` goes into its table, `more` behind the table of evaluation.
pub fn config(dir: &Path, model: &str, more: &str) -> RetrieverConfig {
    let text = format!(
        r#"
        [model]
        max_query_tokens = 12
        max_passage_tokens = 24
        {model}
        [model.scratch]
        vocab_size = 150
        hidden_size = 32
        layers = 2
        heads = 2
        intermediate_size = 64
        max_positions = 40
        dropout = 0.1
        [data]
        train = "{0}"
        dev = "{0}"
        [optim]
        lr = 2e-3
        [eval]
        measures = ["ndcg@10"]
        {more}
        "#,
        write_pairs(dir).display()
    );
    let mut c = RetrieverConfig::from_toml(&text).unwrap();
    (c.run.seed, c.run.precision, c.batch.size) = (3, "fp32".parse().unwrap(), BatchSize::Examples(5));
    c
}
