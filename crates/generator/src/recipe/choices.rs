//! T-Few: learning to choose, from few records or from a mixture of tasks.
//!
//! A step's loss is over the records of the whole step: token means and the mean over records do not depend on how many
//! forward passes it takes. Records come in an order that is a pure function of (data, config, seed): the step is all
//! that a checkpoint needs to know. A resumed run repeats on the CPU what the uninterrupted one does, bit for bit.

use super::choice_config::{ChoiceConfig, ChoiceTask};
use super::parts::{bad_rows, build, optimizer, save_best, trainable};
use crate::choices::{ChoiceOptions, ChoiceScores, Scorable, choose_all, passes, scorable, token_nll};
use crate::error::{Error, Result, catch};
use crate::loss::{ChoiceBatch, ChoiceTotals};
use crate::model::Generator;
use crate::prepare::{PrepareReport, Preparer};
use ragduet_data::{BadRows, ChoiceRecord, Mixing, mix, read_choices};
use ragduet_torch::optim::Optimizer;
use ragduet_torch::{Kind, Tensor, device, grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{
    EarlyStopping, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, config as settings,
    interrupt, state, update,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
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
    /// The dev sets with the best model.
    pub best: Option<ChoiceScores>,
    /// Records learned from, and left out for their length.
    pub records: (usize, usize),
    /// Records per second, evaluation left out.
    pub records_per_second: f64,
}

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    step: u64,
    best: EarlyStopping,
}

/// The losses of a step, in the order of the paper, and their weighted sum.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    language_model: f64,
    unlikelihood: f64,
    length_normalised: f64,
    total: f64,
}

/// A task's records.
struct Task {
    name: String,
    train: Vec<ChoiceRecord>,
    dev: Vec<ChoiceRecord>,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// A config or data that cannot work, a loss that is no number, memory, files.
pub fn train(config: &ChoiceConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = settings::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let bad = bad_rows(config.data.skip_bad_rows, &options.out);
    let mut tasks = config.data.tasks.iter().map(|t| read(config, t, &bad)).collect::<Result<Vec<Task>>>()?;
    let generator =
        build(&config.model, config.peft.as_ref(), config.precision.resolve(device), device, || {
            texts(&tasks)
        })?;
    let mut optimizer = optimizer(&config.optim, &generator)?;
    let parameters = generator.trained().named();
    let preparer =
        Preparer::new(&generator, &config.prompt, config.contexts.clone(), config.batch.tokens, config.seed)?;
    let mut report = PrepareReport::default();
    for task in &mut tasks {
        keep_what_fits(&preparer, task, config.batch.tokens, &mut report)?;
    }
    let counts: Vec<usize> = tasks.iter().map(|t| t.train.len()).collect();
    let left_out = report.left_out.values().sum();
    let order = Order { counts: &counts, mixing: config.mixing(), seed: config.seed };
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, config.train.steps);
    let (all, training) = trainable(&generator);
    let total = config.train.steps;
    tracing::info!(
        "{} records of {} tasks ({left_out} too long and left out); {training} of {all} parameters train ({:.3} %); \
         {total} steps of {}; {} on {device:?}, seed {}",
        counts.iter().sum::<usize>(),
        tasks.len(),
        100.0 * training as f64 / all as f64,
        config.batch.records,
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
    let mut sink = MetricSink::open(dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let mut at = Position::default();
    if let Some((step, path)) = &found {
        at = state::restore(path, &parameters, &mut optimizer, device)?;
        tracing::info!("resumed at step {step}");
    }

    // Train.
    let has_dev = tasks.iter().any(|t| !t.dev.is_empty());
    let mut progress = Progress::new(total, at.step, options.quiet);
    let mut meter = LossMeter::default();
    let stop_at = options.stop_after.map_or(u64::MAX, |n| at.step + n);
    let (mut seen, mut busy) = (0u64, 0.0f64);
    let mut plans = HashMap::new();
    let mut best = None;
    let mut give_up = false;
    while at.step < total && !give_up {
        let started = Instant::now();
        let picked = order.step(at.step, config.batch.records, &mut plans)?;
        let epoch = picked.iter().map(|p| p.epoch).max().unwrap_or_default();
        let made: Vec<(Option<Scorable>, PrepareReport)> = picked
            .par_iter()
            .map(|p| {
                let (mut made, report) =
                    scorable(&preparer, &tasks[p.task].train[p.record..=p.record], p.epoch)?;
                Ok((made.pop().flatten(), report))
            })
            .collect::<Result<_>>()?;
        let records: Vec<Scorable> = made.into_iter().filter_map(|(s, _)| s).collect();
        let lr = config.optim.lr * schedule.factor(at.step);
        let (losses, norm) = step(config, &generator, &mut optimizer, &records, lr, at.step + 1)?;
        busy += started.elapsed().as_secs_f64();
        seen += records.len() as u64;
        at.step += 1;
        meter.add(losses.total, at.step, lr)?;
        progress.step(at.step, || format!("loss {:.4} lr {lr:.2e}", meter.mean()));
        let last = at.step == total;
        if at.step.is_multiple_of(config.train.log_every.max(1)) || last {
            let values = [
                ("loss", meter.take()),
                ("language_model", losses.language_model),
                ("unlikelihood", losses.unlikelihood),
                ("length_normalised", losses.length_normalised),
                ("lr", lr),
                ("grad_norm", norm),
                ("epoch", epoch as f64),
                ("records_per_second", seen as f64 / busy),
            ];
            sink.write("train", at.step, &values)?;
        }
        let every = config.eval.every_steps;
        if has_dev && (last || (every > 0 && at.step.is_multiple_of(every))) {
            let scores = evaluate(config, &generator, &tasks)?;
            progress.aside(|| {
                tracing::info!(
                    "dev at step {}: accuracy {:.4}, by sum {:.4}, chance {:.4} ({} records)",
                    at.step,
                    scores.mean.accuracy,
                    scores.mean.accuracy_by_sum,
                    scores.mean.chance,
                    scores.mean.questions
                );
            });
            let named = scores.named();
            let values: Vec<(&str, f64)> = named.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            sink.write("dev", at.step, &values)?;
            let min_gain = config.eval.stop.map_or(0.0, |s| s.min_gain);
            if at.best.update(scores.mean.accuracy, at.step, min_gain) {
                save_best(&generator, &options.out, &facts(at.step, Some(&scores), &report))?;
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
            break;
        }
    }
    progress.finish();
    let finished = at.step == total || give_up;
    if !finished {
        tracing::info!("stopped at step {}; go on with --resume", at.step);
    } else if !has_dev {
        save_best(&generator, &options.out, &facts(at.step, None, &report))?;
    }
    Ok(Outcome {
        step: at.step,
        finished,
        model_dir: options.out.join("best"),
        best,
        records: (counts.iter().sum(), left_out),
        records_per_second: seen as f64 / busy.max(1e-9),
    })
}

fn facts(step: u64, dev: Option<&ChoiceScores>, prepared: &PrepareReport) -> serde_json::Value {
    serde_json::json!({"step": step, "dev": dev, "prepared": prepared})
}

fn read(config: &ChoiceConfig, task: &ChoiceTask, bad: &BadRows) -> Result<Task> {
    let all = |path: &PathBuf, most: usize| -> Result<Vec<ChoiceRecord>> {
        Ok(read_choices(path, bad)?.take(most).collect::<std::result::Result<_, _>>()?)
    };
    let mut train = all(&task.train, usize::MAX)?;
    if let Some(shots) = task.shots {
        if shots > train.len() {
            let why = format!("{shots} of `{}` are asked for, {} are there", task.name, train.len());
            return Err(crate::error::bad("data.tasks.shots", why));
        }
        train.shuffle(&mut ChaCha8Rng::seed_from_u64(keyed(config.seed, &[task.name.as_bytes()])));
        train.truncate(shots);
    }
    let most = if config.eval.questions == 0 { usize::MAX } else { config.eval.questions };
    let dev = task.dev.as_ref().map_or(Ok(Vec::new()), |path| all(path, most))?;
    Ok(Task { name: task.name.clone(), train, dev })
}

/// Leaves out the records whose choices are too long: half a choice is none.
fn keep_what_fits(
    preparer: &Preparer<'_>,
    task: &mut Task,
    tokens: usize,
    report: &mut PrepareReport,
) -> Result<()> {
    let (made, one) = scorable(preparer, task.train.as_slice(), 0)?;
    report.add(&one);
    let mut fits = made.iter().map(|m| m.as_ref().map(Scorable::len));
    let mut over = 0;
    task.train.retain(|_| match fits.next().flatten() {
        Some(n) if n <= tokens => true,
        Some(_) => {
            over += 1;
            false
        }
        None => false,
    });
    if over > 0 {
        let why = format!("all choices together are over {tokens} tokens (batch.tokens)");
        *report.left_out.entry(why).or_default() += over;
    }
    if task.train.is_empty() {
        return Err(Error::Unusable(format!("no record of task `{}` fits: {report}", task.name)));
    }
    Ok(())
}

/// In which order the records of all tasks come, epoch after epoch.
struct Order<'a> {
    counts: &'a [usize],
    mixing: Mixing,
    seed: u64,
}

/// A record and the epoch it is learned in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picked {
    task: usize,
    record: usize,
    epoch: u64,
}

impl Order<'_> {
    /// The records of a step; `plans` holds epochs that were made.
    fn step(&self, step: u64, records: usize, plans: &mut HashMap<u64, Vec<Picked>>) -> Result<Vec<Picked>> {
        let per_epoch = self.counts.iter().sum::<usize>() as u64;
        let from = step * records as u64;
        plans.retain(|&epoch, _| epoch >= from / per_epoch);
        (from..from + records as u64)
            .map(|at| {
                let epoch = at / per_epoch;
                if let std::collections::hash_map::Entry::Vacant(e) = plans.entry(epoch) {
                    e.insert(self.epoch(epoch)?);
                }
                Ok(plans[&epoch][(at % per_epoch) as usize])
            })
            .collect()
    }

    fn epoch(&self, epoch: u64) -> Result<Vec<Picked>> {
        let mut shuffled: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
        let turns = mix(self.counts, &self.mixing, self.seed, epoch)?;
        let pick = turns.into_iter().map(|turn| {
            let order = shuffled.entry((turn.set, turn.pass)).or_insert_with(|| {
                let mut order: Vec<usize> = (0..self.counts[turn.set]).collect();
                let key = [turn.set as u64, epoch, turn.pass].map(u64::to_le_bytes);
                let seed = keyed(self.seed, &[&key[0], &key[1], &key[2]]);
                order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                order
            });
            Picked { task: turn.set, record: order[turn.batch], epoch }
        });
        Ok(pick.collect())
    }
}

fn keyed(seed: u64, parts: &[&[u8]]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&parts.concat(), seed)
}

/// One optimiser step: the losses, and the gradients' norm before clipping.
fn step(
    config: &ChoiceConfig,
    generator: &Generator,
    optimizer: &mut Optimizer,
    records: &[Scorable],
    lr: f64,
    number: u64,
) -> Result<(Losses, f64)> {
    optimizer.clear_grads()?;
    let losses = learn(config, generator, records, true)?;
    let norm = update(&config.optim, optimizer, losses.total, lr, number)?;
    Ok((losses, norm))
}

/// The losses of a step and, added to what is there, their gradients.
fn learn(config: &ChoiceConfig, generator: &Generator, records: &[Scorable], train: bool) -> Result<Losses> {
    let shape = |r: &Scorable| (r.sequences.len(), r.answer);
    let mut window = ChoiceTotals::default();
    for r in records {
        let tokens: Vec<usize> = r.sequences.iter().map(|s| s.targets()).collect();
        window.add(ChoiceTotals::of(&tokens, &[shape(r)]));
    }
    let lengths: Vec<usize> = records.iter().map(Scorable::len).collect();
    let mut out = Losses::default();
    for pass in passes(&lengths, config.batch.tokens) {
        let batch = &records[pass];
        let values = catch("a training step", "lower batch.tokens or batch.records", || {
            let sequences = batch.iter().flat_map(|r| &r.sequences);
            let (nll, tokens) = token_nll(generator, sequences, generator.mode(train));
            let shapes: Vec<(usize, usize)> = batch.iter().map(shape).collect();
            let batch = ChoiceBatch { nll: &nll, tokens: &tokens, records: &shapes };
            let shares = config.loss.shares(&batch, window);
            let total = config.loss.total(&shares);
            grad::backward(&[total.shallow_clone()], &[Tensor::ones_like(&total)])?;
            let all = [&shares.language_model, &shares.unlikelihood, &shares.length_normalised, &total];
            let all = Tensor::stack(&all.map(Tensor::detach), 0).to_kind(Kind::Double);
            let cpu = all.to_device(ragduet_torch::Device::Cpu);
            Ok(Vec::<f64>::try_from(&cpu).map_err(ragduet_torch::Error::from)?)
        })?;
        out.language_model += values[0];
        out.unlikelihood += values[1];
        out.length_normalised += values[2];
        out.total += values[3];
    }
    Ok(out)
}

fn evaluate(config: &ChoiceConfig, generator: &Generator, tasks: &[Task]) -> Result<ChoiceScores> {
    let options = ChoiceOptions {
        prompt: &config.prompt,
        contexts: config.shown(),
        length_norm: config.loss.length_norm,
        tokens: config.batch.tokens,
        seed: config.seed,
    };
    let mut all = Vec::new();
    for task in tasks.iter().filter(|t| !t.dev.is_empty()) {
        all.extend(choose_all(generator, &task.dev, &task.name, &options, &mut |_| ())?.0);
    }
    ChoiceScores::of(&all)
}

/// What a new tokenizer is trained on.
fn texts(tasks: &[Task]) -> Vec<&str> {
    let records = tasks.iter().flat_map(|t| &t.train);
    let all = records.flat_map(|r| {
        let passages = r.record.contexts.iter().map(|f| f.passage.text.as_str());
        let choices = r.choices.iter().map(String::as_str);
        passages.chain([r.record.question.as_str()]).chain(choices)
    });
    all.collect()
}

#[cfg(test)]
mod tests;
