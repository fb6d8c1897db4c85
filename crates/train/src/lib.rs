//! The parts of a training loop, and no loop: a recipe calls these and stays readable from top to bottom.

pub mod checkpoint;
pub mod config;
mod early_stop;
mod error;
mod groups;
pub mod interrupt;
mod metrics;
mod progress;
mod rundir;
mod schedule;

pub use early_stop::{EarlyStopping, StopConfig};
pub use error::{Error, Result};
pub use groups::{OptimizerConfig, is_frozen, matches_pattern};
pub use metrics::{LossMeter, MetricSink};
pub use progress::Progress;
pub use rundir::RunDir;
pub use schedule::{Schedule, ScheduleConfig, Warmup};
