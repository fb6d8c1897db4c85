//! Tests of the crate.

mod malformed;
mod types;
