//! How generators are trained: a config and a loop that reads from top to bottom.

pub mod config;
pub mod sft;
