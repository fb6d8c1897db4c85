//! Indexes against exact search, formulas and other implementations.

mod bm25s;
mod common;
mod compressed;
mod exact;
mod filed;
mod fusion;
mod hnsw;
mod lexical;
mod manifest;
mod multi_vector;
mod sparse;
