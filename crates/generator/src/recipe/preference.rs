//! Preference optimisation: DPO and its paired variants, and KTO, which learns from single judged completions.
//!
//! KTO's estimate of the divergence needs completions under prompts they do not belong to. Each row gets the completion
//! of the next row (of the file, which is a circle) that has another prompt, once for the whole run, so that the
//! reference's log-probabilities of them are known as well; a forward pass takes the mean over its own rows. TRL
//! rotates completions inside fixed batches instead, with the same expectation, and pairs a prompt with its own other
//! completion where a file holds them side by side.
//!
//! The reference is the model as it was before the first step; its log-probabilities of all pairs are computed once
//! and kept in `reference.safetensors` of the run folder. Dropout is off, as in the papers: policy and reference are
//! then equal at the start.

use super::config::PreferenceRecipe;
use super::parts::{bad_rows, build, optimizer, save_best};
use crate::error::{Error, Result, catch};
use crate::loss::{
    LikelihoodScope, Preference, PreferenceBatch, PreferenceLossConfig, Reference, RewardMetrics, Window,
};
use crate::model::Generator;
use crate::packed::likelihoods;
use ragduet_data::{BadRows, Message, Prompt, read_judged, read_preferences};
use ragduet_nn::Mode;
use ragduet_text::{Built, ChatTemplate, ExampleOptions, TrainExample, message, pack_in_order};
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Device, Kind, Tensor, device, grad, no_grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{
    EarlyStopping, Goal, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, config as settings,
    interrupt, state, update,
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
    /// Pairs (of kto: completions) learned from, and left out for their length.
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

/// The sequences of a row: a pair has a chosen and a rejected one, a judged completion one of them and a mismatched one.
#[derive(Debug, Clone, Default)]
struct Pair {
    chosen: Option<TrainExample>,
    rejected: Option<TrainExample>,
    mismatched: Option<TrainExample>,
}

impl Pair {
    fn sides(&self) -> [Option<&TrainExample>; 3] {
        [self.chosen.as_ref(), self.rejected.as_ref(), self.mismatched.as_ref()]
    }

    fn len(&self) -> usize {
        self.sides().into_iter().flatten().map(|e| e.ids.len()).sum()
    }
}

/// Log-probabilities of the reference by row: chosen, rejected, mismatched; 0 where a row has no such sequence.
type References = [Vec<f32>; 3];

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
        return Err(Error::Unusable(format!("no row fits; {left_out} are too long")));
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
        "{} rows ({left_out} too long and left out); {total} steps, {per_epoch} per epoch; {} on {device:?}, seed {}",
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

/// Prompts and answers to sequences of at most so many tokens.
struct Examples<'a> {
    generator: &'a Generator,
    /// What an encoder-decoder's answers start with.
    start: Option<u32>,
    chat: Option<ChatTemplate>,
    fallback: ChatTemplate,
    options: ExampleOptions,
}

impl<'a> Examples<'a> {
    fn new(config: &PreferenceRecipe, generator: &'a Generator) -> Result<Self> {
        let tokenizer = &generator.tokenizer;
        let start = generator.decoder_start();
        if config.chat == Some(true) && start.is_some() {
            return Err(crate::error::bad("chat", "an encoder-decoder reads plain prompts"));
        }
        let plain = config.chat == Some(false) || start.is_some();
        let chat = if plain { None } else { tokenizer.chat_template()? };
        if config.chat == Some(true) && chat.is_none() {
            return Err(crate::error::bad("chat", "the tokenizer has no chat template"));
        }
        let limit = generator.max_tokens().min(config.batch.tokens / 2);
        let max_len = config.max_tokens.unwrap_or(limit);
        if max_len > limit {
            let why = format!("the model and half of batch.tokens allow {limit}: a pair stays together");
            return Err(crate::error::bad("max_tokens", why));
        }
        let options = ExampleOptions { max_len: Some(max_len), ..ExampleOptions::default() };
        Ok(Self { generator, start, chat, fallback: tokenizer.fallback_chat_template()?, options })
    }

    fn of(&self, prompt: &Prompt, answer: &str) -> Result<Built> {
        let tokenizer = &self.generator.tokenizer;
        let mut turns = match (prompt, &self.chat) {
            (Prompt::Text(text), None) => {
                return Ok(match self.start {
                    Some(start) => tokenizer.seq2seq_example(text, answer, start, &self.options)?,
                    None => tokenizer.completion_example(text, answer, &self.options)?,
                });
            }
            (Prompt::Text(text), Some(_)) => vec![message("user", text)],
            (Prompt::Turns(turns), _) => turns.iter().map(Message::json).collect(),
        };
        if let Some(start) = self.start {
            // An encoder reads the conversation as text.
            let text = self.fallback.render(&turns, None, true)?.text;
            return Ok(tokenizer.seq2seq_example(&text, answer, start, &self.options)?);
        }
        turns.push(message("assistant", answer));
        let template = self.chat.as_ref().unwrap_or(&self.fallback);
        Ok(tokenizer.chat_example(template, &turns, None, &self.options)?)
    }
}

/// The rows of a file that fit, and how many do not. Nothing is cut: half an answer is no answer.
fn read(
    config: &PreferenceRecipe,
    generator: &Generator,
    path: &Path,
    bad: &BadRows,
) -> Result<(Vec<Pair>, usize)> {
    let examples = Examples::new(config, generator)?;
    if matches!(config.preference.loss, PreferenceLossConfig::Kto(_)) {
        return judged(&examples, path, bad);
    }
    let (mut pairs, mut left_out) = (Vec::new(), 0);
    for record in read_preferences(path, bad)? {
        let record = record?;
        let sides =
            (examples.of(&record.prompt, &record.chosen)?, examples.of(&record.prompt, &record.rejected)?);
        match sides {
            (Ok(chosen), Ok(rejected)) => {
                pairs.push(Pair { chosen: Some(chosen), rejected: Some(rejected), mismatched: None });
            }
            _ => left_out += 1,
        }
    }
    Ok((pairs, left_out))
}

/// Judged completions, each with another prompt's completion behind its own prompt.
fn judged(examples: &Examples<'_>, path: &Path, bad: &BadRows) -> Result<(Vec<Pair>, usize)> {
    /// Partners tried for one that fits.
    const TRIES: usize = 16;
    let (mut kept, mut left_out) = (Vec::new(), 0);
    for record in read_judged(path, bad)? {
        let record = record?;
        match examples.of(&record.prompt, &record.completion)? {
            Ok(example) => kept.push((record, example)),
            Err(_) => left_out += 1,
        }
    }
    if kept.iter().all(|(r, _)| r.prompt == kept[0].0.prompt) && !kept.is_empty() {
        let why = format!("{}: kto needs rows of two prompts or more", path.display());
        return Err(Error::Unusable(why));
    }
    let mut rows = Vec::with_capacity(kept.len());
    for (i, (record, example)) in kept.iter().enumerate() {
        let others = (1..kept.len()).map(|k| &kept[(i + k) % kept.len()].0);
        let mut mismatched = None;
        for other in others.filter(|o| o.prompt != record.prompt).take(TRIES) {
            if let Ok(e) = examples.of(&record.prompt, &other.completion)? {
                mismatched = Some(e);
                break;
            }
        }
        if mismatched.is_none() {
            left_out += 1;
            continue;
        }
        let own = Some(example.clone());
        rows.push(match record.good {
            true => Pair { chosen: own, rejected: None, mismatched },
            false => Pair { chosen: None, rejected: own, mismatched },
        });
    }
    Ok((rows, left_out))
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

/// Loss and rewards of a window; with `learn` also its gradients.
fn pass(
    generator: &Generator,
    preference: &Preference,
    pairs: &[Pair],
    reference: Option<&References>,
    window: &[Vec<usize>],
    learn: bool,
) -> Result<Scores> {
    let in_window = || window.iter().flatten().map(|&i| &pairs[i]);
    let whole = preference.likelihood.is_some_and(|l| l.scope == LikelihoodScope::PromptAndCompletion);
    let counted = |e: &TrainExample| if whole { e.predicted().len() } else { e.targets() };
    let tokens: usize = in_window().filter_map(|p| p.chosen.as_ref()).map(counted).sum();
    let rows = in_window().count();
    let totals = Window { rows: rows as u64, likelihood_tokens: tokens as u64 };
    let of_side = |side: usize| in_window().filter(|p| p.sides()[side].is_some()).count().max(1) as f64;
    let all = [of_side(0), of_side(1)];
    let paired = preference.loss.paired();
    let mut out = Scores {
        loss: 0.0,
        rewards: RewardMetrics { accuracy: paired.then_some(0.0), ..RewardMetrics::default() },
    };
    for batch in window {
        let (loss, rewards, counts) =
            catch("a preference step", "lower batch.tokens and raise batch.accumulate", || {
                let sides = [0, 1, 2].map(|side| side_of(pairs, batch, side));
                let [chosen, rejected, mismatched] = &sides;
                let (n, m) = (chosen.len(), rejected.len());
                let sequences: Vec<&TrainExample> = chosen.iter().chain(rejected).map(|s| s.1).collect();
                let l = likelihoods(generator, &sequences, if whole { n } else { 0 }, generator.mode(false));
                let split = |t: &Tensor| (t.narrow(0, 0, n as i64), t.narrow(0, n as i64, m as i64));
                let known = reference.map(|r| {
                    [0, 1, 2].map(|side| {
                        let values: Vec<f32> = sides[side].iter().map(|(i, _)| r[side][*i]).collect();
                        Tensor::from_slice(&values).to_device(generator.device)
                    })
                });
                let drift = match &known {
                    Some([_, _, at_start]) if preference.loss.needs_mismatched() => {
                        let _guard = no_grad();
                        let sequences: Vec<&TrainExample> = mismatched.iter().map(|s| s.1).collect();
                        Some(
                            likelihoods(generator, &sequences, 0, generator.mode(false)).completions
                                - at_start,
                        )
                    }
                    _ => None,
                };
                let ((chosen, rejected), (of_chosen, of_rejected)) =
                    (split(&l.completions), split(&l.tokens));
                let losses = preference.loss.rows(&PreferenceBatch {
                    chosen: &chosen,
                    rejected: &rejected,
                    chosen_tokens: &of_chosen,
                    rejected_tokens: &of_rejected,
                    reference: known.as_ref().map(|[c, r, _]| Reference { chosen: c, rejected: r }),
                    mismatched: drift.as_ref(),
                })?;
                let nll = if whole { l.whole } else { chosen.sum(Kind::Float).neg() };
                let share = preference.share(&losses, Some(&nll), totals)?;
                if learn {
                    grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
                }
                let value = f64::try_from(share.detach().to_kind(Kind::Double))
                    .map_err(ragduet_torch::Error::from)?;
                Ok((value, losses.metrics(paired)?, [n as f64, m as f64]))
            })?;
        out.loss += loss;
        out.rewards.chosen += counts[0] / all[0] * rewards.chosen;
        out.rewards.rejected += counts[1] / all[1] * rewards.rejected;
        let weight = counts[0] / all[0];
        out.rewards.accuracy = out.rewards.accuracy.zip(rewards.accuracy).map(|(a, b)| a + weight * b);
    }
    out.rewards.margin = out.rewards.chosen - out.rewards.rejected;
    Ok(out)
}

/// The sequences of a side that rows of a batch have, with the rows' numbers.
fn side_of<'a>(pairs: &'a [Pair], batch: &[usize], side: usize) -> Vec<(usize, &'a TrainExample)> {
    batch.iter().filter_map(|&i| Some((i, pairs[i].sides()[side]?))).collect()
}

/// The reference's log-probabilities, from the run's file where it is there (a resumed run has other weights by then).
fn references(
    generator: &Generator,
    preference: &Preference,
    config: &PreferenceRecipe,
    pairs: &[Pair],
    file: &Path,
) -> Result<Option<References>> {
    // Mismatched completions are there for the losses that need them alone.
    let names: &[&str] = match preference.loss.needs_mismatched() {
        true => &["chosen", "rejected", "mismatched"],
        false => &["chosen", "rejected"],
    };
    if !preference.loss.needs_reference() || pairs.is_empty() {
        return Ok(None);
    }
    if file.is_file() {
        let file_of = Weights::open_file(file)?;
        let read = |name: &str| -> Result<Vec<f32>> {
            let t = file_of.load(name, Device::Cpu)?;
            Ok(Vec::<f32>::try_from(&t).map_err(ragduet_torch::Error::from)?)
        };
        let mut kept = References::default();
        for (side, name) in kept.iter_mut().zip(names) {
            *side = read(name)?;
        }
        if kept.iter().take(names.len()).all(|side| side.len() == pairs.len()) {
            return Ok(Some(kept));
        }
        return Err(Error::Unusable(format!(
            "{} holds {} rows, the data {}: the data has changed since the run was started",
            file.display(),
            kept[0].len(),
            pairs.len()
        )));
    }
    // A new adapter's reference is the model without it; one that goes on is its own.
    let mode = if config.peft.is_some() { Mode::eval(generator.compute) } else { generator.mode(false) };
    let _guard = no_grad();
    let mut out: References = Default::default();
    for side in out.iter_mut().take(names.len()) {
        side.resize(pairs.len(), 0.0);
    }
    for batch in windows(config, pairs, 0).concat() {
        let all: Vec<(usize, usize, &TrainExample)> = (0..names.len())
            .flat_map(|side| side_of(pairs, &batch, side).into_iter().map(move |(i, e)| (side, i, e)))
            .collect();
        let sequences: Vec<&TrainExample> = all.iter().map(|s| s.2).collect();
        let values = catch("the reference's pass", "lower batch.tokens", || {
            Ok(likelihoods(generator, &sequences, 0, mode).completions)
        })?;
        let values: Vec<f32> =
            values.to_device(Device::Cpu).try_into().map_err(ragduet_torch::Error::from)?;
        for (&(side, i, _), value) in all.iter().zip(values) {
            out[side][i] = value;
        }
    }
    let named = names.iter().zip(&out).map(|(n, v)| ((*n).to_string(), Tensor::from_slice(v)));
    save_tensors(file, &named.collect::<Vec<_>>(), &[])?;
    Ok(Some(out))
}
