//! Trains a cross-encoder on questions with what a first stage finds for them.
//!
//! The order of an epoch and the negatives of a question in it are pure functions of (data, config, seed, epoch): a
//! checkpoint stores a place, and a resumed run repeats on the CPU what the uninterrupted one does, bit for bit. What the
//! first stage found is kept in the run folder.

use super::config::CrossEncoderConfig;
use super::lists::{List, list, order};
use crate::error::{bad, catch};
use crate::loss::{Candidates, RankingLoss};
use crate::model::CrossEncoder;
use crate::{Error, Result};
use ragduet_classifier::Text;
use ragduet_data::{BadRowPolicy, BadRows, PassagePool, ReadOptions, TrainingSet};
use ragduet_metrics::{Evaluation, Run, evaluate};
use ragduet_nn::hub;
use ragduet_retriever::evaluate::{EvalSet, evaluate_model};
use ragduet_retriever::mining::mine;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, EncodeSettings};
use ragduet_text::Encoding;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Device, Kind, ParamStore, Tensor, device, grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover, replace_dir};
use ragduet_train::{
    EarlyStopping, Goal, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, check_patterns,
    config as settings, interrupt, is_frozen, state, update,
};
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
    /// Dev as the first stage ranks it, and with the best model of this call.
    pub first_stage: Option<Evaluation>,
    /// See `first_stage`.
    pub best: Option<Evaluation>,
    /// Pairs per second, evaluation left out.
    pub pairs_per_second: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    step: u64,
    epoch: u64,
    batch: usize,
    best: EarlyStopping,
}

/// Where what the first stage found is kept.
const FIRST_STAGE: &str = "first-stage";

/// Questions that are re-ranked while training.
struct Dev {
    set: EvalSet,
    ranking: Run,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or models that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &CrossEncoderConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let dir = RunDir::open(&options.out, &settings::to_toml(config)?, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let (set, dev) = read(config, &options.out)?;
    let model = build(config, device)?;
    let mut optimizer = optimizer(config, &model)?;
    let parameters = model.classifier.trained();
    let loss = config.loss.build()?;
    let (mined, dev) = first_stage(config, &set, dev, &options.out, device)?;
    let items = set.items().len();
    let per_epoch = items.div_ceil(config.batch.questions);
    let planned = (config.train.epochs * per_epoch as f64).round().max(1.0) as u64;
    let total = config.train.max_steps.map_or(planned, |m| m.min(planned));
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    let (all, training) = model.classifier.count();
    tracing::info!(
        "{items} examples over {} passages; {training} of {all} parameters train ({:.1} %); {total} steps, {per_epoch} \
         per epoch; {} on {device:?}, seed {}",
        set.passages().len(),
        100.0 * training as f64 / all as f64,
        model.classifier.compute,
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
    let first = dev.as_ref().map(|d| evaluate(&d.set.qrels, &d.ranking, &config.eval.measures));
    if let (Some(first), None) = (&first, &found) {
        tracing::info!("dev as the first stage ranks it: {}", figures(first));
        log(&mut sink, 0, first)?;
    }

    // Train.
    let mut progress = Progress::new(total, at.step, options.quiet);
    let mut meter = LossMeter::default();
    let stop_at = options.stop_after.map_or(u64::MAX, |n| at.step + n);
    let mut now = order(config, items, at.epoch);
    let (mut pairs, mut busy) = (0usize, 0.0f64);
    let (mut best, mut give_up) = (None, false);
    let mut finished = true;
    while at.step < total && !give_up {
        if at.batch >= per_epoch {
            (at.epoch, at.batch) = (at.epoch + 1, 0);
            now = order(config, items, at.epoch);
        }
        let from = at.batch * config.batch.questions;
        let lists: Vec<List> = now[from..(from + config.batch.questions).min(items)]
            .iter()
            .map(|&i| list(config, &set, mined.as_deref(), i, at.epoch, loss.needs_teacher()))
            .collect::<Result<_>>()?;
        let started = Instant::now();
        let lr = config.optim.lr * schedule.factor(at.step);
        optimizer.clear_grads()?;
        let value = backward(config, &model, &*loss, &set, &lists)?;
        let norm = update(&config.optim, &mut optimizer, value, lr, at.step + 1)?;
        busy += started.elapsed().as_secs_f64();
        pairs += lists.iter().map(|l| l.passages.len()).sum::<usize>();
        at.step += 1;
        at.batch += 1;
        meter.add(value, at.step, lr)?;
        let speed = pairs as f64 / busy;
        progress.step(at.step, || format!("loss {:.4} lr {lr:.2e} {speed:.1} pairs/s", meter.mean()));
        let last = at.step == total;
        if at.step.is_multiple_of(config.train.log_every.max(1)) || last {
            let values = [
                ("loss", meter.take()),
                ("lr", lr),
                ("grad_norm", norm),
                ("epoch", at.epoch as f64 + at.batch as f64 / per_epoch as f64),
                ("pairs_per_second", speed),
            ];
            sink.write("train", at.step, &values)?;
        }
        let due = config.eval.every_steps > 0 && at.step.is_multiple_of(config.eval.every_steps);
        if let (Some(dev), true) = (&dev, due || last) {
            let scores = rerank(config, &model, dev)?;
            progress.aside(|| tracing::info!("dev at step {}: {}", at.step, figures(&scores)));
            log(&mut sink, at.step, &scores)?;
            let value = config.eval.measures.first().and_then(|&m| scores.mean(m)).unwrap_or(f64::NAN);
            let min_gain = config.eval.stop.map_or(0.0, |s| s.min_gain);
            if at.best.update_towards(Goal::Max, value, at.step, min_gain) || at.best.best.is_none() {
                save_best(&model, &options.out, at.step, Some(&scores))?;
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
            tracing::info!("stopped at step {}; go on with --resume", at.step);
            finished = false;
            break;
        }
    }
    progress.finish();
    if dev.is_none() && finished {
        save_best(&model, &options.out, at.step, None)?;
    }
    Ok(Outcome {
        step: at.step,
        finished,
        model_dir: options.out.join("best"),
        first_stage: first,
        best,
        pairs_per_second: pairs as f64 / busy.max(1e-9),
    })
}

fn log(sink: &mut MetricSink, step: u64, e: &Evaluation) -> Result<()> {
    let named: Vec<(String, f64)> = e.mean.iter().map(|(m, v)| (m.to_string(), v)).collect();
    let values: Vec<(&str, f64)> = named.iter().map(|(m, v)| (m.as_str(), *v)).collect();
    Ok(sink.write("dev", step, &values)?)
}

fn figures(e: &Evaluation) -> String {
    let all: Vec<String> = e.mean.iter().map(|(m, v)| format!("{m} {v:.4}")).collect();
    all.join("  ")
}

fn read(config: &CrossEncoderConfig, out: &Path) -> Result<(TrainingSet, Option<EvalSet>)> {
    let d = &config.data;
    let bad = BadRows::new(if d.skip_bad_rows {
        BadRowPolicy::Skip { sidecar: out.join("bad_rows.jsonl") }
    } else {
        BadRowPolicy::Fail
    });
    let options = ReadOptions {
        format: d.format,
        split: d.split.clone(),
        corpus: d.corpus.clone(),
        queries: d.queries.clone(),
    };
    let set = TrainingSet::read(&d.train, &options, PassagePool::WholeCorpus, &bad)?;
    if set.items().is_empty() {
        return Err(Error::Unusable(format!("{}: no training examples", d.train.display())));
    }
    let dev = match &d.dev {
        None => None,
        Some(path) => {
            let options = ReadOptions { split: Some(d.dev_split.clone()), ..ReadOptions::default() };
            Some(EvalSet::read(path, &options, None, config.seed, &bad)?)
        }
    };
    let report = bad.report();
    if report.bad_rows() > 0 {
        tracing::warn!("{report}");
    }
    Ok((set, dev))
}

fn build(config: &CrossEncoderConfig, device: Device) -> Result<CrossEncoder> {
    let compute = config.precision.resolve(device);
    let folder = hub::resolve(&config.model.base)?;
    let activation = config.loss.activation();
    let mut model = CrossEncoder::from_base(&folder, device, compute, config.peft.as_ref(), activation)?;
    let c = &mut model.classifier;
    if let Some(most) = config.model.max_tokens {
        if most > c.model.max_tokens() {
            let why = format!("the model takes {} tokens at most", c.model.max_tokens());
            return Err(bad("model.max_tokens", why));
        }
        c.max_tokens = most;
    }
    c.model.set_dropout(config.model.dropout, config.model.attention_dropout);
    Ok(model)
}

fn optimizer(config: &CrossEncoderConfig, model: &CrossEncoder) -> Result<Optimizer> {
    let (optim, c) = (&config.optim, &model.classifier);
    let learning = || c.stores().flat_map(ParamStore::trainable);
    let names: Vec<String> = learning().map(|(n, _)| n).collect();
    check_patterns(&optim.freeze, names.iter().map(String::as_str))?;
    for store in c.stores() {
        store.set_trainable(|n| names.iter().any(|l| l == n) && !is_frozen(n, &optim.freeze));
    }
    let training: Vec<(String, Tensor)> = learning().collect();
    if training.is_empty() {
        return Err(bad("optim.freeze", "nothing is left to train"));
    }
    let layers = c.model.layers();
    Ok(Optimizer::new(&training, optim.options()?, |name| {
        // An adapter's parameters learn like those of the module they belong to.
        let of_base = name.strip_prefix("base_model.model.").unwrap_or(name);
        let mut rule = optim.rule(name, c.model.depth_of(of_base), layers);
        rule.lr_scale *= c.adapter.as_ref().map_or(1.0, |a| a.config.lr_scale(name));
        rule
    }))
}

/// Passages by question.
type Negatives = Vec<Vec<u32>>;

/// Negatives by question, and the ranking of dev: found once and kept in the run folder.
fn first_stage(
    config: &CrossEncoderConfig,
    set: &TrainingSet,
    dev: Option<EvalSet>,
    out: &Path,
    device: Device,
) -> Result<(Option<Negatives>, Option<Dev>)> {
    let Some(first) = &config.first_stage else { return Ok((None, None)) };
    let folder = out.join(FIRST_STAGE);
    let (file, ranked) = (folder.join("negatives.json"), folder.join("dev.trec"));
    if !(file.is_file() && (dev.is_none() || ranked.is_file())) {
        fs_err::create_dir_all(&folder)?;
        let compute = config.precision.resolve(device);
        let model: BiEncoder =
            st_dir::load(&hub::resolve(&first.model)?, device, compute, &Overrides::default())?;
        let encode = EncodeSettings::default();
        let (chosen, report) = mine(&model, set, &first.mining, 0, &encode, &mut |_, _| ())?;
        tracing::info!("first stage: {report}");
        if let Some(dev) = &dev {
            let (_, run) = evaluate_model(
                &model,
                dev,
                &config.eval.measures,
                config.eval.depth,
                &encode,
                &mut |_, _| (),
            )?;
            run.write_trec(&ranked, "first-stage")?;
        }
        let rows: Vec<Vec<u32>> = chosen.iter().map(|c| c.iter().map(|m| m.passage).collect()).collect();
        let text = serde_json::to_vec(&rows).map_err(|e| Error::Unusable(e.to_string()))?;
        write_atomic(&file, &text)?;
    }
    let negatives: Negatives = serde_json::from_slice(&fs_err::read(&file)?).map_err(|e| {
        Error::Unusable(format!("{}: {e}; remove the run folder and begin anew", file.display()))
    })?;
    let within = |row: &Vec<u32>| row.iter().all(|&p| (p as usize) < set.passages().len());
    if negatives.len() != set.queries().len() || !negatives.iter().all(within) {
        let why = "was made from other data: the data has changed since the run was started";
        return Err(Error::Unusable(format!("{}: {why}", file.display())));
    }
    let dev = match dev {
        None => None,
        Some(set) => {
            let whole = Run::read_trec(&ranked)?;
            let most = config.eval.questions.unwrap_or(usize::MAX);
            let mut ranking = Run::new();
            for (id, _) in set.queries.iter().take(most) {
                let docs = whole.get(id).unwrap_or_default().iter().take(config.eval.depth);
                ranking.insert(id.clone(), docs.cloned().collect())?;
            }
            // Questions that are not ranked would count as failures.
            let mut qrels = ragduet_metrics::Qrels::new();
            for (query, docs) in set.qrels.iter().filter(|(q, _)| ranking.get(q).is_some()) {
                for (doc, &grade) in docs {
                    qrels.insert(query, doc.clone(), grade)?;
                }
            }
            Some(Dev { set: EvalSet { qrels, ..set }, ranking })
        }
    };
    Ok((Some(negatives), dev))
}

/// Dev in the model's order.
fn rerank(config: &CrossEncoderConfig, model: &CrossEncoder, dev: &Dev) -> Result<Evaluation> {
    let (depth, tokens) = (config.eval.depth, config.eval.batch_tokens);
    let run = model.rerank_set(&dev.set, &dev.ranking, depth, tokens, &mut |_| ())?;
    Ok(evaluate(&dev.set.qrels, &run, &config.eval.measures))
}

/// The loss of a step; its gradients are then there.
fn backward(
    config: &CrossEncoderConfig,
    model: &CrossEncoder,
    loss: &dyn RankingLoss,
    set: &TrainingSet,
    lists: &[List],
) -> Result<f64> {
    let question = |l: &List| set.queries()[l.query as usize].text.clone();
    let passages = |l: &List| l.passages.iter().map(|&p| set.passages()[p as usize].full_text()).collect();
    let texts: Vec<(String, Vec<String>)> = lists.iter().map(|l| (question(l), passages(l))).collect();
    let pairs: Vec<Text<'_>> =
        texts.iter().flat_map(|(q, ps)| ps.iter().map(move |p| (q.as_str(), Some(p.as_str())))).collect();
    let (encodings, _) = model.classifier.encode(&pairs)?;
    let mut rest = encodings.as_slice();
    let mut sum = 0.0;
    let mut from = 0;
    while from < lists.len() {
        // As many questions as fit.
        let (mut to, mut count, mut tokens) = (from, 0, 0);
        while to < lists.len() {
            let n = lists[to].passages.len();
            let own: usize = rest[count..count + n].iter().map(Encoding::len).sum();
            if to > from && tokens + own > config.batch.tokens {
                break;
            }
            (to, count, tokens) = (to + 1, count + n, tokens + own);
        }
        let (now, later) = rest.split_at(count);
        let share = (to - from) as f64 / lists.len() as f64;
        sum += catch("a training step", "lower batch.tokens", || {
            let now: Vec<&Encoding> = now.iter().collect();
            let logits = model.classifier.logits(&now, model.classifier.mode(true)).view(-1);
            let value = of_lists(loss, &logits, &lists[from..to]) * share;
            grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
            Ok(f64::try_from(value.detach().to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?)
        })?;
        (from, rest) = (to, later);
    }
    Ok(sum)
}

/// The loss of lists whose logits lie one after another.
fn of_lists(loss: &dyn RankingLoss, logits: &Tensor, lists: &[List]) -> Tensor {
    let width = lists.iter().map(|l| l.passages.len()).max().unwrap_or(0);
    let (mut places, mut labels, mut real) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0i64;
    for l in lists {
        let n = l.passages.len();
        // Places that are not filled repeat the first and are masked.
        places.extend((0..width).map(|i| if i < n { at + i as i64 } else { at }));
        labels.extend((0..width).map(|i| l.labels.get(i).copied().unwrap_or(0.0)));
        real.extend((0..width).map(|i| i < n));
        at += n as i64;
    }
    let shape = [lists.len() as i64, width as i64];
    let device = logits.device();
    let scores = logits.index_select(0, &Tensor::from_slice(&places).to_device(device)).view(shape);
    let labels = Tensor::from_slice(&labels).view(shape).to_device(device);
    let real = Tensor::from_slice(&real).view(shape).to_device(device);
    loss.loss(&Candidates { scores: &scores, labels: &labels, real: &real })
}

/// Writes `best/`, as sentence-transformers reads it, and `best.json`, how it came about.
fn save_best(model: &CrossEncoder, out: &Path, step: u64, dev: Option<&Evaluation>) -> Result<()> {
    replace_dir(&out.join("best"), |d| model.save(d))?;
    let facts = serde_json::json!({"step": step, "dev": dev.map(|e| &e.mean)});
    let text = serde_json::to_vec_pretty(&facts).map_err(|e| Error::Unusable(e.to_string()))?;
    Ok(write_atomic(&out.join("best.json"), &text)?)
}
