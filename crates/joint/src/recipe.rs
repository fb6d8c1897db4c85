//! Joint training: its config, and the recipe that [`ragduet_train::run()`] trains.

mod alarms;
mod alternation;
pub mod config;
mod data;
mod dev_meter;
mod evaluate;
mod generator_step;
mod index_refresh;
mod joint;
mod judge;
mod kept_scores;
mod links;
mod preference_step;
mod retriever_step;
mod seconds;
mod sides;

pub use alternation::{Alternating, Alternation, Simultaneous, Trainee};
pub use evaluate::{DevScores, Sample};
pub use joint::{Outcome, train};
pub use ragduet_train::RunOptions;
pub use seconds::Seconds;
