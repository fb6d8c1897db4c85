//! Cross-encoders: a question and a passage read together, one number for how well they match. Losses over lists of
//! candidates, training on what a first stage finds, re-ranking.
//!
//! A cross-encoder is a classifier over pairs with one label; its folder is the one that sentence-transformers'
//! `CrossEncoder` reads and writes.
//!
//! It knows both retrievers (whose results it is trained on) and classifiers (which it is one of), and is a crate of
//! its own so that `ragduet-retriever` knows no classifiers.

mod error;
pub mod loss;
mod model;
mod pairs;
pub mod recipe;

pub use error::{Error, Result};
pub use model::{Activation, CrossEncoder, cross_encoder_teacher};
