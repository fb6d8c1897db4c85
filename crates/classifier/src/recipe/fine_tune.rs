//! Fine-tuning: batches of texts, a head, a loss.
//!
//! The order of an epoch is a pure function of (data, config, seed, epoch): a checkpoint stores a place, and a resumed
//! run repeats on the CPU what the uninterrupted one does, bit for bit.

use super::config::ClassifierConfig;
use crate::error::{Error, Result, bad};
use crate::labels::{LabelSet, Target};
use crate::model::{Classifier, texts};
use crate::sampling::balanced;
use crate::scores::{Measure, Scores};
use ragduet_data::{BadRowPolicy, BadRows, LabelledRecord, read_labelled};
use ragduet_nn::hub;
use ragduet_text::Encoding;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Kind, Tensor, catch, device, grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover, replace_dir};
use ragduet_train::{
    EarlyStopping, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, check_patterns,
    config as settings, interrupt, is_frozen, state, update,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
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
    /// What it can say.
    pub labels: LabelSet,
    /// The dev set with the best model of this call.
    pub best: Option<Scores>,
    /// Texts of the training set, and how many of them were cut.
    pub texts: (usize, usize),
    /// Texts per second, evaluation left out.
    pub texts_per_second: f64,
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

/// Texts with what is to be said of them.
struct Set {
    encodings: Vec<Encoding>,
    targets: Vec<Target>,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or a base that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &ClassifierConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = settings::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let (records, dev_records) = read(config, &options.out)?;
    let labels = match &config.labels {
        Some(names) => LabelSet::given(config.task, names.clone())?,
        None => LabelSet::of(config.task, &records)?,
    };
    config.loss.check(&labels)?;
    let classifier = build(config, labels.clone())?;
    let (set, cut) = prepare(&classifier, &records)?;
    let dev = dev_records.map(|r| prepare(&classifier, &r).map(|(_, _)| r)).transpose()?;
    let weights = config.loss.weights(&labels, &set.targets)?;
    let mut optimizer = optimizer(config, &classifier)?;
    let parameters = classifier.trained();
    let size = config.batch.size * config.batch.accumulate;
    let per_epoch = set.targets.len().div_ceil(size);
    let planned = per_epoch as u64 * config.train.epochs;
    let total = config.train.max_steps.map_or(planned, |m| m.min(planned));
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    let (all, training) = classifier.count();
    if cut > 0 {
        tracing::warn!("{cut} of {} texts are cut to {} tokens", records.len(), classifier.max_tokens);
    }
    tracing::info!(
        "{} texts, labels {}; {training} of {all} parameters train ({:.1} %); {total} steps, {per_epoch} per epoch; \
         {} on {device:?}, seed {}",
        records.len(),
        labels.names.join(", "),
        100.0 * training as f64 / all as f64,
        classifier.compute,
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
    let measure = config.eval.measure.unwrap_or_else(|| Measure::of(&labels));
    let mut order = epoch(config, &set, at.epoch);
    let mut progress = Progress::new(total, at.step, options.quiet);
    let mut meter = LossMeter::default();
    let stop_at = options.stop_after.map_or(u64::MAX, |n| at.step + n);
    let (mut texts, mut busy) = (0usize, 0.0f64);
    let mut best = None;
    let mut give_up = false;
    let outcome = |at: &Position, finished, best, speed| Outcome {
        step: at.step,
        finished,
        model_dir: options.out.join("best"),
        labels: labels.clone(),
        best,
        texts: (records.len(), cut),
        texts_per_second: speed,
    };
    while at.step < total && !give_up {
        if at.window >= per_epoch {
            (at.epoch, at.window) = (at.epoch + 1, 0);
            order = epoch(config, &set, at.epoch);
        }
        let window = &order[at.window * size..((at.window + 1) * size).min(order.len())];
        let started = Instant::now();
        let lr = config.optim.lr * schedule.factor(at.step);
        optimizer.clear_grads()?;
        let loss = backward(config, &classifier, &set, window, &weights)?;
        let norm = update(&config.optim, &mut optimizer, loss, lr, at.step + 1)?;
        busy += started.elapsed().as_secs_f64();
        texts += window.len();
        at.step += 1;
        at.window += 1;
        meter.add(loss, at.step, lr)?;
        let speed = texts as f64 / busy;
        progress.step(at.step, || format!("loss {:.4} lr {lr:.2e} {speed:.1} texts/s", meter.mean()));
        let last = at.step == total;
        if at.step.is_multiple_of(config.train.log_every.max(1)) || last {
            let values = [
                ("loss", meter.take()),
                ("lr", lr),
                ("grad_norm", norm),
                ("epoch", at.epoch as f64 + at.window as f64 / per_epoch as f64),
                ("texts_per_second", speed),
            ];
            sink.write("train", at.step, &values)?;
        }
        let due = match config.eval.every_steps {
            0 => at.window == per_epoch,
            every => at.step.is_multiple_of(every),
        };
        if let (Some(dev), true) = (&dev, due || last) {
            let scores = classifier.evaluate(dev, config.batch.eval_tokens)?.0;
            progress.aside(|| {
                let figures: Vec<String> =
                    scores.named().iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
                tracing::info!("dev at step {}: {}", at.step, figures.join("  "));
            });
            sink.write("dev", at.step, &scores.named())?;
            let value = scores.get(measure).unwrap_or(f64::NAN);
            let min_gain = config.eval.stop.map_or(0.0, |s| s.min_gain);
            if at.best.update_towards(measure.goal(), value, at.step, min_gain) || at.best.best.is_none() {
                save_best(&classifier, &options.out, &at, Some(&scores))?;
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
            return Ok(outcome(&at, false, best, speed));
        }
    }
    progress.finish();
    if dev.is_none() {
        save_best(&classifier, &options.out, &at, None)?;
    }
    Ok(outcome(&at, true, best, texts as f64 / busy.max(1e-9)))
}

fn read(config: &ClassifierConfig, out: &Path) -> Result<(Vec<LabelledRecord>, Option<Vec<LabelledRecord>>)> {
    let bad = BadRows::new(if config.data.skip_bad_rows {
        BadRowPolicy::Skip { sidecar: out.join("bad_rows.jsonl") }
    } else {
        BadRowPolicy::Fail
    });
    let all = |path: &Path| -> Result<Vec<LabelledRecord>> {
        let records = read_labelled(path, true, &bad)?.collect::<std::result::Result<Vec<_>, _>>()?;
        if records.is_empty() {
            return Err(Error::Unusable(format!("{}: no usable row", path.display())));
        }
        Ok(records)
    };
    let read = (all(&config.data.train)?, config.data.dev.as_deref().map(all).transpose()?);
    let moved = bad.report().bad_rows();
    if moved > 0 {
        tracing::warn!("{moved} bad rows were moved to {}", out.join("bad_rows.jsonl").display());
    }
    Ok(read)
}

fn build(config: &ClassifierConfig, labels: LabelSet) -> Result<Classifier> {
    let device = device::parse(&config.device)?;
    let compute = config.precision.resolve(device);
    let dir = hub::resolve(&config.model.base)?;
    let bits = config.model.quantize.bits();
    if bits.is_some() && config.peft.is_none() {
        return Err(bad("model.quantize", "a quantised model does not learn itself: give [peft]"));
    }
    let mut c = Classifier::with_labels_quantised(&dir, device, compute, Some(labels), bits)?;
    if let Some(most) = config.model.max_tokens {
        if most > c.model.max_tokens() {
            let why = format!("the model takes {} tokens at most", c.model.max_tokens());
            return Err(bad("model.max_tokens", why));
        }
        c.max_tokens = most;
    }
    c.model.set_dropout(config.model.dropout, config.model.attention_dropout);
    if !c.model.set_recompute(config.model.recompute) {
        return Err(bad("model.recompute", "decoder-only models alone can"));
    }
    match &config.peft {
        Some(peft) => c.adapt(peft)?,
        None => c.model.params.set_trainable(|_| true),
    }
    Ok(c)
}

/// Encodes records and finds their targets; also the number of texts that were cut.
fn prepare(classifier: &Classifier, records: &[LabelledRecord]) -> Result<(Set, usize)> {
    let targets = classifier.targets(records)?;
    let (encodings, cut) = classifier.encode(&texts(records))?;
    Ok((Set { encodings, targets }, cut))
}

fn optimizer(config: &ClassifierConfig, classifier: &Classifier) -> Result<Optimizer> {
    let optim = &config.optim;
    let learning = || classifier.stores().flat_map(ragduet_torch::ParamStore::trainable);
    let names: Vec<String> = learning().map(|(n, _)| n).collect();
    check_patterns(&optim.freeze, names.iter().map(String::as_str))?;
    for store in classifier.stores() {
        store.set_trainable(|n| names.iter().any(|l| l == n) && !is_frozen(n, &optim.freeze));
    }
    let training: Vec<(String, Tensor)> = learning().collect();
    if training.is_empty() {
        return Err(bad("optim.freeze", "nothing is left to train"));
    }
    let layers = classifier.model.layers();
    Ok(Optimizer::new(&training, optim.options()?, |name| {
        // An adapter's parameters learn like those of the module they belong to.
        let of_base = name.strip_prefix("base_model.model.").unwrap_or(name);
        let mut rule = optim.rule(name, classifier.model.depth_of(of_base), layers);
        rule.lr_scale *= classifier.adapter.as_ref().map_or(1.0, |a| a.config.lr_scale(name));
        rule
    }))
}

/// The texts of an epoch in their order.
fn epoch(config: &ClassifierConfig, set: &Set, epoch: u64) -> Vec<usize> {
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&epoch.to_le_bytes(), config.seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    if config.sampling.balanced {
        return balanced(&set.targets, &mut rng);
    }
    let mut order: Vec<usize> = (0..set.targets.len()).collect();
    order.shuffle(&mut rng);
    order
}

/// The loss of a window; its gradients are then there.
fn backward(
    config: &ClassifierConfig,
    classifier: &Classifier,
    set: &Set,
    window: &[usize],
    weights: &[f64],
) -> Result<f64> {
    let targets: Vec<&Target> = window.iter().map(|&i| &set.targets[i]).collect();
    let total = config.loss.total(&targets, weights);
    let mut sum = 0.0;
    for (now, targets) in window.chunks(config.batch.size).zip(targets.chunks(config.batch.size)) {
        let texts: Vec<&Encoding> = now.iter().map(|&i| &set.encodings[i]).collect();
        sum += catch("a training step", "lower batch.size and raise batch.accumulate", || -> Result<f64> {
            let logits = classifier.logits(&texts, classifier.mode(true));
            let share = config.loss.sum(&logits, targets, weights) / total;
            grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            Ok(f64::try_from(share.detach().to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?)
        })?;
    }
    Ok(sum)
}

/// Writes `best/`, as transformers reads it, and `best.json`, how it came about.
fn save_best(classifier: &Classifier, out: &Path, at: &Position, dev: Option<&Scores>) -> Result<()> {
    replace_dir(&out.join("best"), |d| classifier.save(d))?;
    let path = out.join("best.json");
    let facts = serde_json::json!({"step": at.step, "dev": dev});
    let text =
        serde_json::to_vec_pretty(&facts).map_err(|source| Error::Json { path: path.clone(), source })?;
    Ok(write_atomic(&path, &text)?)
}
