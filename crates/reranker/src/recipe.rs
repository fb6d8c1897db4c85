//! Training of cross-encoders.

pub mod config;
mod lists;
mod train;

pub use train::{Outcome, train};
