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
    InBatchConfig, MocoConfig,
};
pub use contrast::Contrast;
pub use crop::Cropper;
pub use momentum::KeyEncoder;
pub use queue::KeyQueue;

use super::dev::{Dev, DevSet};
use super::model;
use super::save::{parameters_line, save};
use crate::biencoder::BiEncoder;
use crate::error::catch;
use crate::evaluate::EvalSet;
use crate::representation::Side;
use crate::{Error, Result, grad_cache};
use loader::{Batch, Source};
use ragduet_data::{BadRows, ReadOptions, read_corpus};
use ragduet_metrics::Evaluation;
use ragduet_nn::Mode;
use ragduet_text::Encoding;
use ragduet_torch::{Device, Kind, Tensor, grad, no_grad};
use ragduet_train::{
    At, Card, Counts, Epoch, Evaluated, Fingerprint, Learner, Metrics, Recipe, RunContext, RunOptions,
    RunState,
};
use std::path::Path;
use std::sync::Arc;

/// Where the queue is kept in a checkpoint.
const QUEUE: &str = "queue.safetensors";

/// The keys of the form `moco`.
struct Keys {
    encoder: KeyEncoder,
    queue: KeyQueue,
    mode: Mode,
}

/// An encoder that learns from a corpus.
struct Contriever<'a> {
    config: &'a ContrieverConfig,
    model: BiEncoder,
    chunks: Arc<Chunks>,
    keys: Option<Keys>,
    learner: Learner,
    dev: Dev<'a>,
}

/// What a batch came to, without a graph.
struct BatchStats {
    loss: Tensor,
    /// Share of the queries that are nearest to their key.
    accuracy: Tensor,
    /// Standard deviation of the embeddings' components over the batch; near 0 they have collapsed.
    spread: [Tensor; 2],
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or models that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &ContrieverConfig, options: &RunOptions) -> Result<super::contrastive::Outcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| Contriever::build(config, context))?;
    Ok(done.outcome)
}

impl<'a> Contriever<'a> {
    fn build(config: &'a ContrieverConfig, context: &RunContext) -> Result<Self> {
        let (model, chunks) = build(config, context.device, &context.bad_rows)?;
        let d = &config.data;
        let seed = config.run.seed;
        let options = ReadOptions { split: Some(d.dev_split.clone()), ..ReadOptions::default() };
        let most = config.eval.max_passages;
        let dev = d.dev.as_ref().map(|path| EvalSet::read(path, &options, most, seed, &context.bad_rows));
        let dev = dev.transpose()?.map(DevSet::Ranking);
        let chunks = Arc::new(chunks);
        // What is wrong with chunks and crops is said before anything else is made.
        Source::new(config, &model, chunks.clone())?;
        let keys = match &config.form {
            FormConfig::Moco(m) => Some(Keys::new(m, config, &model)?),
            FormConfig::InBatch(_) => None,
        };
        if let FormConfig::Moco(m) = &config.form
            && m.queue_size >= chunks.len()
        {
            tracing::warn!(
                "the queue (form.moco.queue_size = {}) holds every chunk, most more than once, as they were in past \
                 epochs",
                m.queue_size
            );
        }
        let learner = model::learner(&config.optim, &model, model.parameters())?;
        Ok(Self { config, model, chunks, keys, learner, dev: Dev { set: dev, eval: &config.eval } })
    }
}

impl Keys {
    fn new(m: &MocoConfig, config: &ContrieverConfig, model: &BiEncoder) -> Result<Self> {
        let dropout = (config.model.dropout, config.model.attention_dropout);
        let encoder = KeyEncoder::of(model, m.momentum, dropout)?;
        let queue = KeyQueue::new(m.queue_size, model.trained_dim(), model.device);
        let mode = if m.key_dropout { Mode::train(model.compute) } else { Mode::eval(model.compute) };
        Ok(Self { encoder, queue, mode })
    }
}

impl Recipe for Contriever<'_> {
    type Batch = Batch;
    type Scores = Evaluation;
    type Error = Error;
    const UNIT: &'static str = "pairs";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let keys = self.keys.iter().flat_map(|k| k.encoder.parameters());
        self.model.parameters().into_iter().chain(keys).collect()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.chunks.len() as f64 / self.config.batch.size as f64
    }

    fn fingerprint(&self) -> u64 {
        let numbers = |i: usize| self.chunks.get(i as u32).iter().map(|&id| u64::from(id)).chain([u64::MAX]);
        Fingerprint::default().numbers((0..self.chunks.len()).flat_map(numbers)).digest()
    }

    fn describe(&self) -> String {
        let c = &self.chunks;
        format!(
            "{} texts, {} chunks of {} tokens on average ({} too short); {}",
            c.texts,
            c.len(),
            c.tokens() / c.len().max(1),
            c.too_short,
            parameters_line(&self.model)
        )
    }

    /// A stream: the order of chunks and their crops are functions of the step.
    fn epoch(&mut self, _: u64, from: usize) -> Result<Epoch<Batch, Error>> {
        let source = Source::new(self.config, &self.model, self.chunks.clone())?;
        let made = source.start(from as u64).map(|batch| Ok(vec![batch]));
        Ok(Epoch { windows: None, rest: Box::new(made) })
    }

    fn epochs_done(&self, at: &At) -> f64 {
        at.step as f64 * self.config.batch.size as f64 / self.chunks.len() as f64
    }

    fn counts(&self, batch: &Batch) -> Counts {
        Counts::one(batch.queries.len() as f64)
    }

    fn units(&self, batch: &Batch) -> u64 {
        batch.queries.len() as u64
    }

    fn ids(&self, batch: &Batch) -> Vec<String> {
        batch.owners.iter().map(|o| format!("chunk {o}")).collect()
    }

    fn backward(&mut self, batch: &Batch, _: &Counts, _: &mut RunState) -> Result<Metrics> {
        let remedy = "lower batch.size, or set grad_cache.chunk_tokens";
        let own = Tensor::from_slice(&batch.owners).to_device(self.model.device);
        let stats = catch("a training step", remedy, || match &mut self.keys {
            Some(keys) => against_queue(self.config, &self.model, keys, batch, &own),
            None => against_batch(self.config, &self.model, batch, &own),
        })?;
        Ok(Metrics::of(&stats.loss)
            .with("accuracy", &stats.accuracy)
            .with("std_query", &stats.spread[0])
            .with("std_key", &stats.spread[1]))
    }

    fn log(&self, window: &[Batch], values: &mut Vec<(&'static str, f64)>) {
        values.push(("tokens", window.iter().map(Batch::tokens).sum::<usize>() as f64));
        values.push(("queue", self.keys.as_ref().map_or(0, |k| k.queue.len()) as f64));
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<Evaluation>>> {
        self.dev.evaluate(&self.model)
    }

    fn save_model(&self, dir: &Path, _: &ragduet_train::Facts<'_, Evaluation>) -> Result<()> {
        save(&self.model, dir)
    }

    fn card(&self) -> Option<Card> {
        let data: Vec<String> = self.config.data.train.iter().map(|p| p.display().to_string()).collect();
        Some(self.model.card(self.config.model.base.as_deref(), &data.join(", "), self.chunks.len()))
    }

    fn save_extra(&self, dir: &Path, _: &RunState) -> Result<()> {
        self.keys.as_ref().map_or(Ok(()), |k| k.queue.save(&dir.join(QUEUE)))
    }

    fn restore_extra(&mut self, dir: &Path, _: &mut RunState) -> Result<()> {
        self.keys.as_mut().map_or(Ok(()), |k| k.queue.restore(&dir.join(QUEUE)))
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
    let zero = || Tensor::zeros([], (Kind::Double, model.device));
    let (mut loss, mut hits) = (zero(), zero());
    let mut embedded = [Vec::new(), Vec::new()];
    for rows in grad_cache::split(&batch.queries, config.grad_cache.map_or(usize::MAX, |g| g.chunk_tokens)) {
        let k = {
            let _guard = no_grad();
            embed(keys.encoder.model(), Side::Passage, &batch.keys[rows.clone()], keys.mode)?
        };
        let q = embed(model, Side::Query, &batch.queries[rows.clone()], Mode::train(model.compute))?;
        let part = own.narrow(0, rows.start as i64, rows.len() as i64);
        let contrast = Contrast::moco(&q, &k, &queue, (&part, &owners), c.temperature);
        let value = contrast.loss(c.label_smoothing) * (rows.len() as f64 / n as f64);
        grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
        loss += value.detach().to_kind(Kind::Double);
        hits += contrast.hits().detach().to_kind(Kind::Double);
        embedded[0].push(q.detach());
        embedded[1].push(k);
    }
    let embedded = embedded.map(|parts| Tensor::cat(&parts, 0));
    keys.queue.push(&embedded[1], own);
    Ok(BatchStats { loss, accuracy: hits / n as f64, spread: spread(&embedded) })
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
    let value = match config.grad_cache.map(|g| g.chunk_tokens) {
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
    let (loss, hits) = (value.detach(), hits.to_kind(Kind::Double));
    Ok(BatchStats { loss, accuracy: hits / n, spread: spread(&embedded) })
}

/// What is compared by dot product: [texts, dim].
fn embed(model: &BiEncoder, side: Side, texts: &[Encoding], mode: Mode) -> Result<Tensor> {
    Ok(model.comparable(&model.embed(side, &texts.iter().collect::<Vec<_>>(), mode)?))
}

fn spread(embedded: &[Tensor; 2]) -> [Tensor; 2] {
    let of = |x: &Tensor| x.std_dim([0i64].as_slice(), false, false).mean(Kind::Double);
    [of(&embedded[0]), of(&embedded[1])]
}

/// The model to start from, and the corpus in its tokens.
fn build(config: &ContrieverConfig, device: Device, bad: &BadRows) -> Result<(BiEncoder, Chunks)> {
    let compute = config.run.precision.resolve(device);
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
    if chunks.len() < config.batch.size {
        return Err(Error::Unusable(format!(
            "{} texts give {} chunks ({} more are shorter than chunks.min_tokens), and a batch takes {} (batch.size)",
            chunks.texts,
            chunks.len(),
            chunks.too_short,
            config.batch.size
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
