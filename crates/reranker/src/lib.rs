//! Cross-encoders: a question and a passage read together, one number for how well they match. Losses over lists of
//! candidates, training on what a first stage finds, re-ranking.
//!
//! A cross-encoder is a classifier over pairs with one label; its folder is the one that sentence-transformers'
//! `CrossEncoder` reads and writes.

mod error;
pub mod loss;
mod model;
pub mod recipe;

pub use error::{Error, Result};
pub use model::{Activation, CrossEncoder};
