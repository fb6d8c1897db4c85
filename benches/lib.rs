//! Whole-workspace benches.
