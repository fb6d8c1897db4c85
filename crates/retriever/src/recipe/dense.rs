//! Trains a dense retriever: contrastive or distillation loss over in-batch and hard negatives, mined again while
//! training where asked.
//!
//! Supports: shared and separate towers, projections, learnable temperature, gradient caching, accumulation,
//! layer-wise learning rates, freezing, evaluation by ranking a dev set, early stopping, exact resume on the CPU.
//! Assumes: one process, one device; the training set's texts fit in memory.

use super::config::RetrieverConfig;
use super::loader::{self, Batch, Lengths};
use super::model::{self, Scale};
pub use super::selection::Outcome;
use super::selection::{Facts, Selection, bad_rows, parameters_line, read_dev};
use super::state::{self, Position};
use crate::biencoder::{BiEncoder, Side};
use crate::error::catch;
use crate::evaluate::EvalSet;
use crate::loss::{Compared, LossBatch, RetrievalLoss};
use crate::mining::{MiningReport, mine};
use crate::st_dir::{self, Overrides};
use crate::teacher::{ScoreCache, Teacher, TeacherConfig, TeacherVectors};
use crate::{Error, Result, grad_cache};
use ragduet_data::{PassagePool, ReadOptions, TrainingSet};
use ragduet_nn::{Mode, hub};
use ragduet_text::Encoding;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::{Device, Tensor, device, grad, rng};
pub use ragduet_train::RunOptions;
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{LossMeter, MetricSink, Progress, RunDir, Schedule, config, interrupt, update};
use std::path::Path;
use std::time::Instant;

struct Run<'a> {
    config: &'a RetrieverConfig,
    set: TrainingSet,
    model: BiEncoder,
    scale: Scale,
    loss: Box<dyn RetrievalLoss>,
    optimizer: Optimizer,
    sink: MetricSink,
    selection: Selection<'a>,
    at: Position,
    /// The current round's negatives, where mining replaced those of the data.
    mined: Option<Vec<Vec<u32>>>,
    teaching: Option<Teaching>,
    /// Steps of the whole run.
    total: u64,
}

/// What the teacher gives.
enum Teaching {
    /// Scores of each query's passages.
    Scores(Box<dyn Teacher>, ScoreCache),
    /// Vectors of all texts.
    Vectors(TeacherVectors),
}

impl Teaching {
    fn new(
        config: &RetrieverConfig,
        given: Option<Box<dyn Teacher>>,
        set: &TrainingSet,
        model: &BiEncoder,
        out: &Path,
    ) -> Result<Option<Self>> {
        let Some(wanted) = &config.teacher else { return Ok(None) };
        let folder = out.join("teacher");
        let (device, compute) = (model.device, model.compute);
        if config.loss.build()?.needs_teacher_vectors() {
            let file = folder.join("vectors.safetensors");
            let vectors = TeacherVectors::of(wanted.path(), set, &file, device, compute)?;
            let (theirs, ours) = (vectors.queries.size()[1], model.dim());
            config.loss.check_teacher_dim(ours, theirs)?;
            return Ok(Some(Self::Vectors(vectors)));
        }
        let teacher: Box<dyn Teacher> = match (given, wanted) {
            (Some(teacher), _) => teacher,
            (None, TeacherConfig::Retriever(n)) => {
                Box::new(st_dir::load(&hub::resolve(&n.path)?, device, compute, &Overrides::default())?)
            }
            (None, TeacherConfig::CrossEncoder(_)) => {
                let why = "a cross-encoder is loaded by the caller (`train_with`)".to_string();
                return Err(Error::Config { key: "teacher.cross_encoder".into(), why });
            }
        };
        let cache = ScoreCache::open(&folder.join("scores.txt"), wanted.path())?;
        Ok(Some(Self::Scores(teacher, cache)))
    }
}

/// Trains as the config says, into `options.out`.
pub fn train(config: &RetrieverConfig, options: &RunOptions) -> Result<Outcome> {
    train_with(config, options, None)
}

/// [`train`] with a teacher that this crate does not know how to load: a cross-encoder.
pub fn train_with(
    config: &RetrieverConfig,
    options: &RunOptions,
    teacher: Option<Box<dyn Teacher>>,
) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = config::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let (set, dev) = read_data(config, &options.out)?;
    let model = build(config, &set, device)?;
    config.loss.check_dim(model.dim())?;
    let scale = Scale::new(config, device);
    let loss = config.loss.build()?;
    check_data(&set, &*loss, config)?;
    if model.late().is_some() && !loss.takes_similarities() {
        let why = "this loss needs one vector a text; with late interaction take info_nce, kl, margin_mse, triplet or a \
                   sum of them";
        return Err(Error::Config { key: "loss".into(), why: why.into() });
    }
    match (model.sparse().is_some(), config.loss.is_sparsifying()) {
        (false, true) => {
            let why = "it keeps weights of words sparse: set [model.sparse]".to_string();
            return Err(Error::Config { key: "loss.flops".into(), why });
        }
        (true, false) => {
            tracing::warn!(
                "nothing keeps the weights of words sparse: add a term {{ flops = {{}} }} to loss.sum"
            );
        }
        _ => {}
    }
    let teaching = Teaching::new(config, teacher, &set, &model, &options.out)?;
    let optimizer = model::optimizer(&config.optim, &model, state::parameters(&model, &scale))?;
    let lengths = Lengths::of(&model, &set)?;
    let (total, per_epoch) = total_steps(config, &set, &lengths)?;
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    let checkpoints = Checkpoints::open(&options.out, config.save.keep)?;
    recover(&options.out.join("best"))?;
    describe(config, &set, &model, total, per_epoch);

    // Resume.
    let found = if options.resume { checkpoints.latest()? } else { None };
    if options.resume && found.is_none() {
        tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
    }
    let sink = MetricSink::open(dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let facts = Facts {
        base: config.model.base.clone(),
        data: config.data.train.display().to_string(),
        examples: set.items().len(),
        config: resolved,
    };
    let selection = Selection { run: &options.out, eval: &config.eval, dev, facts, before: None, best: None };
    let at = Position::default();
    let mut run =
        Run { config, set, model, scale, loss, optimizer, sink, selection, at, mined: None, teaching, total };
    let mut resumed = false;
    if let Some((step, path)) = &found {
        let (at, mined) = state::restore(path, &run.model, &run.scale, &mut run.optimizer)?;
        run.at = at;
        if let Some(negatives) = mined {
            run.use_negatives(negatives)?;
        }
        tracing::info!("resumed at step {step}");
        resumed = true;
    }
    if run.mined.is_none() {
        run.teach()?;
    }
    if config.eval.at_start && !resumed {
        run.selection.evaluate_start(&run.model)?;
    }

    // Train.
    let mut progress = Progress::new(total, run.at.step, options.quiet);
    let mut meter = LossMeter::default();
    let (mut pairs, mut busy) = (0u64, 0.0f64);
    let stop_at = options.stop_after.map_or(u64::MAX, |n| run.at.step + n);
    let mut give_up = false;
    'epochs: while run.at.step < total && !give_up {
        let plan = loader::plan(config, &run.set, &lengths, run.at.epoch)?;
        if plan.batches.is_empty() {
            return Err(Error::Unusable(
                "no full batch in an epoch; lower batch.size or set batch.drop_last = false".into(),
            ));
        }
        while run.at.batch < plan.batches.len() {
            run.mine_if_due(&progress)?;
            // Until the next round of mining the negatives stay, and batches can be prepared ahead.
            let until = run.next_mining();
            let rest = plan.batches[run.at.batch..].to_vec();
            // The set moves out of `run` so that the loader's thread may read it while steps change the rest.
            let set = std::mem::take(&mut run.set);
            let result: Result<Segment> = std::thread::scope(|scope| {
                let tokenize = [Side::Query, Side::Passage].map(|s| run.model.owned_tokenize_fn(s));
                let batches = loader::start(scope, config, &set, tokenize, rest, run.at.epoch);
                let mut window: Vec<Batch> = Vec::new();
                for batch in batches {
                    window.push(batch?);
                    run.at.batch += 1;
                    let last_of_epoch = run.at.batch == plan.batches.len();
                    if (window.len() as u64) < config.train.accumulate && !last_of_epoch {
                        continue;
                    }
                    let started = Instant::now();
                    let lr = config.optim.lr * schedule.factor(run.at.step);
                    let (value, norm) = run.step(&window, lr)?;
                    busy += started.elapsed().as_secs_f64();
                    pairs += window.iter().map(|b| b.queries.len() as u64).sum::<u64>();
                    let tokens: usize = window.iter().map(Batch::tokens).sum();
                    window.clear();
                    run.at.step += 1;
                    let step = run.at.step;
                    meter.add(value, step, lr)?;
                    let speed = pairs as f64 / busy;
                    progress
                        .step(step, || format!("loss {:.4} lr {lr:.2e} {speed:.1} pairs/s", meter.mean()));
                    if step.is_multiple_of(config.train.log_every.max(1)) || step == total {
                        let values = [
                            ("loss", meter.take()),
                            ("lr", lr),
                            ("grad_norm", norm),
                            ("epoch", run.at.epoch as f64 + run.at.batch as f64 / plan.batches.len() as f64),
                            ("pairs_per_second", speed),
                            ("tokens", tokens as f64),
                            ("scale", f64::try_from(run.scale.value().detach()).unwrap_or(f64::NAN)),
                        ];
                        run.sink.write("train", step, &values)?;
                    }
                    let every = config.eval.every_steps;
                    if every > 0 && step.is_multiple_of(every) && step < total {
                        progress.aside(|| ());
                        give_up = run.evaluate_and_keep_best()?;
                    }
                    let asked = interrupt::asked() || step >= stop_at;
                    let due = config.save.every_steps > 0 && step.is_multiple_of(config.save.every_steps);
                    if due || asked || give_up || step == total {
                        let position = run.position_after(plan.batches.len());
                        checkpoints.save(step, |d| {
                            state::save(
                                d,
                                &run.model,
                                &run.scale,
                                &run.optimizer,
                                &position,
                                run.mined.as_deref(),
                            )
                        })?;
                    }
                    if asked && step < total {
                        return Ok(Segment::Interrupted);
                    }
                    if give_up || step == total || until == Some(step) {
                        return Ok(Segment::Done);
                    }
                }
                Ok(Segment::Done)
            });
            run.set = set;
            if result? == Segment::Interrupted {
                progress.finish();
                tracing::info!("stopped at step {}; go on with --resume", run.at.step);
                return Ok(run.selection.outcome(run.at.step, false, pairs as f64 / busy));
            }
            if give_up || run.at.step >= total {
                break 'epochs;
            }
        }
        run.at = run.position_after(plan.batches.len());
    }
    progress.finish();

    // The last evaluation, and the model where no dev set chose one.
    if run.selection.dev.is_some() {
        if !give_up {
            run.evaluate_and_keep_best()?;
        }
    } else {
        run.selection.save(&run.model, run.at.step, None)?;
    }
    Ok(run.selection.outcome(run.at.step, true, pairs as f64 / busy.max(1e-9)))
}

#[derive(Debug, PartialEq)]
enum Segment {
    Done,
    Interrupted,
}

impl Run<'_> {
    /// One optimiser step over a window of batches: the mean loss and the gradients' norm before clipping.
    fn step(&mut self, window: &[Batch], lr: f64) -> Result<(f64, f64)> {
        self.optimizer.clear_grads()?;
        let total: usize = window.iter().map(|b| b.queries.len()).sum();
        let mut sum = 0.0;
        for batch in window {
            // Each query counts alike, also where the batches of a window differ in size.
            let weight = batch.queries.len() as f64 / total as f64;
            sum += weight * self.backward(batch, weight)?;
        }
        let norm = update(&self.config.optim, &mut self.optimizer, sum, lr, self.at.step + 1);
        if let Err(ragduet_train::Error::NotFinite { .. }) = norm {
            let first: Vec<&str> =
                window.iter().flat_map(|b| b.ids.iter().map(String::as_str)).take(8).collect();
            tracing::error!("the batch begins with queries {}", first.join(", "));
        }
        let norm = norm?;
        Ok((sum, norm))
    }

    /// Gradients of `weight` times the batch's loss; returns the loss.
    fn backward(&self, batch: &Batch, weight: f64) -> Result<f64> {
        let mode = Mode::train(self.model.compute);
        let scale = self.scale.value();
        let relations = &batch.relations;
        let loss = |q: &Tensor, p: &Tensor| {
            let taught = match &self.teaching {
                Some(Teaching::Vectors(v)) => Some(v.rows(&batch.numbers.0, &batch.numbers.1)),
                _ => None,
            };
            let teacher = taught.as_ref().map(|(q, p)| (q, p));
            let progress = self.at.step as f64 / self.total.max(1) as f64;
            let on = |compared| {
                self.loss.loss(&LossBatch { compared, teacher, relations, scale: &scale, progress })
            };
            if self.model.late().is_none() {
                let (queries, passages) = (self.model.comparable(q), self.model.comparable(p));
                return on(Compared::Vectors { queries: &queries, passages: &passages });
            }
            let segments =
                |side, texts: &[Encoding]| self.model.row_segments(side, &texts.iter().collect::<Vec<_>>());
            let (of_q, of_p) =
                (segments(Side::Query, &batch.queries), segments(Side::Passage, &batch.passages));
            let wanted = self.loss.wanted(relations, batch.passages.len());
            on(Compared::Similarities(&self.model.similarities((q, &of_q), (p, &of_p), wanted.as_deref())))
        };
        let remedy = "lower batch.size, or set grad_cache.chunk_tokens";
        catch("a training step", remedy, || {
            let value = match self.config.grad_cache {
                Some(g) => grad_cache::backward(
                    &self.model,
                    &batch.queries,
                    &batch.passages,
                    g.chunk_tokens,
                    mode,
                    weight,
                    loss,
                )?,
                None => {
                    let (q, p) = self.embed_batch(batch, mode)?;
                    let value = loss(&q, &p);
                    grad::backward(&[&value * weight], &[Tensor::ones_like(&value)])?;
                    value.detach()
                }
            };
            Ok(f64::try_from(&value).map_err(ragduet_torch::Error::from)?)
        })
    }

    /// Queries and passages; with a shared tower in one pass, unless the sides differ in more than their texts.
    fn embed_batch(&self, batch: &Batch, mode: Mode) -> Result<(Tensor, Tensor)> {
        let m = &self.model;
        if m.is_shared() && m.late().is_none() && m.skipped(Side::Query)? == m.skipped(Side::Passage)? {
            let all: Vec<&Encoding> = batch.queries.iter().chain(&batch.passages).collect();
            let out = m.embed(Side::Passage, &all, mode)?;
            let n = batch.queries.len() as i64;
            return Ok((out.narrow(0, 0, n), out.narrow(0, n, batch.passages.len() as i64)));
        }
        let q = m.rows(Side::Query, &batch.queries.iter().collect::<Vec<_>>(), mode)?;
        let p = m.rows(Side::Passage, &batch.passages.iter().collect::<Vec<_>>(), mode)?;
        Ok((q, p))
    }

    fn mine_if_due(&mut self, progress: &Progress) -> Result<()> {
        let Some(mining) = &self.config.mining else { return Ok(()) };
        // After a resume at the very step of a round, its negatives are in the checkpoint already.
        if !mining.when.is_due(self.at.step) || self.at.mined_at == Some(self.at.step) {
            return Ok(());
        }
        let (chosen, report) =
            mine(&self.model, &self.set, mining, self.at.rounds, &self.selection.encode(), &mut |_, _| ())?;
        let negatives: Vec<Vec<u32>> = self
            .set
            .items()
            .iter()
            .map(|item| {
                let new = chosen[item.query as usize].iter().map(|m| m.passage);
                let kept = item.negatives.iter().copied().filter(|_| mining.keep_given);
                kept.chain(new).collect()
            })
            .collect();
        progress.aside(|| tracing::info!("mining at step {}: {report}", self.at.step));
        self.log_mining(&report)?;
        self.at.rounds += 1;
        self.at.mined_at = Some(self.at.step);
        self.use_negatives(negatives)
    }

    fn next_mining(&self) -> Option<u64> {
        let when = self.config.mining.as_ref()?.when;
        (self.at.step + 1..=self.at.step + 1_000_000).find(|&s| when.is_due(s))
    }

    fn use_negatives(&mut self, negatives: Vec<Vec<u32>>) -> Result<()> {
        self.set.set_negatives(negatives.clone())?;
        self.mined = Some(negatives);
        self.teach()
    }

    /// Has the teacher score what each query is compared with.
    fn teach(&mut self) -> Result<()> {
        match &mut self.teaching {
            Some(Teaching::Scores(teacher, cache)) => cache.score_set(&**teacher, &mut self.set),
            _ => Ok(()),
        }
    }

    fn log_mining(&mut self, r: &MiningReport) -> Result<()> {
        let mut values = vec![
            ("chosen", r.chosen as f64),
            ("queries_without", r.without as f64),
            ("mean_positive", r.mean_positive),
            ("mean_negative", r.mean_negative),
            ("seconds", r.encode_seconds + r.search_seconds),
        ];
        if let Some(recall) = &r.recall {
            values.push(("index_recall", recall.recall));
        }
        Ok(self.sink.write("mining", self.at.step, &values)?)
    }

    /// The position that a checkpoint states: at the end of an epoch, the start of the next.
    fn position_after(&self, batches: usize) -> Position {
        let mut at = self.at.clone();
        if at.batch >= batches {
            at.epoch += 1;
            at.batch = 0;
        }
        at
    }

    fn evaluate_and_keep_best(&mut self) -> Result<bool> {
        let step = self.at.step;
        self.selection.evaluate_and_keep_best(&self.model, &mut self.sink, &mut self.at.best, step)
    }
}

/// The model that [`train`] would start from.
pub fn initial_model(config: &RetrieverConfig) -> Result<BiEncoder> {
    config.validate()?;
    rng::seed(config.seed);
    let (set, _) = read_data(config, Path::new("."))?;
    build(config, &set, device::parse(&config.device)?)
}

fn build(config: &RetrieverConfig, set: &TrainingSet, device: Device) -> Result<BiEncoder> {
    model::build(&config.model, config.peft.as_ref(), config.precision.resolve(device), device, || {
        let passages = set.passages().iter().map(|p| p.full_text());
        passages.chain(set.queries().iter().map(|q| q.text.clone())).collect()
    })
}

fn read_data(config: &RetrieverConfig, out: &Path) -> Result<(TrainingSet, Option<EvalSet>)> {
    let d = &config.data;
    let bad = bad_rows(d.skip_bad_rows, out);
    let options = ReadOptions {
        format: d.format,
        split: d.split.clone(),
        corpus: d.corpus.clone(),
        queries: d.queries.clone(),
    };
    // Mining needs what nobody judged; a tokenizer learns from all of the corpus.
    let pool = match config.mining.is_some() || config.model.scratch.is_some() {
        true => PassagePool::WholeCorpus,
        false => PassagePool::Judged,
    };
    let set = TrainingSet::read(&d.train, &options, pool, &bad)?;
    let dev = read_dev(d.dev.as_deref(), &d.dev_split, &config.eval, config.seed, &bad)?;
    let report = bad.report();
    if report.bad_rows() > 0 {
        tracing::warn!("{report}");
    }
    Ok((set, dev))
}

fn check_data(set: &TrainingSet, loss: &dyn RetrievalLoss, config: &RetrieverConfig) -> Result<()> {
    if set.items().is_empty() {
        return Err(Error::Unusable(format!("{}: no training examples", config.data.train.display())));
    }
    let without = set.items().iter().filter(|i| i.negatives.is_empty()).count();
    if loss.needs_negatives() && config.mining.is_none() && without > 0 {
        return Err(Error::Unusable(format!(
            "{without} of {} examples have no negatives, which this loss needs; mine some with `[mining]` or `ragduet \
             mine`, or use loss.info_nce with in-batch negatives",
            set.items().len()
        )));
    }
    let unscored = set.items().iter().filter(|i| i.scores.is_none()).count();
    if loss.needs_teacher() && config.teacher.is_none() && unscored > 0 {
        return Err(Error::Unusable(format!(
            "{unscored} of {} examples have no teacher scores, which this loss learns from",
            set.items().len()
        )));
    }
    Ok(())
}

/// Optimiser steps in all, and of the first epoch.
fn total_steps(config: &RetrieverConfig, set: &TrainingSet, lengths: &Lengths) -> Result<(u64, u64)> {
    let batches = loader::plan(config, set, lengths, 0)?.batches.len() as u64;
    let per_epoch = batches.div_ceil(config.train.accumulate);
    let total = (per_epoch as f64 * config.train.epochs).round().max(1.0) as u64;
    Ok((config.train.max_steps.map_or(total, |m| m.min(total)), per_epoch))
}

fn describe(config: &RetrieverConfig, set: &TrainingSet, model: &BiEncoder, total: u64, per_epoch: u64) {
    tracing::info!(
        "{} examples, {} queries, {} passages; {}, seed {}; {total} steps, {per_epoch} per epoch",
        set.items().len(),
        set.queries().len(),
        set.passages().len(),
        parameters_line(model),
        config.seed
    );
}
