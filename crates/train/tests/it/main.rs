//! Signals.

mod interrupt;
