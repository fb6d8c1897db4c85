//! How classifiers are trained: a config and a loop that reads from top to bottom.

mod config;
mod fine_tune;

pub use config::{
    BatchConfig, ClassifierConfig, DataConfig, EvalConfig, ModelConfig, SamplingConfig, TrainConfig,
};
pub use fine_tune::{Outcome, train};
