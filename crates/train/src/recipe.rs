//! What a training method is: a [`Recipe`]. The loop over it is [`crate::run()`].
//!
//! A recipe says what its batches are, what a batch's loss is and how its model is measured and saved. The order of
//! things (evaluate, keep the best, checkpoint, stop) is the loop's and is not repeated here.

use crate::card::Card;
use crate::{Error, Goal, Learner, MetricSink, Progress, World};
use ragduet_torch::{Kind, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A training method over its model and its data.
pub trait Recipe {
    /// What one forward pass takes. Made ahead on another thread where the recipe wants it.
    type Batch: Send + 'static;
    /// What is measured on the dev set.
    type Scores: Clone;
    /// The crate's error.
    type Error: From<Error>;

    /// What the speed counts: `"pairs"` is logged as `pairs_per_second`.
    const UNIT: &'static str;

    /// All parameters that a checkpoint holds, by name, trained or not.
    fn parameters(&self) -> Vec<(String, Tensor)>;

    /// The optimisers, by name; a single one has the name `""`.
    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)>;

    /// Optimiser steps of one pass over the data.
    fn steps_per_epoch(&self) -> f64;

    /// A hash of what is trained on (see [`crate::Fingerprint`]): a run goes on with the data it was started with.
    fn fingerprint(&self) -> u64;

    /// What the log says of model and data before the first step.
    fn describe(&self) -> String;

    /// The windows of an epoch from the one numbered `from` on: a pure function of (data, config, seed, epoch).
    ///
    /// # Errors
    /// The recipe's own.
    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Self::Batch, Self::Error>, Self::Error>;

    /// What the losses of a batch are divided by; the loop adds it up over a window and over all processes. A recipe with a
    /// [`Recipe::step`] of its own adds up what it needs itself.
    fn counts(&self, _batch: &Self::Batch) -> Counts {
        Counts::default()
    }

    /// How many of [`Recipe::UNIT`] a batch has.
    fn units(&self, batch: &Self::Batch) -> u64;

    /// Ids of a batch's first examples, for messages.
    fn ids(&self, batch: &Self::Batch) -> Vec<String>;

    /// Adds the gradients of a batch's share of the loss; `totals`: the sum of [`Recipe::counts`] over the step. A recipe
    /// with a [`Recipe::step`] of its own has none.
    ///
    /// # Errors
    /// The recipe's own.
    fn backward(
        &mut self,
        _batch: &Self::Batch,
        _totals: &Counts,
        _run: &mut RunState,
    ) -> Result<Metrics, Self::Error> {
        let message = "it has neither `backward` nor a `step` of its own".to_string();
        Err(Error::Config { origin: "the recipe".into(), message }.into())
    }

    /// Measures the model as it is; `None` where there is no dev set.
    ///
    /// # Errors
    /// The recipe's own.
    fn evaluate(&mut self, run: &mut RunState) -> Result<Option<Evaluated<Self::Scores>>, Self::Error>;

    /// Whether a higher or a lower [`Evaluated::main`] is better.
    fn goal(&self) -> Goal {
        Goal::Max
    }

    /// Fills the folder of the model as the ecosystem reads it.
    ///
    /// # Errors
    /// The recipe's own.
    fn save_model(&self, dir: &Path, facts: &Facts<'_, Self::Scores>) -> Result<(), Self::Error>;

    /// What the model's card says (`README.md` of its folder); `None`: it has none.
    fn card(&self) -> Option<Card> {
        None
    }

    // Hooks.

    /// Lays the learning rate schedules over the run's steps.
    ///
    /// # Errors
    /// The recipe's own.
    fn begin(&mut self, total: u64) -> Result<(), Self::Error> {
        self.learners().into_iter().for_each(|(_, l)| l.plan(total));
        Ok(())
    }

    /// Once, after a checkpoint was restored or there was none, before anything is measured.
    ///
    /// # Errors
    /// The recipe's own.
    fn ready(&mut self, _resumed: bool, _run: &mut RunState) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Before each step: mining, refreshing. Says whether the rest of the epoch has to be planned anew.
    ///
    /// # Errors
    /// The recipe's own.
    fn before_step(&mut self, _run: &mut RunState) -> Result<Flow, Self::Error> {
        Ok(Flow::Continue)
    }

    /// One optimiser step over a window of batches.
    ///
    /// # Errors
    /// The recipe's own.
    fn step(&mut self, window: &[Self::Batch], run: &mut RunState) -> Result<Vec<Line>, Self::Error> {
        for (_, learner) in self.learners() {
            learner.clear()?;
        }
        let mut totals = Counts::default();
        window.iter().for_each(|b| totals.add(&self.counts(b)));
        let totals = run.world.sum(totals);
        let mut metrics = Metrics::default();
        for batch in window {
            metrics.add(self.backward(batch, &totals, run)?);
        }
        let loss = metrics.loss.unwrap_or_else(|| Tensor::from(0f64));
        let mut line = Line { kind: "train", loss: Some(loss.shallow_clone()), ..Line::default() };
        for (_, learner) in self.learners() {
            let update = learner.update(&loss, run)?;
            (line.lr, line.grad_norm) = (Some(update.lr), Some(update.grad_norm));
        }
        line.terms = metrics.terms;
        self.log(window, &mut line.values);
        Ok(vec![line])
    }

    /// More figures of a window for the log.
    fn log(&self, _window: &[Self::Batch], _values: &mut Vec<(&'static str, f64)>) {}

    /// After each step; `run.at.step` counts it. Says whether the model is to be measured now, whatever `[eval]` says.
    ///
    /// # Errors
    /// The recipe's own.
    fn after_step(&mut self, _run: &mut RunState) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// After each measurement, before it is decided whether the model is the best. At the start `run.at.step` is 0.
    ///
    /// # Errors
    /// The recipe's own.
    fn evaluated(
        &mut self,
        _scores: &Evaluated<Self::Scores>,
        _run: &mut RunState,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Whether nothing is left to train before the last step.
    fn is_over(&self, _run: &RunState) -> bool {
        false
    }

    /// After a step and its measurement, before its checkpoint; not after the last one.
    ///
    /// # Errors
    /// The recipe's own.
    fn end_of_step(&mut self, _run: &mut RunState) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Passes over the data that are done, for the log.
    fn epochs_done(&self, at: &At) -> f64 {
        let part = at.windows.map_or(0.0, |n| at.window as f64 / n.max(1) as f64);
        at.epoch as f64 + part
    }

    /// More files of a checkpoint.
    ///
    /// # Errors
    /// The recipe's own.
    fn save_extra(&self, _dir: &Path, _run: &RunState) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Reads what [`Recipe::save_extra`] wrote. Parameters and optimisers are restored after it, the generators last.
    ///
    /// # Errors
    /// The recipe's own.
    fn restore_extra(&mut self, _dir: &Path, _run: &mut RunState) -> Result<(), Self::Error> {
        Ok(())
    }

    /// What `best.json` says beside the step.
    fn best_facts(&self, dev: Option<&Evaluated<Self::Scores>>) -> Map<String, Value> {
        let dev = dev.map(|e| e.named.iter().map(|(n, v)| (n.clone(), json!(v))).collect::<Map<_, _>>());
        Map::from_iter([("dev".to_string(), json!(dev))])
    }

    /// After the best model was written: more files beside it.
    ///
    /// # Errors
    /// The recipe's own.
    fn kept_best(&mut self, _run: &RunState) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Once, when the run has come to its end (and was not interrupted).
    ///
    /// # Errors
    /// The recipe's own.
    fn finish(&mut self, _run: &mut RunState) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Whether the batches that were planned still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They do.
    Continue,
    /// What they are made of has changed: the rest of the epoch is planned again.
    Replan,
}

/// The windows of an epoch, made as they are asked for. A window is the batches of one optimiser step.
pub struct Epoch<B, E> {
    /// How many the whole epoch has; `None`: a stream without end, of which `At::window` counts the windows.
    pub windows: Option<usize>,
    /// Those from the wanted one on.
    pub rest: Box<dyn Iterator<Item = Result<Vec<B>, E>>>,
}

impl<T: Clone + 'static, E: 'static> Epoch<Vec<T>, E> {
    /// The windows of an order: batches of `size`, `accumulate` of them to a step.
    pub fn of(order: &[T], size: usize, accumulate: usize, from: usize) -> Self {
        let batches: Vec<Vec<T>> = order.chunks(size).map(<[T]>::to_vec).collect();
        Self::of_batches(batches, accumulate, from)
    }
}

impl<B: 'static, E: 'static> Epoch<B, E> {
    /// The windows of batches, `accumulate` of them to a step.
    pub fn of_batches(batches: Vec<B>, accumulate: usize, from: usize) -> Self {
        let windows = batches.len().div_ceil(accumulate);
        let rest = batches.into_iter().skip(from * accumulate).map(Ok);
        Self { windows: Some(windows), rest: windows_of(rest, accumulate) }
    }
}

/// Groups batches into windows of `accumulate`; the last may be smaller.
pub fn windows_of<B: 'static, E: 'static>(
    mut batches: impl Iterator<Item = Result<B, E>> + 'static,
    accumulate: usize,
) -> Box<dyn Iterator<Item = Result<Vec<B>, E>>> {
    Box::new(std::iter::from_fn(move || {
        let window: Result<Vec<B>, E> = batches.by_ref().take(accumulate).collect();
        match window {
            Ok(window) if window.is_empty() => None,
            window => Some(window),
        }
    }))
}

/// The generator by which an epoch is shuffled.
pub fn epoch_rng(seed: u64, epoch: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(xxh3_64_with_seed(&epoch.to_le_bytes(), seed))
}

impl<B, E> std::fmt::Debug for Epoch<B, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoch").field("windows", &self.windows).finish_non_exhaustive()
    }
}

/// What losses are divided by: queries, tokens, weights. As many numbers as the recipe wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts(pub Vec<f64>);

impl Counts {
    /// One number.
    pub fn one(n: impl Into<f64>) -> Self {
        Self(vec![n.into()])
    }

    /// Adds another batch's.
    pub fn add(&mut self, other: &Self) {
        self.0.resize(self.0.len().max(other.0.len()), 0.0);
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += b);
    }
}

impl std::ops::Index<usize> for Counts {
    type Output = f64;

    fn index(&self, i: usize) -> &f64 {
        &self.0[i]
    }
}

/// The loss of a batch and what it is made of, left on the device.
#[derive(Debug, Default)]
pub struct Metrics {
    /// The batch's share of the step's loss: f64, a scalar without a graph.
    pub loss: Option<Tensor>,
    /// Its parts, likewise.
    pub terms: Vec<(&'static str, Tensor)>,
}

impl Metrics {
    /// A share of the loss.
    pub fn of(loss: &Tensor) -> Self {
        Self { loss: Some(detached(loss)), terms: Vec::new() }
    }

    /// The same with a part of it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &Tensor) -> Self {
        self.terms.push((name, detached(value)));
        self
    }

    /// Adds another batch's, term by term.
    pub fn add(&mut self, other: Self) {
        self.loss = match (self.loss.take(), other.loss) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        for (name, value) in other.terms {
            match self.terms.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum = &*sum + value,
                None => self.terms.push((name, value)),
            }
        }
    }
}

fn detached(x: &Tensor) -> Tensor {
    x.detach().to_kind(Kind::Double).reshape([] as [i64; 0])
}

/// A line of the log that a step gives. It is written, and tensors are read, at log steps alone.
#[derive(Debug, Default)]
pub struct Line {
    /// `"train"`, or the side that learned.
    pub kind: &'static str,
    /// The step's loss; what is written is the mean since the last line of this kind.
    pub loss: Option<Tensor>,
    /// The learning rate.
    pub lr: Option<f64>,
    /// The gradients' norm before clipping.
    pub grad_norm: Option<f64>,
    /// Parts of the loss.
    pub terms: Vec<(&'static str, Tensor)>,
    /// More figures.
    pub values: Vec<(&'static str, f64)>,
}

/// What a measurement came to.
#[derive(Debug, Clone)]
pub struct Evaluated<S> {
    /// As the recipe has it.
    pub scores: S,
    /// The figure by which the best model is chosen.
    pub main: f64,
    /// All figures, for log, `metrics.jsonl` and `best.json`.
    pub named: Vec<(String, f64)>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct At {
    /// Optimiser steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// The current epoch, from 0.
    pub epoch: u64,
    /// Windows of it that are done.
    pub window: usize,
    /// Windows that it has; `None` where it has no end.
    pub windows: Option<usize>,
}

/// What hooks see of the run, and what they log to.
#[derive(Debug)]
pub struct RunState {
    /// Where it is.
    pub at: At,
    /// The processes that take part.
    pub world: World,
    /// The run folder.
    pub dir: PathBuf,
    /// Ids of the first examples of the step's window.
    pub examples: String,
    /// Where figures go.
    pub log: Log,
}

/// The run's log: figures go to `metrics.jsonl` and TensorBoard, words to the terminal around the moving line.
#[derive(Debug)]
pub struct Log {
    pub(crate) sink: MetricSink,
    pub(crate) progress: Progress,
}

impl Log {
    /// Writes figures of a step.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&mut self, kind: &str, step: u64, values: &[(&str, f64)]) -> crate::Result<()> {
        self.sink.write(kind, step, values)
    }

    /// Writes something that is no figure.
    ///
    /// # Errors
    /// As [`Log::write`].
    pub fn record(&mut self, kind: &str, step: u64, value: &impl serde::Serialize) -> crate::Result<()> {
        self.sink.record(kind, step, value)
    }

    /// Says something, with the moving line out of the way.
    pub fn say(&self, f: impl FnOnce()) {
        self.progress.aside(f);
    }
}

/// How the model that is saved came about.
#[derive(Debug)]
pub struct Facts<'a, S> {
    /// Optimiser steps done.
    pub step: u64,
    /// Dev before training, where it was measured.
    pub before: Option<&'a Evaluated<S>>,
    /// Dev with this model; `None` where there is no dev set.
    pub dev: Option<&'a Evaluated<S>>,
    /// The name of the run's folder.
    pub name: &'a str,
    /// The resolved config.
    pub config: &'a str,
}
