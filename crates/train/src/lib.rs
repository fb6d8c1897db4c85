//! Training: the loop ([`run()`]), what a method is to it ([`Recipe`]), and the parts that both are made of.

mod artifact;
mod bases;
pub mod card;
mod checked;
pub mod checkpoint;
pub mod config;
mod context;
mod early_stop;
mod environment;
mod error;
mod error_enum;
mod events;
mod fingerprint;
mod groups;
pub mod interrupt;
mod learner;
mod lock;
mod loss_meter;
mod metrics;
mod moved;
mod options;
mod prefetch;
mod progress;
mod recipe;
mod reference;
mod resume;
mod run;
mod rundir;
mod schedule;
mod settings;
mod sources;
pub mod state;
mod world;

pub use card::Card;
pub use checkpoint::SaveConfig;
pub use context::RunContext;
pub use early_stop::{EarlyStopping, Goal, StopConfig};
pub use error::{Batch, Error, Result};
pub use fingerprint::Fingerprint;
pub use groups::{AdafactorConfig, OptimizerConfig, OptimizerName, matches_pattern};
pub use learner::{Learner, Place, Update, of_base};
pub use loss_meter::DeviceLossMeter;
pub use metrics::MetricSink;
pub use options::RunOptions;
pub use prefetch::{Prefetched, prefetch};
pub use progress::Progress;
pub use ragduet_data::Columns;
pub use recipe::{
    At, Counts, Epoch, Evaluated, Facts, Flow, Line, Log, Metrics, Recipe, RunState, epoch_rng, windows_of,
};
pub use run::{Finished, Outcome, run};
pub use rundir::{RETRIEVED, RunDir};
pub use schedule::{CosineConfig, Schedule, ScheduleConfig, Warmup, lr_factor};
pub use settings::{EvalSchedule, RecipeConfig, RunConfig, check_dropout};
/// For [`config!`] and [`recipe_config!`].
#[doc(hidden)]
pub use toml;
pub use world::World;
