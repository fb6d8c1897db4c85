//! Going on with a run: where it was, and which settings may be others than when it was started.

use crate::groups::matches_pattern;
use crate::{At, EarlyStopping, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Settings that change nothing about the weights. Data may have moved; that it is the same is checked.
const HARMLESS: [&str; 9] = [
    "run.log_every",
    "run.device",
    "save",
    "eval",
    "data.train",
    "data.dev",
    "data.corpus",
    "data.queries",
    "data.answers",
];

/// Settings that may change with `--allow`, and what that does.
const ALLOWED: [(&str, &str); 9] = [
    ("run.epochs", "lays the learning rate schedule over another number of steps"),
    ("run.max_steps", "lays the learning rate schedule over another number of steps"),
    ("run.precision", "computes with other rounding from here on"),
    ("batch", "makes other batches: the place in the epoch becomes an approximate one"),
    ("grad_cache", "computes with other rounding from here on"),
    ("optim.lr", "changes the learning rate from here on"),
    ("optim.schedule", "changes the learning rate from here on"),
    ("optim.warmup", "changes the learning rate from here on"),
    ("optim.max_grad_norm", "clips gradients differently from here on"),
];

/// Checks the keys at which a resumed run's config differs. `allow`: those that the user allows (`--allow`).
///
/// # Errors
/// What may not differ, with what can be done; an `--allow` of something that cannot be allowed.
pub(crate) fn check_changes(run: &Path, changed: &[String], allow: &[String]) -> Result<()> {
    let fail = |why: String| Err(Error::RunDir { path: run.into(), why });
    let effect = |key: &str| ALLOWED.iter().find(|(p, _)| matches_pattern(p, key)).map(|(_, e)| *e);
    if let Some(key) = allow.iter().find(|a| effect(a).is_none() && *a != "batch") {
        let all: Vec<&str> = ALLOWED.iter().map(|(k, _)| *k).collect();
        return fail(format!("--allow {key}: cannot change within a run; these can: {}", all.join(", ")));
    }
    let allowed = |key: &str| allow.iter().any(|a| matches_pattern(a, key));
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for key in changed.iter().map(String::as_str).filter(|k| !HARMLESS.iter().any(|p| matches_pattern(p, k)))
    {
        match effect(key) {
            Some(effect) if allowed(key) => tracing::warn!("{key} differs, as --allow says: it {effect}"),
            Some(effect) => can.push(format!("--allow {key} ({effect})")),
            None => cannot.push(key),
        }
    }
    if !cannot.is_empty() {
        return fail(format!(
            "the run was started with another config; differing: {}. Resume with the same settings, or start a new run \
             with --out",
            cannot.join(", ")
        ));
    }
    if !can.is_empty() {
        return fail(format!(
            "the run was started with another config. To change it from here on: {}; or start a new run with --out",
            can.join(" ")
        ));
    }
    Ok(())
}

/// Where a run is; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Position {
    /// Optimiser steps done.
    pub step: u64,
    /// The current epoch.
    pub epoch: u64,
    /// Windows of it that are done.
    pub window: usize,
    /// Steps of the whole run, and of an epoch, as they were planned.
    pub total: u64,
    pub steps_per_epoch: f64,
    /// The best measurement so far, and how long it has been waited for a better one.
    pub best: EarlyStopping,
    /// The hash of the data.
    pub data: u64,
    /// Steps of each optimiser.
    pub learners: BTreeMap<String, u64>,
    /// How long `metrics.jsonl` was.
    pub log_bytes: u64,
}

impl Position {
    /// # Errors
    /// Another hash than the data's of the run.
    pub fn check_data(&self, now: u64, run: &Path) -> Result<()> {
        if self.data == now {
            return Ok(());
        }
        let why =
            "the data has changed since the run was started; put it back, or start a new run with --out";
        Err(Error::RunDir { path: run.into(), why: why.into() })
    }

    /// Says what another length does.
    pub fn say_changes(&self, at: &At, steps_per_epoch: f64) {
        if self.total != at.total {
            tracing::warn!(
                "the schedule is laid over {} steps where it was laid over {}: from step {} on the learning rate is \
                 another than it would have been",
                at.total,
                self.total,
                self.step
            );
        }
        if self.steps_per_epoch != steps_per_epoch {
            tracing::warn!(
                "an epoch has {steps_per_epoch:.1} steps where it had {:.1}: the run goes on at about the same share of \
                 epoch {}; some of its examples come again or not at all",
                self.steps_per_epoch,
                self.epoch
            );
        }
    }

    /// The window of the epoch to go on with, where an epoch has so many steps now.
    pub fn place_in_epoch(&self, steps_per_epoch: f64) -> usize {
        if self.steps_per_epoch == steps_per_epoch || self.steps_per_epoch <= 0.0 {
            return self.window;
        }
        (self.window as f64 / self.steps_per_epoch * steps_per_epoch) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changed: &[&str], allow: &[&str]) -> Result<()> {
        let owned = |keys: &[&str]| keys.iter().map(|k| (*k).to_string()).collect::<Vec<_>>();
        check_changes(Path::new("r"), &owned(changed), &owned(allow))
    }

    #[test]
    fn harmless_settings_may_change_and_others_by_permission() {
        check(&["run.log_every", "save.every_steps", "eval.limit", "data.train", "run.device"], &[]).unwrap();
        let e = check(&["run.epochs", "save.keep"], &[]).unwrap_err().to_string();
        assert!(e.contains("--allow run.epochs (lays the learning rate"), "{e}");
        check(&["run.epochs", "batch.size", "batch.accumulate"], &["run.epochs", "batch"]).unwrap();
        check(&["batch.size"], &["batch.size"]).unwrap();
        let e = check(&["model.projection", "run.epochs"], &["run.epochs"]).unwrap_err().to_string();
        assert!(e.contains("differing: model.projection."), "{e}");
        let e = check(&[], &["model.base"]).unwrap_err().to_string();
        assert!(e.contains("--allow model.base") && e.contains("run.max_steps"), "{e}");
    }

    #[test]
    fn the_place_in_an_epoch_is_kept_as_a_share() {
        let p = Position { window: 6, steps_per_epoch: 12.0, ..Position::default() };
        assert_eq!((p.place_in_epoch(12.0), p.place_in_epoch(24.0), p.place_in_epoch(3.0)), (6, 12, 1));
        assert!(p.check_data(1, Path::new("r")).is_err() && p.check_data(0, Path::new("r")).is_ok());
    }
}
