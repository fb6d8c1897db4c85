//! How generators are trained: a config and a loop that reads from top to bottom.

pub mod choice_config;
pub mod choices;
pub mod config;
pub mod distil;
pub mod distil_config;
pub mod parts;
pub mod preference;
pub mod sft;
mod supervised;

pub use ragduet_train::RunOptions;
