//! Encode texts, compare them, index passages, search them, and keep the index.
//!
//!     cargo run --release -p ragduet --example encode_and_search
//!
//! It needs no network: without an argument it makes a tiny retriever with random weights, which shows the calls and finds
//! hardly better than chance. For a real one give a folder or an id of the Hugging Face hub:
//!
//!     cargo run --release -p ragduet --example encode_and_search -- sentence-transformers/all-MiniLM-L6-v2

use ragduet::{Index, Passage, Retriever, ScratchModel};
use std::error::Error;

const PASSAGES: [(&str, &str); 5] = [
    ("Tides", "The gravity of the moon and the sun causes tides in the oceans."),
    ("Honey", "Bees make honey from the nectar of flowers and keep it in combs."),
    ("Glaciers", "A glacier is a body of ice that moves slowly under its own weight."),
    ("Rust", "Iron rusts where water and oxygen reach it; salt makes it rust sooner."),
    ("Echoes", "An echo is sound that a wall or a cliff throws back to the listener."),
];

fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().nth(1))
}

/// The example. `model`: a folder or hub id; without one a model with random weights is made.
pub fn run(model: Option<String>) -> Result<(), Box<dyn Error>> {
    // 1. A retriever. `load` takes the fastest device that there is; `load_with` takes one of your choice.
    let retriever = match model {
        Some(id) => Retriever::load(id)?,
        None => {
            // The tokenizer of a new model is trained on texts: here on the passages themselves.
            let size =
                ScratchModel { vocab_size: 400, hidden_size: 64, layers: 1, ..ScratchModel::default() };
            let texts: Vec<String> = PASSAGES.iter().map(|(title, text)| format!("{title} {text}")).collect();
            Retriever::from_scratch(&size, &texts, 1)?
        }
    };

    // 2. Texts to vectors. Queries and passages have prompts and length limits of their own, so say which they are.
    let questions = ["What makes iron rust?", "What is an echo?"];
    let queries = retriever.encode_queries(&questions)?;
    let passages = retriever.encode_passages(&PASSAGES.map(|(_, text)| text))?;
    println!("{} passages as vectors of {} numbers", passages.len(), passages.dim());
    for (question, scores) in questions.iter().zip(queries.scores(&passages)) {
        println!("{question}  {scores:.2?}");
    }

    // 3. An index keeps vectors and passages together. Each passage has an id; `from_text` makes one of the text.
    //    For a corpus in a file: `ragduet::read_corpus("corpus.jsonl")?`.
    let corpus = PASSAGES.map(|(title, text)| Passage::from_text(Some(title.into()), text)).to_vec();
    let index = Index::build(&retriever, corpus)?;
    let found = index.search_all(&retriever, &questions, 2)?;
    for (question, hits) in questions.iter().zip(&found) {
        println!("\n{question}");
        for hit in hits {
            println!("  {:.3}  {}", hit.score, hit.passage.text);
        }
    }

    // 4. Saved, it is one folder: vectors, ids and passages. `ragduet search --index` reads it as well.
    let folder = tempfile::tempdir()?;
    let saved = folder.path().join("passages.idx");
    index.save(&saved)?;
    assert_eq!(Index::open(&saved)?.search_all(&retriever, &questions, 2)?, found);
    println!("\nThe index that was saved and opened again finds the same.");
    Ok(())
}
