//! Training methods: recipes that [`ragduet_train::run()`] carries out.

pub mod config;
pub mod contrastive;
pub mod contriever;
mod dev;
mod distillation;
mod loader;
mod model;
mod save;

pub use model::{build as build_model, learner};
