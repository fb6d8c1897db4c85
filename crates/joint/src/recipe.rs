//! How a retriever and a generator are trained together: a config and a loop that reads from top to bottom.

pub mod config;
mod evaluate;
mod generator_turn;
mod index_life;
mod joint;
mod measure;
mod preference_turn;
mod retriever_turn;
mod sides;
mod state;
mod turns;

pub use evaluate::{DevScores, Sample};
pub use joint::{Outcome, train};
pub use ragduet_train::RunOptions;
