//! Joint training of a retriever and a generator, and the pipeline of both.
//!
//! The only crate that knows both. A step retrieves with the current retriever, scores the answers given each passage
//! with the current generator, and an objective turns the two into a loss whose gradient reaches the retriever, the
//! generator or both.

pub mod attend;
pub mod corpus;
pub mod diagnose;
mod error;
pub mod objective;
pub mod pipeline;
pub mod recipe;
pub mod refresh;
pub mod refreshed_index;
pub mod retrieve;
pub mod score;

pub use error::{Error, Result};
