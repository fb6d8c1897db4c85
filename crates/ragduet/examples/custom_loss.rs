//! Train a retriever with a loss of your own.
//!
//!     cargo run --release -p ragduet --example custom_loss
//!
//! It needs no network and makes its own data: a small encoder with random weights learns which colour belongs to which
//! animal. The loss is the pairwise sigmoid loss of SigLIP (Zhai et al., 2023, arXiv 2303.15343): every pair of a query and a
//! passage in the batch is a yes or a no, instead of a softmax over the passages.

use ragduet::loss::{Kind, LossBatch, RetrievalLoss, Tensor};
use ragduet::train::{self, RetrieverConfig, RunOptions};
use ragduet::use_caching_allocator;
use std::error::Error;

/// -log sigmoid(y (scale similarity + bias)), y = 1 for the passages that answer a query and -1 for the others.
#[derive(Debug)]
struct Sigmoid {
    /// Most pairs are no: a negative bias says so from the start.
    bias: f64,
}

impl RetrievalLoss for Sigmoid {
    fn loss(&self, batch: &LossBatch<'_>) -> Tensor {
        // Similarities [queries, passages], times 1 / temperature. Gradients flow through what is computed from them.
        let logits = batch.similarities() * batch.scale + self.bias;
        let (queries, passages) = (batch.relations.positive.len(), logits.size()[1] as usize);
        // Who belongs to whom is in the relations: a positive per query, and further passages that are relevant as well.
        let mut signs = vec![-1f32; queries * passages];
        let positive = batch.relations.positive.iter().copied().enumerate();
        for (query, passage) in positive.chain(batch.relations.also_relevant.iter().copied()) {
            signs[query * passages + passage] = 1.0;
        }
        // A passage that is the query's own text says nothing.
        for &(query, passage) in &batch.relations.own_copies {
            signs[query * passages + passage] = 0.0;
        }
        let signs = Tensor::from_slice(&signs).view_as(&logits).to_device(logits.device());
        // The mean over queries, so that batches of all sizes count alike.
        -(logits * signs).log_sigmoid().sum(Kind::Float) / queries as f64
    }

    /// In-batch negatives are enough.
    fn needs_negatives(&self) -> bool {
        false
    }

    /// It learns from no teacher's scores.
    fn needs_teacher(&self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    use_caching_allocator();
    run()
}

/// The example.
pub fn run() -> Result<(), Box<dyn Error>> {
    // 1. Training data: a query and a positive a line (`docs/data.md` lists what else is read).
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("train.jsonl");
    std::fs::write(&data, examples())?;

    // 2. The config. It has no [loss]: that is what the program brings.
    let toml = "run = { seed = 1, max_steps = 60, log_every = 1 }\n\
                model.max_query_tokens = 16\n\
                model.max_passage_tokens = 16\n\
                model.scratch = { vocab_size = 300, hidden_size = 32, layers = 1, heads = 2, max_positions = 16, \
                                  intermediate_size = 64, dropout = 0.0 }\n\
                data.train = \"set below\"\n\
                batch.size = { examples = 16 }\n\
                temperature.value = 0.1\n\
                optim.lr = 1e-2\n";
    let mut config: RetrieverConfig = train::parse_config(toml)?;
    config.data.train = data;

    // 3. The run. All that training has goes with the loss: gradient caching, late interaction, checkpoints.
    let options = RunOptions { quiet: true, ..RunOptions::new(folder.path().join("run")) };
    let outcome = train::retriever_with_loss(&config, &options, Box::new(Sigmoid { bias: -5.0 }))?;

    // 4. The run folder has the metrics, an object a line.
    let losses = losses(&std::fs::read_to_string(options.out.join("metrics.jsonl"))?)?;
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    println!("loss {first:.3} -> {last:.3} in {} steps", outcome.step);
    assert!(last < first / 2.0, "it learns");
    Ok(())
}

/// Pairs such as "colour of the heron?" and "herons are grey", as JSON Lines.
fn examples() -> String {
    const ANIMALS: [&str; 8] = ["heron", "otter", "newt", "magpie", "hare", "adder", "finch", "toad"];
    const COLOURS: [&str; 8] = ["grey", "brown", "orange", "white", "red", "black", "green", "yellow"];
    let pairs = ANIMALS.iter().zip(COLOURS).flat_map(|(animal, colour)| {
        let animals: Vec<String> =
            ["old", "young", "wild", "tame"].iter().map(|k| format!("{k} {animal}")).collect();
        animals.into_iter().map(move |a| {
            format!("{{\"query\": \"colour of the {a}?\", \"positive\": \"the {a} is {colour}\"}}\n")
        })
    });
    pairs.collect()
}

/// The training loss of each line of the log.
fn losses(metrics: &str) -> Result<Vec<f64>, Box<dyn Error>> {
    let rows = metrics.lines().map(serde_json::from_str).collect::<Result<Vec<serde_json::Value>, _>>()?;
    Ok(rows.iter().filter_map(|row| row.get("loss")?.as_f64()).collect())
}
