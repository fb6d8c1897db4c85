//! The shipped files: what the generator writes, and that they are sound.

mod committed;
mod tasks;
