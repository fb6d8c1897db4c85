//! How classifiers are trained: their config, and the recipe that [`ragduet_train::run()`] carries out.

mod card;
mod classifier;
mod config;
mod model_config;
mod reward;

pub use classifier::{Outcome, train};
pub use config::{BatchConfig, ClassifierConfig, DataConfig, EvalConfig, SamplingConfig};
pub use model_config::ModelConfig;
pub use reward::{BradleyTerry, RewardConfig, RewardEvalConfig, RewardOutcome, RewardScores, train_reward};
