//! Contriever (Izacard et al., 2021, arXiv 2112.09118): trains a retriever from plain text, without any question or
//! judgement. Two random crops of a chunk of text are a query and its key; what a query must tell its key from are the
//! keys of other chunks, out of a queue that an averaged encoder fills (MoCo), or out of the batch.
//!
//! Supports: new and pretrained encoders, deletion, replacement and masking of tokens, label smoothing, batches larger
//! than memory, evaluation by ranking a dev set, early stopping, exact resume on the CPU.
//! Assumes: one process, one device; the corpus fits in memory as token ids.
//! What it writes is a folder that `train retriever` goes on from.

mod chunks;
mod config;
mod contrast;
mod crop;
mod loader;
mod momentum;
mod queue;

pub use chunks::{Chunks, Order};
pub use config::{
    ChunkBatchConfig, ChunkConfig, ContrastConfig, ContrieverConfig, CorpusConfig, CropConfig, FormConfig,
    InBatchConfig, MocoConfig, StepConfig,
};
pub use contrast::Contrast;
pub use crop::Cropper;
pub use momentum::KeyEncoder;
pub use queue::KeyQueue;

use super::model;
use super::selection::{Facts, Outcome, Selection, bad_rows, parameters_line, read_dev};
use crate::biencoder::BiEncoder;
use crate::error::catch;
use crate::representation::Side;
use crate::{Error, Result, grad_cache};
use loader::{Batch, Source};
use ragduet_data::{BadRows, ReadOptions, read_corpus};
use ragduet_nn::Mode;
use ragduet_text::Encoding;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::{Device, Kind, Tensor, device, grad, no_grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{
    EarlyStopping, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, config as settings,
    interrupt, state, update,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// Where a run is. The order of chunks and their crops are functions of the step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    step: u64,
    best: EarlyStopping,
}

/// Where the queue is kept in a checkpoint.
const QUEUE: &str = "queue.safetensors";

/// The keys of the form `moco`.
struct Keys {
    encoder: KeyEncoder,
    queue: KeyQueue,
    mode: Mode,
}

struct Run<'a> {
    config: &'a ContrieverConfig,
    model: BiEncoder,
    keys: Option<Keys>,
    optimizer: Optimizer,
    sink: MetricSink,
    selection: Selection<'a>,
    at: Position,
}

/// Measures of a step's batch, without a graph.
struct BatchStats {
    loss: f64,
    /// Share of the queries that are nearest to their key.
    accuracy: f64,
    /// Standard deviation of the embeddings' components over the batch; near 0 they have collapsed.
    spread: [f64; 2],
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or models that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &ContrieverConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = settings::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let bad = bad_rows(config.data.skip_bad_rows, &options.out);
    let (model, chunks) = build(config, device, &bad)?;
    let d = &config.data;
    let dev = read_dev(d.dev.as_deref(), &d.dev_split, &config.eval, config.seed, &bad)?;
    let report = bad.report();
    if report.bad_rows() > 0 {
        tracing::warn!("{report}");
    }
    let source = Source::new(config, &model, &chunks)?;
    let keys = match &config.form {
        FormConfig::Moco(m) => Some(Keys::new(m, config, &model)?),
        FormConfig::InBatch(_) => None,
    };
    let optimizer = model::optimizer(&config.optim, &model, model.parameters())?;
    let total = config.train.steps;
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    let checkpoints = Checkpoints::open(&options.out, config.save.keep)?;
    recover(&options.out.join("best"))?;
    describe(config, &model, &chunks);

    // Resume.
    let found = if options.resume { checkpoints.latest()? } else { None };
    if options.resume && found.is_none() {
        tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
    }
    let sink = MetricSink::open(dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let facts = Facts {
        base: config.model.base.clone(),
        data: d.train.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
        examples: chunks.len(),
        config: resolved,
    };
    let selection = Selection { run: &options.out, eval: &config.eval, dev, facts, before: None, best: None };
    let mut run = Run { config, model, keys, optimizer, sink, selection, at: Position::default() };
    match &found {
        Some((step, path)) => {
            run.restore(path)?;
            tracing::info!("resumed at step {step}");
        }
        None if config.eval.at_start => run.selection.evaluate_start(&run.model)?,
        None => {}
    }

    // Train.
    let mut progress = Progress::new(total, run.at.step, options.quiet);
    let mut meter = LossMeter::default();
    let (mut pairs, mut busy) = (0u64, 0.0f64);
    let stop_at = options.stop_after.map_or(u64::MAX, |n| run.at.step + n);
    let (mut give_up, mut interrupted) = (false, false);
    std::thread::scope(|scope| -> Result<()> {
        for batch in source.start(scope, run.at.step..total) {
            let started = Instant::now();
            let lr = config.optim.lr * schedule.factor(run.at.step);
            let (stats, norm) = run.step(&batch, lr)?;
            busy += started.elapsed().as_secs_f64();
            pairs += batch.queries.len() as u64;
            run.at.step += 1;
            let step = run.at.step;
            meter.add(stats.loss, step, lr)?;
            let speed = pairs as f64 / busy;
            progress.step(step, || format!("loss {:.4} lr {lr:.2e} {speed:.1} pairs/s", meter.mean()));
            let last = step == total;
            if step.is_multiple_of(config.train.log_every.max(1)) || last {
                let values = [
                    ("loss", meter.take()),
                    ("accuracy", stats.accuracy),
                    ("lr", lr),
                    ("grad_norm", norm),
                    ("epoch", step as f64 * config.batch.chunks as f64 / chunks.len() as f64),
                    ("pairs_per_second", speed),
                    ("tokens", batch.tokens() as f64),
                    ("std_query", stats.spread[0]),
                    ("std_key", stats.spread[1]),
                    ("queue", run.keys.as_ref().map_or(0, |k| k.queue.len()) as f64),
                ];
                run.sink.write("train", step, &values)?;
            }
            let every = config.eval.every_steps;
            if every > 0 && step.is_multiple_of(every) && !last {
                progress.aside(|| ());
                give_up = run.evaluate_and_keep_best()?;
            }
            let asked = interrupt::asked() || step >= stop_at;
            let due = config.save.every_steps > 0 && step.is_multiple_of(config.save.every_steps);
            if due || asked || give_up || last {
                checkpoints.save(step, |d| run.save(d))?;
            }
            interrupted = asked && !last;
            if interrupted || give_up {
                break;
            }
        }
        Ok(())
    })?;
    progress.finish();
    let speed = pairs as f64 / busy.max(1e-9);
    if interrupted {
        tracing::info!("stopped at step {}; go on with --resume", run.at.step);
        return Ok(run.selection.outcome(run.at.step, false, speed));
    }

    // The last evaluation, and the model where no dev set chose one.
    if run.selection.dev.is_none() {
        run.selection.save(&run.model, run.at.step, None)?;
    } else if !give_up {
        run.evaluate_and_keep_best()?;
    }
    Ok(run.selection.outcome(run.at.step, true, speed))
}

impl Keys {
    fn new(m: &MocoConfig, config: &ContrieverConfig, model: &BiEncoder) -> Result<Self> {
        let dropout = (config.model.dropout, config.model.attention_dropout);
        let encoder = KeyEncoder::of(model, m.momentum, dropout)?;
        let queue = KeyQueue::new(m.queue_size, model.dim(), model.device);
        let mode = if m.key_dropout { Mode::train(model.compute) } else { Mode::eval(model.compute) };
        Ok(Self { encoder, queue, mode })
    }
}

impl Run<'_> {
    /// One optimiser step, with the gradients' norm before clipping.
    fn step(&mut self, batch: &Batch, lr: f64) -> Result<(BatchStats, f64)> {
        self.optimizer.clear_grads()?;
        let remedy = "lower batch.chunks, or set batch.part_tokens";
        let own = Tensor::from_slice(&batch.owners).to_device(self.model.device);
        let stats = catch("a training step", remedy, || match &mut self.keys {
            Some(keys) => against_queue(self.config, &self.model, keys, batch, &own),
            None => against_batch(self.config, &self.model, batch, &own),
        })?;
        let norm = update(&self.config.optim, &mut self.optimizer, stats.loss, lr, self.at.step + 1)?;
        Ok((stats, norm))
    }

    fn evaluate_and_keep_best(&mut self) -> Result<bool> {
        let step = self.at.step;
        self.selection.evaluate_and_keep_best(&self.model, &mut self.sink, &mut self.at.best, step)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let keys = self.keys.iter().flat_map(|k| k.encoder.parameters());
        self.model.parameters().into_iter().chain(keys).collect()
    }

    fn save(&self, dir: &Path) -> Result<()> {
        state::save(dir, &self.parameters(), &self.optimizer, self.model.device, &self.at)?;
        self.keys.as_ref().map_or(Ok(()), |k| k.queue.save(&dir.join(QUEUE)))
    }

    fn restore(&mut self, dir: &Path) -> Result<()> {
        if let Some(keys) = &mut self.keys {
            keys.queue.restore(&dir.join(QUEUE))?;
        }
        let parameters = self.parameters();
        self.at = state::restore(dir, &parameters, &mut self.optimizer, self.model.device)?;
        Ok(())
    }
}

/// Gradients of the loss against the queue, part by part: parts do not see one another. The batch's keys are in the
/// queue afterwards.
fn against_queue(
    config: &ContrieverConfig,
    model: &BiEncoder,
    keys: &mut Keys,
    batch: &Batch,
    own: &Tensor,
) -> Result<BatchStats> {
    let c = config.loss;
    keys.encoder.follow();
    let (queue, owners) = (keys.queue.keys(), keys.queue.owners());
    let n = batch.queries.len();
    let (mut loss, mut hits) = (0.0, 0.0);
    let mut embedded = [Vec::new(), Vec::new()];
    for rows in grad_cache::split(&batch.queries, config.batch.part_tokens.unwrap_or(usize::MAX)) {
        let k = {
            let _guard = no_grad();
            embed(keys.encoder.model(), Side::Passage, &batch.keys[rows.clone()], keys.mode)?
        };
        let q = embed(model, Side::Query, &batch.queries[rows.clone()], Mode::train(model.compute))?;
        let part = own.narrow(0, rows.start as i64, rows.len() as i64);
        let contrast = Contrast::moco(&q, &k, &queue, (&part, &owners), c.temperature);
        let value = contrast.loss(c.label_smoothing) * (rows.len() as f64 / n as f64);
        grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
        loss += number(&value)?;
        hits += number(&contrast.hits())?;
        embedded[0].push(q.detach());
        embedded[1].push(k);
    }
    let embedded = embedded.map(|parts| Tensor::cat(&parts, 0));
    keys.queue.push(&embedded[1], own);
    Ok(BatchStats { loss, accuracy: hits / n as f64, spread: spread(&embedded)? })
}

/// Gradients of the loss against the other keys of the batch, for both crops.
fn against_batch(
    config: &ContrieverConfig,
    model: &BiEncoder,
    batch: &Batch,
    own: &Tensor,
) -> Result<BatchStats> {
    let c = config.loss;
    let mode = Mode::train(model.compute);
    let mut stats = None;
    let mut loss = |q: &Tensor, k: &Tensor| {
        let (q, k) = (model.comparable(q), model.comparable(k));
        let contrast = Contrast::in_batch(&q, &k, own, c.temperature);
        stats = Some((contrast.hits(), [q.detach(), k.detach()]));
        contrast.loss(c.label_smoothing)
    };
    let value = match config.batch.part_tokens {
        Some(part) => grad_cache::backward(model, &batch.queries, &batch.keys, part, mode, 1.0, loss)?,
        None => {
            let q = embed(model, Side::Query, &batch.queries, mode)?;
            let k = embed(model, Side::Passage, &batch.keys, mode)?;
            let value = loss(&q, &k);
            grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
            value
        }
    };
    let n = batch.queries.len() as f64;
    let (hits, embedded) = stats.ok_or_else(|| Error::Unusable("an empty batch".into()))?;
    Ok(BatchStats { loss: number(&value)?, accuracy: number(&hits)? / n, spread: spread(&embedded)? })
}

/// What is compared by dot product: [texts, dim].
fn embed(model: &BiEncoder, side: Side, texts: &[Encoding], mode: Mode) -> Result<Tensor> {
    Ok(model.comparable(&model.embed(side, &texts.iter().collect::<Vec<_>>(), mode)?))
}

fn spread(embedded: &[Tensor; 2]) -> Result<[f64; 2]> {
    let of = |x: &Tensor| number(&x.std_dim([0i64].as_slice(), false, false).mean(Kind::Double));
    Ok([of(&embedded[0])?, of(&embedded[1])?])
}

fn number(x: &Tensor) -> Result<f64> {
    Ok(f64::try_from(x.detach().to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?)
}

/// The model to start from, and the corpus in its tokens.
fn build(config: &ContrieverConfig, device: Device, bad: &BadRows) -> Result<(BiEncoder, Chunks)> {
    let compute = config.precision.resolve(device);
    let make = |texts: &[String]| model::build(&config.model, None, compute, device, || texts.to_vec());
    let (model, chunks) = if config.model.scratch.is_some() {
        // A new tokenizer learns from the texts before they can be cut.
        let texts: Vec<String> = texts(config, bad)?.collect::<Result<_>>()?;
        let model = make(&texts)?;
        let chunks = Chunks::read(texts.into_iter().map(Ok), &model.tokenizer, &config.chunks)?;
        (model, chunks)
    } else {
        let model = make(&[])?;
        let chunks = Chunks::read(texts(config, bad)?, &model.tokenizer, &config.chunks)?;
        (model, chunks)
    };
    momentum::check(&model)?;
    if chunks.len() < config.batch.chunks {
        return Err(Error::Unusable(format!(
            "{} texts give {} chunks ({} more are shorter than chunks.min_tokens), and a batch takes {} (batch.chunks)",
            chunks.texts,
            chunks.len(),
            chunks.too_short,
            config.batch.chunks
        )));
    }
    Ok((model, chunks))
}

/// The texts of the corpus, a title in front of its text.
fn texts(config: &ContrieverConfig, bad: &BadRows) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let options = ReadOptions { format: config.data.format, ..ReadOptions::default() };
    let corpora = config.data.train.iter().map(|path| Ok(read_corpus(path, &options, bad)?));
    let corpora: Vec<_> = corpora.collect::<Result<_>>()?;
    Ok(corpora.into_iter().flatten().map(|p| Ok(p?.full_text())))
}

fn describe(config: &ContrieverConfig, model: &BiEncoder, chunks: &Chunks) {
    tracing::info!(
        "{} texts, {} chunks of {} tokens on average ({} too short); {}, seed {}; {} steps, {:.1} epochs",
        chunks.texts,
        chunks.len(),
        chunks.tokens() / chunks.len().max(1),
        chunks.too_short,
        parameters_line(model),
        config.seed,
        config.train.steps,
        (config.train.steps * config.batch.chunks as u64) as f64 / chunks.len().max(1) as f64,
    );
    if let FormConfig::Moco(m) = &config.form
        && m.queue_size >= chunks.len()
    {
        tracing::warn!(
            "the queue (form.moco.queue_size = {}) holds every chunk, most more than once, as they were in past epochs",
            m.queue_size
        );
    }
}
