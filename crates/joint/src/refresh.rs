//! When the index follows the passage encoder: every so many steps, by a schedule, or when it is too stale; while
//! training waits, or beside it.
//!
//! A refresh in the background encodes with the weights as they were when it began, from a folder that they were
//! written to, and takes effect at a set number of steps later: training waits there if it is not done. So a run with
//! the same seed is the same run, however fast the machine is.

use crate::corpus::Corpus;
use crate::error::bad;
use crate::refreshed_index::RefreshedIndex;
use crate::{Error, Result};
use ragduet_index::IndexConfig;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, EncodeSettings};
use ragduet_train::checkpoint::replace_dir;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Index refresh. It is skipped while the passage encoder is unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshConfig {
    /// Optimizer steps between refreshes; 0: no periodic refresh.
    pub every_steps: u64,
    /// Refresh schedule in Atlas' notation, instead of `every_steps`: "0-1000:500,1000-10000:2000" refreshes every 500
    /// steps until step 1000, then every 2000.
    pub schedule: Option<String>,
    /// Staleness threshold in (0, 1]: refresh when this share of the top k after re-scoring was outside the index's own
    /// top k (mean of the last 10 steps). Absent: no threshold.
    pub staleness: Option<f64>,
    /// Background refresh: encoding runs beside training, and the new index is used this many steps later. Absent:
    /// training waits.
    pub background_steps: Option<u64>,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self { every_steps: 200, schedule: None, staleness: None, background_steps: None }
    }
}

/// Steps over which staleness is averaged.
const WINDOW: usize = 10;

impl RefreshConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A schedule that does not read as one; a share out of range.
    pub fn check(&self) -> Result<()> {
        self.spans()?;
        if self.staleness.is_some_and(|s| !(s > 0.0 && s <= 1.0)) {
            return Err(bad("refresh.staleness", "must be above 0 and at most 1"));
        }
        if self.background_steps == Some(0) {
            return Err(bad("refresh.background_steps", "must be 1 or more; leave it out to wait"));
        }
        Ok(())
    }

    fn spans(&self) -> Result<Vec<(u64, u64, u64)>> {
        let Some(text) = &self.schedule else { return Ok(Vec::new()) };
        let span = |part: &str| {
            let (range, every) = part.trim().split_once(':')?;
            let (from, to) = range.split_once('-')?;
            let (from, to, every) =
                (from.trim().parse().ok()?, to.trim().parse().ok()?, every.trim().parse().ok()?);
            (every > 0 && from < to).then_some((from, to, every))
        };
        text.split(',')
            .map(|part| {
                span(part).ok_or_else(|| {
                    bad("refresh.schedule", format!("`{part}` is not START-END:EVERY, such as 0-1000:500"))
                })
            })
            .collect()
    }

    /// Whether a refresh is due after `done` steps, the last one having begun after `last`. `stale`: the shares of the
    /// last steps, newest last.
    ///
    /// # Errors
    /// As [`RefreshConfig::check`].
    pub fn is_due(&self, done: u64, last: u64, stale: &[f64]) -> Result<bool> {
        if done == last {
            return Ok(false);
        }
        let spans = self.spans()?;
        let by_steps = if self.schedule.is_some() {
            spans
                .iter()
                .any(|&(from, to, every)| (from..to).contains(&done) && (done - from).is_multiple_of(every))
        } else {
            self.every_steps > 0 && done.is_multiple_of(self.every_steps)
        };
        let recent = &stale[stale.len().saturating_sub(WINDOW)..];
        let mean = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        let too_stale = recent.len() == WINDOW && self.staleness.is_some_and(|most| mean > most);
        Ok(by_steps || too_stale)
    }
}

/// A refresh beside the training.
#[derive(Debug)]
pub struct Background {
    /// The step that it began after.
    pub started: u64,
    worker: JoinHandle<Result<RefreshedIndex>>,
}

impl Background {
    /// Writes the model to `snapshot` and encodes the corpus with what is there.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn start(
        model: &BiEncoder,
        snapshot: &Path,
        corpus: &Arc<Corpus>,
        (index, encode): (&IndexConfig, EncodeSettings),
        step: u64,
    ) -> Result<Self> {
        replace_dir::<Error>(snapshot, |dir| Ok(st_dir::save(model, dir)?))?;
        Ok(Self::resume(snapshot, model, corpus, (index, encode), step))
    }

    /// [`Background::start`] from the folder that it wrote of `model`.
    pub fn resume(
        snapshot: &Path,
        model: &BiEncoder,
        corpus: &Arc<Corpus>,
        (index, encode): (&IndexConfig, EncodeSettings),
        started: u64,
    ) -> Self {
        let (dir, corpus, index) = (snapshot.to_path_buf(), Arc::clone(corpus), index.clone());
        let (device, compute) = (model.device, model.compute);
        let overrides = Overrides {
            max_query_tokens: Some(model.settings.max_query_tokens),
            max_passage_tokens: Some(model.settings.max_passage_tokens),
            // Frozen weights are kept as they are in training: passages are encoded by what encodes the questions.
            bits: model.query_tower.model.params.quantised().next().map(|(_, codes)| codes.bits()),
            ..Overrides::default()
        };
        let worker = std::thread::spawn(move || {
            let model = st_dir::load(&dir, device, compute, &overrides)?;
            RefreshedIndex::build(&model, corpus.texts(), &index, &encode, started)
        });
        Self { started, worker }
    }

    /// Waits for the index.
    ///
    /// # Errors
    /// Whatever stopped it.
    pub fn finish(self) -> Result<RefreshedIndex> {
        self.worker.join().map_err(|_| Error::Unusable("the refresh of the index failed inside".into()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(config: &RefreshConfig, steps: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        steps.filter(|&s| config.is_due(s, 0, &[]).unwrap()).collect()
    }

    #[test]
    fn refreshes_come_by_steps_or_by_the_schedule() {
        let every = RefreshConfig { every_steps: 3, ..RefreshConfig::default() };
        assert_eq!(due(&every, 0..=10), [3, 6, 9]);
        let atlas = RefreshConfig { schedule: Some("0-10:5, 10-40:10".into()), ..RefreshConfig::default() };
        assert_eq!(due(&atlas, 0..=45), [5, 10, 20, 30]);
        let never = RefreshConfig { every_steps: 0, ..RefreshConfig::default() };
        assert!(due(&never, 0..=1000).is_empty());
        for text in ["5", "5-3:1", "0-10:0", "0-10", "a-b:c", ""] {
            let c = RefreshConfig { schedule: Some(text.into()), ..RefreshConfig::default() };
            assert!(c.check().unwrap_err().to_string().contains("refresh.schedule"), "{text}");
        }
    }

    #[test]
    fn staleness_is_judged_over_ten_steps() {
        let c = RefreshConfig { every_steps: 0, staleness: Some(0.3), ..RefreshConfig::default() };
        assert!(!c.is_due(20, 5, &[0.9; 9]).unwrap());
        assert!(c.is_due(20, 5, &[0.31; 10]).unwrap());
        let falling: Vec<f64> = [0.9; 10].into_iter().chain([0.1; 10]).collect();
        assert!(!c.is_due(40, 5, &falling).unwrap());
        assert!(!c.is_due(5, 5, &[0.9; 10]).unwrap(), "just refreshed");
    }
}
