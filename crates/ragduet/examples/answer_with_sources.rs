//! Answer questions from passages, with sources: a retriever, an index and a generator as one pipeline.
//!
//!     cargo run --release -p ragduet --example answer_with_sources
//!
//! It needs no network: both models are tiny and new. The generator learns eight answers by heart, which takes seconds; a
//! generator that reads what it has never seen is a matter of minutes (`ragduet quickstart`) or of a pretrained base. Of your
//! own models, an index folder and a generator's folder or hub id:
//!
//!     cargo run --release -p ragduet --example answer_with_sources -- my.idx runs/reader/best "what causes tides?"

use ragduet::train::{self, RunOptions, SftConfig};
use ragduet::{Generator, Index, Passage, Pipeline, Retriever, ScratchModel, use_caching_allocator};
use std::error::Error;
use std::io::Write;
use std::path::Path;

const FACTS: [(&str, &str, &str); 8] = [
    ("What causes tides?", "The moon causes tides.", "the moon"),
    ("What do bees make?", "Bees make honey from nectar.", "honey"),
    ("What is a glacier made of?", "A glacier is made of ice.", "ice"),
    ("What makes iron rust?", "Water makes iron rust.", "water"),
    ("Where do herons nest?", "Herons nest in tall trees.", "in tall trees"),
    ("When do bats hunt?", "Bats hunt at night.", "at night"),
    ("What do otters eat?", "Otters eat fish and crabs.", "fish and crabs"),
    ("What throws back an echo?", "A cliff throws back an echo.", "a cliff"),
];

fn main() -> Result<(), Box<dyn Error>> {
    use_caching_allocator();
    let given: Vec<String> = std::env::args().skip(1).collect();
    match given.as_slice() {
        [index, generator, questions @ ..] if !questions.is_empty() => own(index, generator, questions),
        [] => run(),
        _ => Err("give an index, a generator and questions, or nothing".into()),
    }
}

/// The example on models of one's own.
fn own(index: &str, generator: &str, questions: &[String]) -> Result<(), Box<dyn Error>> {
    let index = Index::open(index)?;
    // An index knows which model it was built with.
    let retriever = Retriever::load(index.model().ok_or("the index does not say which model made it")?)?;
    let pipeline = Pipeline::new(retriever, index, Generator::load(generator)?)?;
    questions.iter().try_for_each(|question| ask(&pipeline, question))
}

/// The example on tiny models.
pub fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;

    // 1. A generator learns to answer from a passage. Its training data: a question, passages and answers a line.
    let data = folder.path().join("train.jsonl");
    let line = |(question, passage, answer): (&str, &str, &str)| {
        format!(
            "{{\"question\": \"{question}\", \"contexts\": [\"{passage}\"], \"answers\": [\"{answer}\"]}}\n"
        )
    };
    std::fs::write(&data, FACTS.map(line).concat())?;
    let reader = train_generator(&data, &folder.path().join("reader"))?;

    // 2. A retriever (new, with random weights) and an index of the passages.
    let texts = FACTS.map(|(_, passage, _)| passage);
    let size = ScratchModel { vocab_size: 400, hidden_size: 64, layers: 1, ..ScratchModel::default() };
    let retriever = Retriever::from_scratch(&size, &texts, 1)?;
    let passages = texts.iter().map(|text| Passage::from_text(None, *text)).collect();
    let index = Index::build(&retriever, passages)?;

    // 3. All three as one. `Generator::load` found in the run how prompts are made and that they show one passage. What
    //    `train::joint` writes is such a pipeline already: `Pipeline::open("runs/joint")`.
    let mut generator = Generator::load(reader)?;
    // Room for the answer is kept in every prompt, here of 128 tokens in all: passages get what is left.
    generator.decoding.max_new_tokens = Some(16);
    let pipeline = Pipeline::new(retriever, index, generator)?;
    for (question, _, _) in &FACTS[..3] {
        ask(&pipeline, question)?;
    }
    let right = FACTS.iter().map(|(question, _, answer)| Ok(pipeline.ask(question)?.text == *answer));
    let right: Vec<bool> = right.collect::<ragduet::Result<_>>()?;
    let count = right.iter().filter(|r| **r).count();
    println!("{count} of {} answers are right", FACTS.len());
    assert!(count >= 6, "eight answers are learned by heart");
    Ok(())
}

/// Asks, and prints the answer as it is generated.
fn ask(pipeline: &Pipeline, question: &str) -> Result<(), Box<dyn Error>> {
    println!("{question}");
    let answer = pipeline.ask_streaming(question, |piece| {
        print!("{piece}");
        let _ = std::io::stdout().flush();
    })?;
    // The sources are the passages as the prompt had them, and in its order.
    for source in &answer.sources {
        println!("\n  from: {}", source.text);
    }
    println!();
    match answer.dropped {
        0 => Ok(()),
        n => {
            Err(format!("no room for {n} passages: raise the prompt's tokens or lower max_new_tokens").into())
        }
    }
}

/// Trains a tiny generator; the folder of its best model.
fn train_generator(data: &Path, out: &Path) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let mut config: SftConfig = train::parse_config(
        r#"
        run = { seed = 1, max_steps = 60 }
        batch.tokens = 1024
        contexts.count = 1
        data.train = "set below"
        optim.lr = 3e-3
        prompt.template = { instruction = "", question = "first" }

        [model.scratch]
        vocab_size = 400
        hidden_size = 64
        intermediate_size = 128
        kv_heads = 2
        heads = 2
        layers = 2
        max_positions = 128
        "#,
    )?;
    config.data.train = data.into();
    let outcome = train::generator(&config, &RunOptions { quiet: true, ..RunOptions::new(out) })?;
    println!("trained {} steps; {}\n", outcome.step, outcome.notes.join("; "));
    Ok(outcome.model.ok_or("the run was interrupted before it had a model")?)
}
