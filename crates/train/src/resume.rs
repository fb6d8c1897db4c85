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

/// Settings that may change with `--allow`, and what that does. Those of `optim` and `grad_cache` are also a joint run's
/// two models'.
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

/// The two models of a joint run.
const SIDES: [&str; 2] = ["retriever.", "generator."];

/// Settings that are harmless elsewhere and not in a joint run.
const NOT_IN_JOINT: [(&str, &str); 3] =
    [("eval.every_steps", MEASURES), ("eval.every_epochs", MEASURES), ("eval.at_start", MEASURES)];
const MEASURES: &str =
    "refreshes the index at other steps, as each measurement does, and so finds other passages";

/// What changing a key does, where it can be allowed.
fn effect(key: &str, joint: bool) -> Option<&'static str> {
    let of = |table: &[(&str, &'static str)], key: &str| {
        table.iter().find(|(p, _)| matches_pattern(p, key)).map(|(_, e)| *e)
    };
    if !joint {
        return of(&ALLOWED, key);
    }
    let own = SIDES
        .iter()
        .find_map(|side| key.strip_prefix(side))
        .filter(|k| k.starts_with("optim.") || *k == "grad_cache" || k.starts_with("grad_cache."));
    of(&NOT_IN_JOINT, key).or_else(|| of(&ALLOWED, own.unwrap_or(key)))
}

/// All keys that can be allowed.
fn allowable(joint: bool) -> Vec<String> {
    let sides = |key: &str| -> Vec<String> {
        let own = key.starts_with("optim.") || key == "grad_cache";
        match joint && own {
            true => SIDES.iter().map(|side| format!("{side}{key}")).collect(),
            false => vec![key.into()],
        }
    };
    let more = if joint { &NOT_IN_JOINT[..] } else { &[] };
    ALLOWED.iter().flat_map(|(k, _)| sides(k)).chain(more.iter().map(|(k, _)| (*k).to_string())).collect()
}

/// Checks the keys at which a resumed run's config differs. `allow`: those that the user allows (`--allow`). `joint`:
/// whether the run trains retriever and generator together.
///
/// # Errors
/// What may not differ, with what can be done; an `--allow` of something that cannot be allowed.
pub(crate) fn check_changes(run: &Path, changed: &[String], allow: &[String], joint: bool) -> Result<()> {
    let fail = |why: String| Err(Error::RunDir { path: run.into(), why });
    let can_be = allowable(joint);
    let is_allowable =
        |asked: &str| can_be.iter().any(|k| matches_pattern(k, asked) || matches_pattern(asked, k));
    if let Some(key) = allow.iter().find(|a| !is_allowable(a)) {
        return fail(format!("--allow {key}: cannot change within a run; these can: {}", can_be.join(", ")));
    }
    let allowed = |key: &str| allow.iter().any(|a| matches_pattern(a, key));
    let harmless = |key: &str| {
        HARMLESS.iter().any(|p| matches_pattern(p, key))
            && !(joint && NOT_IN_JOINT.iter().any(|(p, _)| matches_pattern(p, key)))
    };
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for key in changed.iter().map(String::as_str).filter(|k| !harmless(k)) {
        match effect(key, joint) {
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
    /// Sum and number of the losses since the last line of the log, by kind.
    pub losses: BTreeMap<String, (f64, u64)>,
    /// Threads of libtorch; 0 in checkpoints of earlier versions.
    pub threads: usize,
    /// Hashes of the base models' folders, by key; none in checkpoints of earlier versions.
    pub bases: BTreeMap<String, String>,
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

    /// # Errors
    /// Another hash than that of the base model's folder when the run was started.
    pub fn check_bases(&self, now: &BTreeMap<String, String>, run: &Path) -> Result<()> {
        let changed = |(key, hash): &(&String, &String)| self.bases.get(*key).is_some_and(|was| was != *hash);
        let Some((key, _)) = now.iter().find(changed) else { return Ok(()) };
        let why = format!(
            "the model that `{key}` names has changed since the run was started; put it back, or start a new run with \
             --out"
        );
        Err(Error::RunDir { path: run.into(), why })
    }

    /// Says what another number of threads does.
    pub fn say_threads(&self, now: usize) {
        if self.threads != 0 && self.threads != now {
            tracing::warn!(
                "the run had {} threads and has {now} now: sums are split otherwise, so the weights are no longer bit \
                 for bit those of a run that was never stopped (OMP_NUM_THREADS sets the number)",
                self.threads
            );
        }
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
        check_changes(Path::new("r"), &owned(changed), &owned(allow), false)
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
    fn a_joint_run_has_two_optimizers_and_measurements_that_count() {
        let check = |changed: &[&str], allow: &[&str]| {
            let owned = |keys: &[&str]| keys.iter().map(|k| (*k).to_string()).collect::<Vec<_>>();
            check_changes(Path::new("r"), &owned(changed), &owned(allow), true)
        };
        check(&["eval.limit", "save.keep"], &[]).unwrap();
        let e = check(&["eval.every_steps"], &[]).unwrap_err().to_string();
        assert!(e.contains("--allow eval.every_steps (refreshes the index at other steps"), "{e}");
        check(&["eval.every_steps"], &["eval.every_steps"]).unwrap();
        let e = check(&["retriever.optim.lr"], &[]).unwrap_err().to_string();
        assert!(e.contains("--allow retriever.optim.lr (changes the learning rate"), "{e}");
        let both = ["retriever.optim.lr", "generator.optim.warmup", "generator.optim.schedule.linear"];
        check(&both, &["retriever.optim.lr", "generator.optim"]).unwrap();
        let e = check(&["generator.optim.adamw.eps"], &["generator.optim"]).unwrap_err().to_string();
        assert!(e.contains("differing: generator.optim.adamw.eps."), "{e}");
        assert!(check(&[], &["optim.lr"]).unwrap_err().to_string().contains("retriever.optim.lr"));
    }

    #[test]
    fn another_base_and_other_threads_are_noticed() {
        let of = |hash: &str| BTreeMap::from([("model.base".to_string(), hash.to_string())]);
        let p = Position { bases: of("a"), ..Position::default() };
        p.check_bases(&of("a"), Path::new("r")).unwrap();
        assert!(p.check_bases(&of("b"), Path::new("r")).unwrap_err().to_string().contains("`model.base`"));
        Position::default().check_bases(&of("b"), Path::new("r")).unwrap();
    }

    #[test]
    fn the_place_in_an_epoch_is_kept_as_a_share() {
        let p = Position { window: 6, steps_per_epoch: 12.0, ..Position::default() };
        assert_eq!((p.place_in_epoch(12.0), p.place_in_epoch(24.0), p.place_in_epoch(3.0)), (6, 12, 1));
        assert!(p.check_data(1, Path::new("r")).is_err() && p.check_data(0, Path::new("r")).is_ok());
    }
}
