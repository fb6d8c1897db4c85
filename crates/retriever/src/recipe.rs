//! Training methods: one function each, read from top to bottom.

pub mod config;
pub mod contrastive;
pub mod contriever;
mod loader;
mod model;
mod selection;
mod state;

pub use model::{build as build_model, learner};
