//! The parts of a config that all training methods share, and what the loop reads of a config.

use crate::config::Config;
use crate::{SaveConfig, StopConfig, checked};
use ragduet_torch::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seed, device, precision and length of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Random seed of new weights, data order, dropout and sampling.
    pub seed: u64,
    /// Device: `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Precision of matrix products; weights and optimiser states are fp32.
    pub precision: Precision,
    /// Passes over the training set. Without `epochs` and `max_steps` the method's default; with both, whichever ends
    /// first.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "checked::optional_positive")]
    pub epochs: Option<f64>,
    /// Optimiser steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Optimiser steps between lines of the log.
    pub log_every: u64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            device: "auto".into(),
            precision: Precision::default(),
            epochs: None,
            max_steps: None,
            log_every: 10,
        }
    }
}

impl RunConfig {
    /// Optimiser steps of the whole run, of which `per_epoch` make a pass over the data.
    pub fn total(&self, per_epoch: f64, default_epochs: f64) -> u64 {
        let of = |epochs: f64| (epochs * per_epoch).round().max(1.0) as u64;
        match (self.epochs, self.max_steps) {
            (None, None) => of(default_epochs),
            (Some(epochs), None) => of(epochs),
            (None, Some(steps)) => steps.max(1),
            (Some(epochs), Some(steps)) => of(epochs).min(steps.max(1)),
        }
    }
}

/// When a model is measured on the dev set while it trains; the keys of `[eval]` that all methods share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalSchedule {
    /// Optimiser steps between measurements; 0: none.
    pub every_steps: u64,
    /// Epochs between measurements; 0: none.
    pub every_epochs: u64,
    /// Whether the model is measured before training.
    pub at_start: bool,
    /// Early stopping.
    pub stop: Option<StopConfig>,
}

impl EvalSchedule {
    /// The sentence about a setting that cannot work, with its key. `dev`: whether there is a dev set.
    pub fn check(&self, dev: bool) -> Result<(), (&'static str, &'static str)> {
        let never = self.every_steps == 0 && self.every_epochs == 0;
        match self.stop {
            Some(_) if !dev || never => {
                Err(("eval.stop", "needs data.dev, and eval.every_steps or eval.every_epochs"))
            }
            _ => Ok(()),
        }
    }
}

/// Checks `model.dropout` and `model.attention_dropout`.
///
/// # Errors
/// The key and the sentence about one that is out of range.
pub fn check_dropout(
    hidden: Option<f64>,
    attention: Option<f64>,
) -> Result<(), (&'static str, &'static str)> {
    for (key, p) in [("model.dropout", hidden), ("model.attention_dropout", attention)] {
        if p.is_some_and(|p| !(0.0..1.0).contains(&p)) {
            return Err((key, "must be at least 0 and below 1"));
        }
    }
    Ok(())
}

/// A config of a training method.
pub trait RecipeConfig: Config {
    /// Passes over the training set where `[run]` says nothing.
    const EPOCHS: f64;

    /// `[run]`.
    fn run(&self) -> &RunConfig;

    /// `[save]`.
    fn save(&self) -> &SaveConfig;

    /// What `[eval]` shares with the other methods.
    fn eval(&self) -> EvalSchedule;

    /// `data.skip_bad_rows`.
    fn skip_bad_rows(&self) -> bool;

    /// `data.columns`.
    fn columns(&self) -> &ragduet_data::Columns;
}

/// Defines the config of a training method: the given tables, and `[run]` and `[save]`, which all have. The struct has
/// `eval`, with `every_steps`, `every_epochs`, `at_start` and `stop`, and `data`, with `skip_bad_rows` and `columns`.
///
/// `epochs`: the passes over the training set where `[run]` says nothing.
#[macro_export]
macro_rules! recipe_config {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* } epochs = $epochs:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Seed, device, precision and length of the run.
            #[serde(default)]
            pub run: $crate::RunConfig,
            $($body)*
            /// Checkpoints.
            #[serde(default)]
            pub save: $crate::SaveConfig,
        }

        $crate::config!($name);

        impl $crate::RecipeConfig for $name {
            const EPOCHS: f64 = $epochs;

            fn run(&self) -> &$crate::RunConfig {
                &self.run
            }

            fn save(&self) -> &$crate::SaveConfig {
                &self.save
            }

            fn eval(&self) -> $crate::EvalSchedule {
                $crate::EvalSchedule {
                    every_steps: self.eval.every_steps,
                    every_epochs: self.eval.every_epochs,
                    at_start: self.eval.at_start,
                    stop: self.eval.stop,
                }
            }

            fn skip_bad_rows(&self) -> bool {
                self.data.skip_bad_rows
            }

            fn columns(&self) -> &$crate::Columns {
                &self.data.columns
            }
        }
    };
}

/// Defines the `[eval]` of a training method: its own keys, each with its default, and when to measure, which all have.
/// The caller needs `serde` and `schemars`.
#[macro_export]
macro_rules! eval_config {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$of:meta])* pub $key:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$of])* pub $key: $type,)*
            /// Optimizer steps between evaluations; 0: at the end only.
            pub every_steps: u64,
            /// Epochs between evaluations; 0: at the end only.
            pub every_epochs: u64,
            /// Whether the model is also evaluated before the first step.
            pub at_start: bool,
            /// Early stopping; absent: never.
            pub stop: Option<$crate::StopConfig>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* every_steps: 0, every_epochs: 0, at_start: true, stop: None }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_and_steps_decide_the_length() {
        let c = |epochs, max_steps| RunConfig { epochs, max_steps, ..RunConfig::default() };
        assert_eq!(c(None, None).total(10.0, 3.0), 30);
        assert_eq!(c(Some(1.5), None).total(10.0, 3.0), 15);
        assert_eq!(c(None, Some(100)).total(10.0, 3.0), 100);
        assert_eq!(c(Some(2.0), Some(100)).total(10.0, 3.0), 20);
        assert_eq!(c(Some(2.0), Some(5)).total(10.0, 3.0), 5);
        assert_eq!(c(Some(0.001), None).total(10.0, 3.0), 1);
        let e = toml::from_str::<RunConfig>("epochs = 0.0").unwrap_err().to_string();
        assert!(e.contains("above 0"), "{e}");
    }
}
