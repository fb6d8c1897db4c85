//! The parts of a training loop, and no loop: a recipe calls these and stays readable from top to bottom.

mod checked;
pub mod checkpoint;
pub mod config;
mod early_stop;
mod environment;
mod error;
mod events;
mod groups;
pub mod interrupt;
mod lock;
mod loss_meter;
mod metrics;
mod progress;
mod rundir;
mod schedule;
mod sources;
pub mod state;
mod step;

pub use checkpoint::SaveConfig;
pub use early_stop::{EarlyStopping, Goal, StopConfig};
pub use error::{Error, Result};
pub use groups::{
    AdafactorConfig, OptimizerConfig, OptimizerName, check_patterns, is_frozen, matches_pattern,
};
pub use loss_meter::{DeviceLossMeter, LossMeter};
pub use metrics::MetricSink;
pub use progress::Progress;
pub use rundir::{RETRIEVED, RunDir};
pub use schedule::{CosineConfig, Schedule, ScheduleConfig, Warmup, lr_factor};
pub use step::{RunOptions, update};
/// For [`config!`].
#[doc(hidden)]
pub use toml;
