//! Whole jobs through the binary `ragduet`, on a slice of the shipped dataset.

mod bad_input;
mod choices;
mod classifier;
mod collections;
mod generator;
mod gguf;
mod job;
mod joint;
mod killed;
mod mutated;
mod mutator;
mod outputs;
mod own_data;
mod report;
mod reranker;
mod said;
mod shaped;
mod shapes;
mod sparse;
mod util;
