//! Preference optimisation: DPO and its paired variants.
//!
//! The reference is the model as it was before the first step; its log-probabilities of all pairs are computed once
//! and kept in `reference.safetensors` of the run folder. Dropout is off, as in the papers: policy and reference are
//! then equal at the start.

use super::config::PreferenceRecipe;
use super::parts::{RunOptions, bad_rows, build, optimizer, save_best, update};
use crate::error::{Error, Result, catch};
use crate::loss::{LikelihoodScope, Preference, PreferenceBatch, Reference, RewardMetrics, Window};
use crate::model::Generator;
use ragduet_data::{BadRows, PreferenceRecord, read_preferences};
use ragduet_nn::Mode;
use ragduet_text::{ExampleOptions, TrainExample, message, pack_in_order};
use ragduet_torch::loss::linear_cross_entropy;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Device, Kind, Tensor, device, grad, no_grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{
    EarlyStopping, Goal, LossMeter, MetricSink, Progress, RunDir, Schedule, config as settings, interrupt,
    state,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the run came to its end (and was not interrupted).
    pub finished: bool,
    /// The best model's folder (the last one's, where there is no dev set).
    pub model_dir: PathBuf,
    /// Pairs learned from, and left out for their length.
    pub pairs: (usize, usize),
    /// Loss and rewards: dev with the best model, else the last step's.
    pub scores: Option<Scores>,
}

/// Loss and implicit rewards, means over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// The loss.
    pub loss: f64,
    /// Rewards, margin, accuracy.
    #[serde(flatten)]
    pub rewards: RewardMetrics,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    step: u64,
    epoch: u64,
    window: usize,
    best: EarlyStopping,
}

/// A pair's two sequences.
#[derive(Debug, Clone)]
struct Pair {
    chosen: TrainExample,
    rejected: TrainExample,
}

impl Pair {
    fn len(&self) -> usize {
        self.chosen.ids.len() + self.rejected.ids.len()
    }
}

/// Log-probabilities of the reference, chosen and rejected, by pair.
type References = Option<[Vec<f32>; 2]>;

/// Trains as the config says, into `options.out`.
pub fn train(config: &PreferenceRecipe, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = settings::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let preference = config.preference.build()?;
    let generator =
        build(&config.model, config.peft.as_ref(), config.precision.resolve(device), device, Vec::new)?;
    let mut optimizer = optimizer(&config.optim, &generator)?;
    let parameters = generator.trained().named();
    let bad = bad_rows(config.data.skip_bad_rows, &options.out);
    let (pairs, left_out) = read(config, &generator, &config.data.train, &bad)?;
    let dev = match &config.data.dev {
        Some(path) => read(config, &generator, path, &bad)?.0,
        None => Vec::new(),
    };
    if pairs.is_empty() {
        return Err(Error::Unusable(format!("no pair fits; {left_out} are too long")));
    }
    // Before a resume changes the weights.
    let reference =
        references(&generator, &preference, config, &pairs, &options.out.join("reference.safetensors"))?;
    let dev_reference =
        references(&generator, &preference, config, &dev, &options.out.join("reference-dev.safetensors"))?;
    let per_epoch = windows(config, &pairs, 0).len() as u64;
    let planned = per_epoch * config.train.epochs;
    let total = config.train.max_steps.map_or(planned, |m| m.min(planned));
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    tracing::info!(
        "{} pairs ({left_out} too long and left out); {total} steps, {per_epoch} per epoch; {} on {device:?}, seed {}",
        pairs.len(),
        generator.compute,
        config.seed
    );

    // Resume.
    let checkpoints = Checkpoints::open(&options.out, config.save.keep)?;
    recover(&options.out.join("best"))?;
    let found = if options.resume { checkpoints.latest()? } else { None };
    if options.resume && found.is_none() {
        tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
    }
    let mut sink = MetricSink::open(dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let mut at = Position::default();
    if let Some((step, path)) = &found {
        at = state::restore(path, &parameters, &mut optimizer, device)?;
        tracing::info!("resumed at step {step}");
    }

    // Train.
    let mut progress = Progress::new(total, at.step, options.quiet);
    let mut meter = LossMeter::default();
    let stop_at = options.stop_after.map_or(u64::MAX, |n| at.step + n);
    let mut plan = windows(config, &pairs, at.epoch);
    let mut scores = None;
    while at.step < total {
        if at.window >= plan.len() {
            (at.epoch, at.window) = (at.epoch + 1, 0);
            plan = windows(config, &pairs, at.epoch);
        }
        let lr = config.optim.lr * schedule.factor(at.step);
        optimizer.clear_grads()?;
        let now = pass(&generator, &preference, &pairs, reference.as_ref(), &plan[at.window], true)?;
        let norm = update(&config.optim, &mut optimizer, now.loss, lr, at.step + 1)?;
        at.step += 1;
        at.window += 1;
        meter.add(now.loss, at.step, lr)?;
        let accuracy = now.rewards.accuracy.unwrap_or(f64::NAN);
        progress.step(at.step, || {
            format!(
                "loss {:.4} lr {lr:.2e} margin {:.3} accuracy {accuracy:.2}",
                meter.mean(),
                now.rewards.margin
            )
        });
        let last = at.step == total;
        if at.step.is_multiple_of(config.train.log_every.max(1)) || last {
            let mut values = named(&Scores { loss: meter.take(), ..now }).to_vec();
            values.extend([("lr", lr), ("grad_norm", norm)]);
            sink.write("train", at.step, &values)?;
        }
        if dev.is_empty() {
            scores = Some(now);
        } else if last || (config.eval_every_steps > 0 && at.step.is_multiple_of(config.eval_every_steps)) {
            let measured = {
                let _guard = no_grad();
                let all = windows(config, &dev, 0).concat();
                pass(&generator, &preference, &dev, dev_reference.as_ref(), &all, false)?
            };
            progress.aside(|| {
                tracing::info!(
                    "dev at step {}: loss {:.4}  margin {:.4}  accuracy {:.4}",
                    at.step,
                    measured.loss,
                    measured.rewards.margin,
                    measured.rewards.accuracy.unwrap_or(f64::NAN)
                );
            });
            sink.write("dev", at.step, &named(&measured))?;
            if at.best.update_towards(Goal::Min, measured.loss, at.step, 0.0) {
                save_best(&generator, &options.out, &serde_json::json!({"step": at.step, "dev": measured}))?;
                scores = Some(measured);
            }
        }
        let asked = interrupt::asked() || at.step >= stop_at;
        let due = config.save.every_steps > 0 && at.step.is_multiple_of(config.save.every_steps);
        if due || asked || last {
            checkpoints.save(at.step, |d| state::save(d, &parameters, &optimizer, device, &at))?;
        }
        if asked && !last {
            progress.finish();
            tracing::info!("stopped at step {}; go on with --resume", at.step);
            return Ok(outcome(options, &at, false, (pairs.len(), left_out), scores));
        }
    }
    progress.finish();
    if dev.is_empty() {
        save_best(&generator, &options.out, &serde_json::json!({"step": at.step, "train": scores}))?;
    }
    Ok(outcome(options, &at, true, (pairs.len(), left_out), scores))
}

fn outcome(
    options: &RunOptions,
    at: &Position,
    finished: bool,
    pairs: (usize, usize),
    scores: Option<Scores>,
) -> Outcome {
    Outcome { step: at.step, finished, model_dir: options.out.join("best"), pairs, scores }
}

fn named(s: &Scores) -> [(&'static str, f64); 5] {
    [
        ("loss", s.loss),
        ("reward_chosen", s.rewards.chosen),
        ("reward_rejected", s.rewards.rejected),
        ("margin", s.rewards.margin),
        ("accuracy", s.rewards.accuracy.unwrap_or(f64::NAN)),
    ]
}

/// The pairs of a file that fit, and how many do not. Nothing is cut: half an answer is no answer.
fn read(
    config: &PreferenceRecipe,
    generator: &Generator,
    path: &Path,
    bad: &BadRows,
) -> Result<(Vec<Pair>, usize)> {
    let tokenizer = &generator.tokenizer;
    let start = generator.decoder_start();
    let plain = config.chat == Some(false) || start.is_some();
    let template = if plain { None } else { tokenizer.chat_template()? };
    if config.chat == Some(true) && start.is_some() {
        return Err(crate::error::bad("chat", "an encoder-decoder reads plain prompts"));
    }
    if config.chat == Some(true) && template.is_none() {
        return Err(crate::error::bad("chat", "the tokenizer has no chat template"));
    }
    let limit = generator.max_tokens().min(config.batch.tokens / 2);
    let max_len = config.max_tokens.unwrap_or(limit);
    if max_len > limit {
        let why = format!("the model and half of batch.tokens allow {limit}: a pair stays together");
        return Err(crate::error::bad("max_tokens", why));
    }
    let options = ExampleOptions { max_len: Some(max_len), ..ExampleOptions::default() };
    let example = |r: &PreferenceRecord, answer: &str| match &template {
        Some(chat) => {
            let turns = [message("user", &r.prompt), message("assistant", answer)];
            tokenizer.chat_example(chat, &turns, None, &options)
        }
        None => match start {
            Some(start) => tokenizer.seq2seq_example(&r.prompt, answer, start, &options),
            None => tokenizer.completion_example(&r.prompt, answer, &options),
        },
    };
    let (mut pairs, mut left_out) = (Vec::new(), 0);
    for record in read_preferences(path, bad)? {
        let record = record?;
        match (example(&record, &record.chosen)?, example(&record, &record.rejected)?) {
            (Ok(chosen), Ok(rejected)) => pairs.push(Pair { chosen, rejected }),
            _ => left_out += 1,
        }
    }
    Ok((pairs, left_out))
}

/// The optimiser steps of an epoch: windows of forward passes of pairs.
fn windows(config: &PreferenceRecipe, pairs: &[Pair], epoch: u64) -> Vec<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&epoch.to_le_bytes(), config.seed);
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let lengths: Vec<usize> = order.iter().map(|&i| pairs[i].len()).collect();
    let rows = pack_in_order(&lengths, config.batch.tokens).rows;
    let batches: Vec<Vec<usize>> = rows.iter().map(|row| row.iter().map(|&i| order[i]).collect()).collect();
    batches.chunks(config.batch.accumulate).map(<[Vec<usize>]>::to_vec).collect()
}

/// Per sequence (all chosen ones, then all rejected ones) the completion's log-probability, its number of tokens, and
/// the summed -log p of whole chosen sequences.
struct Likelihoods {
    completions: Tensor,
    tokens: Tensor,
    whole_chosen: Tensor,
}

fn likelihoods(generator: &Generator, batch: &[&Pair], mode: Mode) -> Likelihoods {
    let sequences: Vec<&TrainExample> =
        batch.iter().map(|p| &p.chosen).chain(batch.iter().map(|p| &p.rejected)).collect();
    let (mut rows, mut targets, mut owner, mut on) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for (s, e) in sequences.iter().enumerate() {
        for i in e.predicted() {
            // Prompts are needed of chosen sequences alone, for a likelihood over all of them.
            if e.loss[i] || s < batch.len() {
                rows.push((start + i - 1) as i64);
                targets.push(i64::from(e.ids[i]));
                owner.push(s as i64);
                on.push(f32::from(u8::from(e.loss[i])));
            }
        }
        start += e.ids.len();
    }
    let device = generator.device;
    let to = |v: &[i64]| Tensor::from_slice(v).to_device(device);
    let hidden = generator.hidden_states(sequences.iter().copied(), mode);
    let head = generator.model.kind.head(mode);
    let hidden = hidden.index_select(0, &to(&rows));
    let nll = linear_cross_entropy(&hidden, &head.weight, &to(&targets), head.scale, generator.compute).0;
    let (owner, on) = (to(&owner), Tensor::from_slice(&on).to_device(device));
    let zeros = || Tensor::zeros([sequences.len() as i64], (Kind::Float, device));
    let half = batch.len() as i64;
    Likelihoods {
        completions: zeros().index_add(0, &owner, &(&nll * &on)).neg(),
        tokens: zeros().index_add(0, &owner, &on),
        whole_chosen: zeros().index_add(0, &owner, &nll).narrow(0, 0, half).sum(Kind::Float),
    }
}

/// Loss and rewards of a window; with `learn` also its gradients.
fn pass(
    generator: &Generator,
    preference: &Preference,
    pairs: &[Pair],
    reference: Option<&[Vec<f32>; 2]>,
    window: &[Vec<usize>],
    learn: bool,
) -> Result<Scores> {
    let rows: usize = window.iter().map(Vec::len).sum();
    let whole = preference.likelihood.is_some_and(|l| l.scope == LikelihoodScope::PromptAndCompletion);
    let counted = |p: &Pair| if whole { p.chosen.predicted().len() } else { p.chosen.targets() };
    let tokens: usize = window.iter().flatten().map(|&i| counted(&pairs[i])).sum();
    let totals = Window { rows: rows as u64, likelihood_tokens: tokens as u64 };
    let mut out =
        Scores { loss: 0.0, rewards: RewardMetrics { accuracy: Some(0.0), ..RewardMetrics::default() } };
    for batch in window {
        let (loss, rewards) =
            catch("a preference step", "lower batch.tokens and raise batch.accumulate", || {
                let picked: Vec<&Pair> = batch.iter().map(|&i| &pairs[i]).collect();
                let l = likelihoods(generator, &picked, generator.mode(false));
                let n = picked.len() as i64;
                let half = |t: &Tensor, at: i64| t.narrow(0, at * n, n);
                let known = reference.map(|r| {
                    r.each_ref().map(|side| {
                        let values: Vec<f32> = batch.iter().map(|&i| side[i]).collect();
                        Tensor::from_slice(&values).to_device(generator.device)
                    })
                });
                let (chosen, rejected) = (half(&l.completions, 0), half(&l.completions, 1));
                let losses = preference.loss.rows(&PreferenceBatch {
                    chosen: &chosen,
                    rejected: &rejected,
                    chosen_tokens: &half(&l.tokens, 0),
                    rejected_tokens: &half(&l.tokens, 1),
                    reference: known.as_ref().map(|[c, r]| Reference { chosen: c, rejected: r }),
                    mismatched: None,
                })?;
                let nll = if whole { l.whole_chosen } else { chosen.sum(Kind::Float).neg() };
                let share = preference.share(&losses, Some(&nll), totals)?;
                if learn {
                    grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
                }
                let value = f64::try_from(share.detach().to_kind(Kind::Double))
                    .map_err(ragduet_torch::Error::from)?;
                Ok((value, losses.metrics(true)?))
            })?;
        let weight = batch.len() as f64 / rows.max(1) as f64;
        out.loss += loss;
        out.rewards.chosen += weight * rewards.chosen;
        out.rewards.rejected += weight * rewards.rejected;
        out.rewards.margin += weight * rewards.margin;
        out.rewards.accuracy = out.rewards.accuracy.zip(rewards.accuracy).map(|(a, b)| a + weight * b);
    }
    Ok(out)
}

/// The reference's log-probabilities, from the run's file where it is there (a resumed run has other weights by then).
fn references(
    generator: &Generator,
    preference: &Preference,
    config: &PreferenceRecipe,
    pairs: &[Pair],
    file: &Path,
) -> Result<References> {
    if !preference.loss.needs_reference() || pairs.is_empty() {
        return Ok(None);
    }
    if file.is_file() {
        let kept = Weights::open_file(file)?;
        let read = |name| -> Result<Vec<f32>> {
            let t = kept.load(name, Device::Cpu)?;
            Ok(Vec::<f32>::try_from(&t).map_err(ragduet_torch::Error::from)?)
        };
        let both = [read("chosen")?, read("rejected")?];
        if both.iter().all(|side| side.len() == pairs.len()) {
            return Ok(Some(both));
        }
        return Err(Error::Unusable(format!(
            "{} holds {} pairs, the data {}: the data has changed since the run was started",
            file.display(),
            both[0].len(),
            pairs.len()
        )));
    }
    // A new adapter's reference is the model without it; one that goes on is its own.
    let mode = if config.peft.is_some() { Mode::eval(generator.compute) } else { generator.mode(false) };
    let _guard = no_grad();
    let mut out = [vec![0f32; pairs.len()], vec![0f32; pairs.len()]];
    for batch in windows(config, pairs, 0).concat() {
        let picked: Vec<&Pair> = batch.iter().map(|&i| &pairs[i]).collect();
        let all = catch("the reference's pass", "lower batch.tokens", || {
            Ok(likelihoods(generator, &picked, mode).completions)
        })?;
        let all: Vec<f32> = all.to_device(Device::Cpu).try_into().map_err(ragduet_torch::Error::from)?;
        for (k, &i) in batch.iter().enumerate() {
            out[0][i] = all[k];
            out[1][i] = all[picked.len() + k];
        }
    }
    let named =
        ["chosen", "rejected"].iter().zip(&out).map(|(n, v)| ((*n).to_string(), Tensor::from_slice(v)));
    save_tensors(file, &named.collect::<Vec<_>>(), &[])?;
    Ok(Some(out))
}
