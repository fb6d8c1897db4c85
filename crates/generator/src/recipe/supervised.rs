//! The loop of all recipes that learn answers token by token from records: supervised fine-tuning, distillation.
//!
//! Examples of an epoch are made anew (other distractors, dropped golden passages), shuffled and laid one after another
//! into forward passes of `batch.tokens`. The loss of a step is the mean over the learned tokens of its whole window;
//! what a token costs is the recipe's ([`TokenLoss`]). Batches are a pure function of (data, config, seed, epoch): a
//! checkpoint stores a place, and a resumed run repeats on the CPU what the uninterrupted one does, bit for bit.

use super::config::{DataConfig, SftConfig};
use super::parts::{bad_rows, optimizer, save_best, trainable};
use crate::answers::{AnswerOptions, AnswerScores, answer_all};
use crate::contexts::ContextConfig;
use crate::error::{Error, Result, catch};
use crate::model::Generator;
use crate::packed::PackedExamples;
use crate::prepare::{PrepareReport, Preparer};
use crate::substitute::Substitutes;
use ragduet_data::{RagRecord, read_records};
use ragduet_text::TrainExample;
use ragduet_torch::Device;
use ragduet_torch::optim::Optimizer;
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{
    EarlyStopping, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, interrupt, state, update,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the run came to its end (and was not interrupted).
    pub finished: bool,
    /// The best model's folder (the last one's, where there is no dev set).
    pub model_dir: PathBuf,
    /// The dev set with the best model.
    pub best: Option<AnswerScores>,
    /// What became of the training records in the last epoch made.
    pub prepared: PrepareReport,
    /// Tokens per second, evaluation left out.
    pub tokens_per_second: f64,
    /// Learned tokens per second.
    pub targets_per_second: f64,
}

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    step: u64,
    epoch: u64,
    /// Windows of the epoch that are done.
    window: usize,
    best: EarlyStopping,
}

/// What a token of an answer costs.
pub(super) trait TokenLoss {
    /// The share of a batch in the loss of a window that has so many learned tokens; its gradients are added to the
    /// student's.
    ///
    /// # Errors
    /// libtorch's, and those of reading what was kept of a teacher.
    fn learn(&self, student: &Generator, batch: &PackedExamples, window_tokens: u64) -> Result<Share>;
}

/// The share of a batch in a window's loss.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// What is minimised.
    pub loss: f64,
    /// What it is made of, for the log.
    pub terms: Vec<(&'static str, f64)>,
}

/// A run that is to be carried out.
pub(super) struct Job<'a> {
    pub config: &'a SftConfig,
    pub options: &'a RunOptions,
    pub dir: &'a RunDir,
    pub device: Device,
    /// What learns.
    pub generator: &'a Generator,
    /// What it learns from.
    pub records: &'a [RagRecord],
    /// What it answers while it learns.
    pub dev: &'a [RagRecord],
    pub loss: &'a dyn TokenLoss,
    /// The examples of the first epoch come again in all others.
    pub same_examples: bool,
}

/// Trains from the records, or goes on where the run's last checkpoint stands.
pub(super) fn learn(job: &Job<'_>) -> Result<Outcome> {
    let Job { config, options, generator, device, dev, .. } = *job;
    let mut optimizer = optimizer(&config.optim, generator)?;
    let parameters = generator.trained().named();
    let lessons = Lessons::new(generator, config, job.records, job.same_examples)?;
    let (mut windows, mut report) = lessons.epoch(0)?;
    let planned = windows.len() as u64 * config.train.epochs;
    let total = config.train.max_steps.map_or(planned, |m| m.min(planned));
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    let (all, training) = trainable(generator);
    tracing::info!(
        "{report}; {training} of {all} parameters train ({:.1} %); {total} steps, {} per epoch; {} on {device:?}, seed {}",
        100.0 * training as f64 / all as f64,
        windows.len(),
        generator.compute,
        config.seed,
    );

    // Resume.
    let checkpoints = Checkpoints::open(&options.out, config.save.keep)?;
    recover(&options.out.join("best"))?;
    let found = if options.resume { checkpoints.latest()? } else { None };
    if options.resume && found.is_none() {
        tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
    }
    let mut sink =
        MetricSink::open(job.dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let mut at = Position::default();
    if let Some((step, path)) = &found {
        at = state::restore(path, &parameters, &mut optimizer, device)?;
        tracing::info!("resumed at step {step}");
        if at.epoch > 0 {
            (windows, report) = lessons.epoch(at.epoch)?;
        }
    }

    // Train.
    let mut progress = Progress::new(total, at.step, options.quiet);
    let mut meter = LossMeter::default();
    let stop_at = options.stop_after.map_or(u64::MAX, |n| at.step + n);
    let (mut tokens, mut targets, mut busy) = (0u64, 0u64, 0.0f64);
    let mut best = None;
    let mut give_up = false;
    while at.step < total && !give_up {
        if at.window >= windows.len() {
            (at.epoch, at.window) = (at.epoch + 1, 0);
            (windows, report) = lessons.epoch(at.epoch)?;
            if windows.is_empty() {
                continue;
            }
        }
        let window = &windows[at.window];
        let started = Instant::now();
        let lr = config.optim.lr * schedule.factor(at.step);
        let (share, norm) = step(job, &mut optimizer, window, lr, at.step + 1)?;
        busy += started.elapsed().as_secs_f64();
        let now: usize = window.iter().map(PackedExamples::tokens).sum();
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        tokens += now as u64;
        targets += learned as u64;
        at.step += 1;
        at.window += 1;
        meter.add(share.loss, at.step, lr)?;
        let speed = tokens as f64 / busy;
        progress.step(at.step, || format!("loss {:.4} lr {lr:.2e} {speed:.0} tokens/s", meter.mean()));
        if at.step.is_multiple_of(config.train.log_every.max(1)) || at.step == total {
            let mut values = vec![
                ("loss", meter.take()),
                ("lr", lr),
                ("grad_norm", norm),
                ("epoch", at.epoch as f64 + at.window as f64 / windows.len() as f64),
                ("tokens_per_second", speed),
                ("tokens", now as f64),
                ("targets", learned as f64),
            ];
            values.extend(share.terms);
            sink.write("train", at.step, &values)?;
        }
        let every = config.eval.every_steps;
        let last = at.step == total;
        if (last || (every > 0 && at.step.is_multiple_of(every))) && !dev.is_empty() {
            let scores = evaluate(config, generator, dev)?;
            progress.aside(|| {
                tracing::info!(
                    "dev at step {}: exact match {:.4}  f1 {:.4}  answer in contexts {:.4} ({} questions)",
                    at.step,
                    scores.exact_match,
                    scores.f1,
                    scores.answer_in_contexts,
                    scores.questions
                );
            });
            sink.write("dev", at.step, &scores.named())?;
            let min_gain = config.eval.stop.map_or(0.0, |s| s.min_gain);
            if at.best.update(scores.f1, at.step, min_gain) {
                save_best(generator, &options.out, &facts(at.step, Some(&scores), &report))?;
                best = Some(scores);
            }
            give_up = at.best.should_stop(config.eval.stop.as_ref());
        }
        let asked = interrupt::asked() || at.step >= stop_at;
        let due = config.save.every_steps > 0 && at.step.is_multiple_of(config.save.every_steps);
        if due || asked || give_up || last {
            checkpoints.save(at.step, |d| state::save(d, &parameters, &optimizer, device, &at))?;
        }
        if asked && !last {
            progress.finish();
            tracing::info!("stopped at step {}; go on with --resume", at.step);
            return Ok(outcome(options, &at, false, best, report, (tokens, targets, busy)));
        }
    }
    progress.finish();
    if dev.is_empty() {
        save_best(generator, &options.out, &facts(at.step, None, &report))?;
    }
    Ok(outcome(options, &at, true, best, report, (tokens, targets, busy)))
}

fn facts(step: u64, dev: Option<&AnswerScores>, prepared: &PrepareReport) -> serde_json::Value {
    serde_json::json!({"step": step, "dev": dev, "prepared": prepared})
}

fn outcome(
    options: &RunOptions,
    at: &Position,
    finished: bool,
    best: Option<AnswerScores>,
    prepared: PrepareReport,
    (tokens, targets, busy): (u64, u64, f64),
) -> Outcome {
    Outcome {
        step: at.step,
        finished,
        model_dir: options.out.join("best"),
        best,
        prepared,
        tokens_per_second: tokens as f64 / busy.max(1e-9),
        targets_per_second: targets as f64 / busy.max(1e-9),
    }
}

/// The records to learn from and, of those to answer, the first `questions` (0: all).
pub(super) fn read(
    config: &DataConfig,
    questions: usize,
    out: &Path,
) -> Result<(Vec<RagRecord>, Vec<RagRecord>)> {
    let bad = bad_rows(config.skip_bad_rows, out);
    let all = |path: &Path, most: usize| -> Result<Vec<RagRecord>> {
        let rows = read_records(path, config.format, &bad)?;
        Ok(rows.take(most).collect::<std::result::Result<_, _>>()?)
    };
    let records = all(&config.train, usize::MAX)?;
    let most = if questions == 0 { usize::MAX } else { questions };
    let dev = config.dev.as_deref().map_or(Ok(Vec::new()), |path| all(path, most))?;
    let moved = bad.report().bad_rows();
    if moved > 0 {
        tracing::warn!("{moved} bad rows were moved to {}", out.join("bad_rows.jsonl").display());
    }
    Ok((records, dev))
}

/// Records as the batches of epochs.
pub(super) struct Lessons<'a> {
    preparer: Preparer<'a>,
    records: &'a [RagRecord],
    substitutes: Substitutes,
    config: &'a SftConfig,
    same_examples: bool,
}

impl<'a> Lessons<'a> {
    /// Of records for a generator; see [`Job`].
    ///
    /// # Errors
    /// Those of [`Preparer::new`].
    pub fn new(
        generator: &'a Generator,
        config: &'a SftConfig,
        records: &'a [RagRecord],
        same_examples: bool,
    ) -> Result<Self> {
        let (contexts, limit) = (config.contexts.clone(), config.batch.tokens);
        let preparer = Preparer::new(generator, &config.prompt, contexts, limit, config.seed)?;
        Ok(Self { preparer, records, substitutes: Substitutes::of(records), config, same_examples })
    }

    /// The optimiser steps of an epoch, windows of forward passes, and what became of the records.
    ///
    /// # Errors
    /// Prompts that cannot be made; nothing to learn from.
    pub fn epoch(&self, epoch: u64) -> Result<(Vec<Vec<PackedExamples>>, PrepareReport)> {
        let config = self.config;
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&epoch.to_le_bytes(), config.seed);
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let drawn = if self.same_examples { 0 } else { epoch };
        let made: Vec<(Option<TrainExample>, PrepareReport)> = order
            .par_iter()
            .map(|&i| {
                let mut report = PrepareReport::default();
                let rate = config.contexts.substitute_rate;
                let record = self.substitutes.apply(&self.records[i], rate, config.seed, drawn);
                let built = self.preparer.example(&record, drawn, &mut report)?;
                Ok((built.ok(), report))
            })
            .collect::<Result<_>>()?;
        let mut report = PrepareReport::default();
        let mut examples = Vec::with_capacity(made.len());
        for (example, one) in made {
            report.add(&one);
            examples.extend(example);
        }
        if examples.is_empty() {
            return Err(Error::Unusable(format!("nothing to train on: {report}")));
        }
        let batches = PackedExamples::pack(examples, config.batch.tokens);
        let mut windows: Vec<Vec<PackedExamples>> = Vec::new();
        for batch in batches {
            match windows.last_mut() {
                Some(w) if w.len() < config.batch.accumulate => w.push(batch),
                _ => windows.push(vec![batch]),
            }
        }
        Ok((windows, report))
    }
}

/// One optimiser step: the loss, and the gradients' norm before clipping.
fn step(
    job: &Job<'_>,
    optimizer: &mut Optimizer,
    window: &[PackedExamples],
    lr: f64,
    number: u64,
) -> Result<(Share, f64)> {
    optimizer.clear_grads()?;
    let learned: usize = window.iter().map(|b| b.targets.len()).sum();
    let mut sum = Share::default();
    for batch in window {
        let one = catch("a training step", "lower batch.tokens and raise batch.accumulate", || {
            job.loss.learn(job.generator, batch, learned as u64)
        })?;
        sum.loss += one.loss;
        match sum.terms.is_empty() {
            true => sum.terms = one.terms,
            false => sum.terms.iter_mut().zip(one.terms).for_each(|(a, b)| a.1 += b.1),
        }
    }
    let norm = update(&job.config.optim, optimizer, sum.loss, lr, number)?;
    Ok((sum, norm))
}

fn evaluate(config: &SftConfig, generator: &Generator, dev: &[RagRecord]) -> Result<AnswerScores> {
    let options = AnswerOptions {
        prompt: &config.prompt,
        contexts: ContextConfig::retrieved(config.eval.contexts.unwrap_or(config.contexts.count)),
        decode: &config.eval.decode,
        batch: config.eval.batch,
        seed: config.seed,
    };
    Ok(AnswerScores::of(&answer_all(generator, dev, &options, &mut |_| ())?.0))
}

/// What a new tokenizer is trained on.
pub(super) fn texts(records: &[RagRecord]) -> Vec<&str> {
    let all = records.iter().flat_map(|r| {
        let passages = r.contexts.iter().map(|f| &f.passage).chain(&r.gold);
        let own = [r.question.as_str()].into_iter().chain(r.answers.iter().map(String::as_str));
        let said = r.history.iter().map(|m| m.content.as_str());
        passages.map(|p| p.text.as_str()).chain(said).chain(own)
    });
    all.collect()
}
