//! Training methods: one function each, read from top to bottom.

pub mod config;
pub mod dense;
mod loader;
mod model;
mod state;

pub use model::{build as build_model, optimizer};
