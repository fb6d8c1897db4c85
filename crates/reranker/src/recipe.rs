//! Training of cross-encoders.

pub mod config;
mod cross_encoder;
mod first_stage;
mod lists;

pub use cross_encoder::{Outcome, train};
