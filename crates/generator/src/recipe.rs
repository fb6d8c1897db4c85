//! How generators are trained: a config and a recipe of [`ragduet_train::run()`] for each method.

mod card;
pub mod config;
pub mod distil;
pub mod parts;
pub mod preference;
pub mod sft;
mod supervised;
pub mod tfew;

pub use config::{DistilConfig, PreferenceConfig, SftConfig, TfewConfig};
pub use ragduet_train::RunOptions;
