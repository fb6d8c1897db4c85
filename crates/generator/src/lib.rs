//! Generators for RAG: the losses that train them, decoding, and the contexts that a training example shows.
//!
//! - [`loss`]: supervised and preference losses over log-probabilities; no model is known here.
//! - [`decode`]: greedy, sampled and beam decoding over a [`decode::Stepper`], with transformers' semantics.
//! - [`faithfulness`]: what answers owe to their contexts.
//! - [`contexts`]: which passages stand in a training prompt, as a pure function of (seed, epoch, example).

pub mod contexts;
pub mod decode;
mod error;
pub mod faithfulness;
pub mod loss;

pub use error::{Error, Result};
