//! Trains a retriever of any kind (dense, late interaction, sparse): contrastive or distillation loss over in-batch and
//! hard negatives, mined again while training where asked.
//!
//! Supports: shared and separate towers, projections, learnable temperature, gradient caching, accumulation,
//! layer-wise learning rates, freezing, evaluation by ranking a dev set.
//! Assumes: the training set's texts fit in memory.

use super::config::{Positives, RetrieverConfig};
use super::dev::{Dev, DevSet};
use super::distillation::Distillation;
use super::loader::{self, Batch, Lengths};
use super::model::{self, Scale};
use super::save::{parameters_line, save};
use crate::biencoder::BiEncoder;
use crate::error::catch;
use crate::loss::{Compared, LossBatch, LossConfig, RetrievalLoss};
use crate::mining::{MiningReport, mine};
use crate::representation::{Representation, Side};
use crate::teacher::Teacher;
use crate::{Error, Result, grad_cache};
use ragduet_data::{BadRows, EpochPlan, PassagePool, TrainingSet};
use ragduet_metrics::Evaluation;
use ragduet_nn::Mode;
use ragduet_text::Encoding;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Device, Kind, Tensor, device, grad, rng};
pub use ragduet_train::RunOptions;
use ragduet_train::{
    Card, Counts, Epoch, Evaluated, Fingerprint, Flow, Learner, Metrics, Recipe, RunContext, RunState,
    windows_of,
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// What a run came to.
pub type Outcome = ragduet_train::Outcome<Evaluation>;

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or models that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &RetrieverConfig, options: &RunOptions) -> Result<Outcome> {
    train_with(config, options, None)
}

/// [`train`] with a teacher that this crate does not know how to load: a cross-encoder.
///
/// # Errors
/// As [`train`].
pub fn train_with(
    config: &RetrieverConfig,
    options: &RunOptions,
    teacher: Option<Box<dyn Teacher>>,
) -> Result<Outcome> {
    config.validate()?;
    start(config, options, teacher, config.loss.build()?)
}

/// [`train_with`] with a loss that is not among those of [`LossConfig`], instead of `[loss]`. The run folder does not hold
/// its settings: a resume is right only with the same loss.
///
/// # Errors
/// As [`train`]; a config that chooses a loss as well.
pub fn train_with_loss(
    config: &RetrieverConfig,
    options: &RunOptions,
    teacher: Option<Box<dyn Teacher>>,
    loss: Box<dyn RetrievalLoss>,
) -> Result<Outcome> {
    if config.loss != LossConfig::default() {
        let why = "training is with a loss of the caller's: leave [loss] out".to_string();
        return Err(Error::Config { key: "loss".into(), why });
    }
    config.validate_for(&*loss)?;
    tracing::info!("training with the caller's loss: {loss:?}");
    start(config, options, teacher, loss)
}

fn start(
    config: &RetrieverConfig,
    options: &RunOptions,
    teacher: Option<Box<dyn Teacher>>,
    loss: Box<dyn RetrievalLoss>,
) -> Result<Outcome> {
    let done =
        ragduet_train::run(config, options, |context| Contrastive::build(config, context, teacher, loss))?;
    Ok(done.outcome)
}

/// A retriever that learns.
struct Contrastive<'a> {
    config: &'a RetrieverConfig,
    /// Changed by mining, read by the thread that prepares batches.
    set: Arc<RwLock<TrainingSet>>,
    lengths: Lengths,
    model: BiEncoder,
    scale: Scale,
    loss: Box<dyn RetrievalLoss>,
    learner: Learner,
    dev: Dev<'a>,
    distillation: Option<Distillation>,
    mined: Mined,
    steps_per_epoch: f64,
    fingerprint: u64,
}

/// Mining so far; a file of a checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mined {
    /// Rounds done.
    rounds: u64,
    /// The step before which the last of them was.
    at: Option<u64>,
    /// The current negatives, where mining replaced those of the data.
    negatives: Option<Vec<Vec<u32>>>,
}

const MINED: &str = "mined.json";

impl<'a> Contrastive<'a> {
    fn build(
        config: &'a RetrieverConfig,
        context: &RunContext,
        teacher: Option<Box<dyn Teacher>>,
        loss: Box<dyn RetrievalLoss>,
    ) -> Result<Self> {
        context.bad_rows.set_missing(config.data.missing);
        let (set, dev) = read_data(config, &*loss, &context.bad_rows)?;
        let model = build(config, &set, context.device)?;
        config.loss.check_dim(model.trained_dim())?;
        let scale = Scale::new(config.temperature, context.device);
        check_data(&set, &*loss, config)?;
        check_loss(&model, &*loss, &config.loss)?;
        let fingerprint = Fingerprint::default()
            .texts(set.queries().iter().map(|q| q.text.as_str()))
            .texts(set.passages().iter().map(|p| p.text.as_str()))
            .numbers(set.items().iter().flat_map(|i| i.positives.iter().map(|&p| u64::from(p))))
            .digest();
        let distillation = Distillation::new(config, teacher, &set, &model, context, fingerprint, &*loss)?;
        let parameters = model.parameters().into_iter().chain(scale.parameter()).collect();
        let learner = model::learner(&config.optim, &model, parameters)?;
        let lengths = Lengths::of(&model, &set)?;
        let plan = loader::plan(config, &set, &lengths, 0)?;
        let batches = plan.batches.len();
        if config.mining.is_none() && config.loss.has_in_batch_negatives() {
            describe_plan(&plan, &set);
        }
        if batches == 0 {
            return Err(Error::Unusable(
                "no full batch in an epoch; lower batch.size or set batch.drop_last = false".into(),
            ));
        }
        Ok(Self {
            config,
            set: Arc::new(RwLock::new(set)),
            lengths,
            model,
            scale,
            loss,
            learner,
            dev: Dev { set: dev, eval: &config.eval },
            distillation,
            mined: Mined::default(),
            steps_per_epoch: batches.div_ceil(config.batch.accumulate) as f64,
            fingerprint,
        })
    }

    /// Queries and passages; with a shared tower in one pass, unless the sides differ in more than their texts.
    fn embed_batch(&self, batch: &Batch, mode: Mode) -> Result<(Tensor, Tensor)> {
        let m = &self.model;
        if m.encodes_sides_alike()? {
            let all: Vec<&Encoding> = batch.queries.iter().chain(&batch.passages).collect();
            let out = m.embed(Side::Passage, &all, mode)?;
            let n = batch.queries.len() as i64;
            return Ok((out.narrow(0, 0, n), out.narrow(0, n, batch.passages.len() as i64)));
        }
        let q = m.rows(Side::Query, &batch.queries.iter().collect::<Vec<_>>(), mode)?;
        let p = m.rows(Side::Passage, &batch.passages.iter().collect::<Vec<_>>(), mode)?;
        Ok((q, p))
    }

    fn use_negatives(&mut self, negatives: Vec<Vec<u32>>) -> Result<()> {
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        set.set_negatives(negatives.clone())?;
        drop(set);
        self.mined.negatives = Some(negatives);
        self.score_with_teacher()
    }

    /// Has the teacher score what each query is compared with.
    fn score_with_teacher(&mut self) -> Result<()> {
        let Some(Distillation::Scores(teacher, cache)) = &mut self.distillation else { return Ok(()) };
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        cache.score_set(&**teacher, &mut set)
    }
}

impl Recipe for Contrastive<'_> {
    type Batch = Batch;
    type Scores = Evaluation;
    type Error = Error;
    const UNIT: &'static str = "pairs";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.parameters().into_iter().chain(self.scale.parameter()).collect()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.steps_per_epoch
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn describe(&self) -> String {
        let set = loader::read(&self.set);
        format!(
            "{} examples, {} queries, {} passages; {}",
            set.items().len(),
            set.queries().len(),
            set.passages().len(),
            parameters_line(&self.model)
        )
    }

    fn ready(&mut self, _resumed: bool, _: &mut RunState) -> Result<()> {
        if self.mined.negatives.is_none() { self.score_with_teacher() } else { Ok(()) }
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Batch, Error>> {
        let accumulate = self.config.batch.accumulate;
        let batches = loader::plan(self.config, &loader::read(&self.set), &self.lengths, epoch)?.batches;
        let windows = Some(batches.len().div_ceil(accumulate));
        let rest = batches.into_iter().skip(from * accumulate).collect();
        let tokenize = [Side::Query, Side::Passage].map(|s| self.model.owned_tokenize_fn(s));
        let made = loader::start(self.config, &self.set, tokenize, rest, epoch);
        Ok(Epoch { windows, rest: windows_of(made, accumulate) })
    }

    fn before_step(&mut self, run: &mut RunState) -> Result<Flow> {
        let Some(mining) = &self.config.mining else { return Ok(Flow::Continue) };
        // After a resume at the very step of a round, its negatives are in the checkpoint already.
        let step = run.at.step;
        if !mining.when.is_due(step) || self.mined.at == Some(step) {
            return Ok(Flow::Continue);
        }
        let set = loader::read(&self.set);
        let encode = self.dev.encode();
        let (chosen, report) = mine(&self.model, &set, mining, self.mined.rounds, &encode, &mut |_, _| ())?;
        let negatives: Vec<Vec<u32>> = set
            .items()
            .iter()
            .map(|item| {
                let new = chosen[item.query as usize].iter().map(|m| m.passage);
                let kept = item.negatives.iter().copied().filter(|_| mining.keep_given);
                kept.chain(new).collect()
            })
            .collect();
        drop(set);
        run.log.say(|| tracing::info!("mining at step {step}: {report}"));
        run.log.write("mining", step, &figures(&report))?;
        (self.mined.rounds, self.mined.at) = (self.mined.rounds + 1, Some(step));
        self.use_negatives(negatives)?;
        Ok(Flow::Replan)
    }

    fn counts(&self, batch: &Batch) -> Counts {
        Counts::one(batch.queries.len() as f64)
    }

    fn units(&self, batch: &Batch) -> u64 {
        batch.queries.len() as u64
    }

    fn ids(&self, batch: &Batch) -> Vec<String> {
        batch.ids.clone()
    }

    fn backward(&mut self, batch: &Batch, totals: &Counts, run: &mut RunState) -> Result<Metrics> {
        // Each query counts alike, also where the batches of a window differ in size.
        let weight = batch.queries.len() as f64 / totals[0];
        let mode = Mode::train(self.model.compute);
        let scale = self.scale.value();
        let relations = &batch.relations;
        let progress = run.at.step as f64 / run.at.total.max(1) as f64;
        let loss = |q: &Tensor, p: &Tensor| {
            let vectors = match &self.distillation {
                Some(Distillation::Vectors(v)) => Some(v.rows(&batch.numbers.0, &batch.numbers.1)),
                _ => None,
            };
            let teacher = vectors.as_ref().map(|(q, p)| (q, p));
            let on = |compared| {
                self.loss.loss(&LossBatch { compared, teacher, relations, scale: &scale, progress })
            };
            let m = &self.model;
            match m.representation() {
                Representation::Dense(_) | Representation::Sparse(_) => {
                    let (queries, passages) = (m.comparable(q), m.comparable(p));
                    on(Compared::Vectors { queries: &queries, passages: &passages })
                }
                Representation::LateInteraction(_) => {
                    let segments =
                        |side, texts: &[Encoding]| m.row_segments(side, &texts.iter().collect::<Vec<_>>());
                    let (of_q, of_p) =
                        (segments(Side::Query, &batch.queries), segments(Side::Passage, &batch.passages));
                    let wanted = self.loss.wanted(relations, batch.passages.len());
                    on(Compared::Similarities(&m.similarities((q, &of_q), (p, &of_p), wanted.as_deref())))
                }
            }
        };
        catch("a training step", "lower batch.size, or set grad_cache.chunk_tokens", || {
            let value = match self.config.grad_cache {
                Some(g) => {
                    let (q, p) = (&batch.queries, &batch.passages);
                    grad_cache::backward(&self.model, q, p, g.chunk_tokens, mode, weight, loss)?
                }
                None => {
                    let (q, p) = self.embed_batch(batch, mode)?;
                    let value = loss(&q, &p);
                    grad::backward(&[&value * weight], &[Tensor::ones_like(&value)])?;
                    value.detach()
                }
            };
            Ok(Metrics::of(&(value.to_kind(Kind::Double) * weight)))
        })
    }

    fn log(&self, window: &[Batch], values: &mut Vec<(&'static str, f64)>) {
        values.push(("tokens", window.iter().map(Batch::tokens).sum::<usize>() as f64));
        let scale = f64::try_from(self.scale.value().detach()).unwrap_or(f64::NAN);
        values.push(("temperature", 1.0 / scale));
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<Evaluation>>> {
        self.dev.evaluate(&self.model)
    }

    fn save_model(&self, dir: &Path, _: &ragduet_train::Facts<'_, Evaluation>) -> Result<()> {
        save(&self.model, dir)
    }

    fn card(&self) -> Option<Card> {
        let data = self.config.data.train.display().to_string();
        let examples = loader::read(&self.set).items().len();
        Some(self.model.card(self.config.model.base.as_deref(), &data, examples))
    }

    fn save_extra(&self, dir: &Path, _: &RunState) -> Result<()> {
        let path = dir.join(MINED);
        let text =
            serde_json::to_vec(&self.mined).map_err(|source| Error::Json { path: path.clone(), source })?;
        Ok(write_atomic(&path, &text)?)
    }

    fn restore_extra(&mut self, dir: &Path, _: &mut RunState) -> Result<()> {
        let path = dir.join(MINED);
        self.mined =
            serde_json::from_slice(&fs_err::read(&path)?).map_err(|source| Error::Json { path, source })?;
        match self.mined.negatives.take() {
            Some(negatives) => self.use_negatives(negatives),
            None => Ok(()),
        }
    }
}

fn figures(r: &MiningReport) -> Vec<(&'static str, f64)> {
    let mut values = vec![
        ("chosen", r.chosen as f64),
        ("queries_without", r.without as f64),
        ("mean_positive", r.mean_positive),
        ("mean_negative", r.mean_negative),
        ("seconds", r.encode_seconds + r.search_seconds),
    ];
    values.extend(r.recall.as_ref().map(|recall| ("index_recall", recall.recall)));
    values
}

/// Says which of the first epoch's batches cannot teach, and how many examples share a batch with their like.
fn describe_plan(plan: &EpochPlan, set: &TrainingSet) {
    let empty = |batch: &&Vec<u32>| {
        let items = || batch.iter().map(|&i| &set.items()[i as usize]);
        let mut passages = items().flat_map(|i| i.positives.iter().chain(&i.negatives));
        let first = passages.next();
        passages.all(|p| Some(p) == first)
    };
    let (empty, batches) = (plan.batches.iter().filter(empty).count(), plan.batches.len());
    if empty > 0 {
        tracing::warn!(
            "{empty} of {batches} batches of an epoch have no negative for any query and teach nothing: they hold one \
             query, or queries with one answer. Add negatives (`ragduet mine`, [mining]) or queries with other answers"
        );
    }
    if plan.sharing > 0 {
        tracing::info!(
            "{} of {} examples stand in a batch with another of the same query or answer, since full batches leave no other \
             place; they are no negatives of one another",
            plan.sharing,
            plan.examples()
        );
    }
}

/// The model that [`train`] would start from.
///
/// # Errors
/// As [`train`].
pub fn initial_model(config: &RetrieverConfig) -> Result<BiEncoder> {
    config.validate()?;
    rng::seed(config.run.seed);
    let (set, _) = read_data(config, &*config.loss.build()?, &BadRows::default())?;
    build(config, &set, device::parse(&config.run.device)?)
}

fn build(config: &RetrieverConfig, set: &TrainingSet, device: Device) -> Result<BiEncoder> {
    model::build(&config.model, config.peft.as_ref(), config.run.precision.resolve(device), device, || {
        let passages = set.passages().iter().map(|p| p.full_text());
        passages.chain(set.queries().iter().map(|q| q.text.clone())).collect()
    })
}

fn read_data(
    config: &RetrieverConfig,
    loss: &dyn RetrievalLoss,
    bad: &BadRows,
) -> Result<(TrainingSet, Option<DevSet>)> {
    let d = &config.data;
    let scores = loss.takes_scored_pairs();
    // Mining needs what nobody judged; a tokenizer learns from all of the corpus.
    let pool = match config.mining.is_some() || config.model.scratch.is_some() {
        true => PassagePool::WholeCorpus,
        false => PassagePool::Judged,
    };
    let set = TrainingSet::read(&d.train, &d.options(scores)?, pool, bad)?;
    let dev = DevSet::read(d, scores, &config.eval, config.run.seed, bad)?;
    Ok((set, dev))
}

fn check_data(set: &TrainingSet, loss: &dyn RetrievalLoss, config: &RetrieverConfig) -> Result<()> {
    if set.items().is_empty() {
        return Err(Error::Unusable(format!("{}: no training examples", config.data.train.display())));
    }
    if let Some(said) = set.left_out() {
        tracing::info!("{said}");
    }
    let several = set.queries_with_several_positives();
    if several > 0 && config.batch.positives == Positives::First {
        tracing::warn!(
            "{several} of {} queries have several positives, of which the first alone is learned from (batch.positives = \
             \"first\"; \"sample\" draws one each epoch)",
            set.queries().len()
        );
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
            "{unscored} of {} examples have no scores, which this loss learns from: give a [teacher], or pairs and lists \
             with a score (docs/data.md)",
            set.items().len()
        )));
    }
    let scores = set.items().iter().flat_map(|item| item.scores.iter().flatten());
    let highest = scores.fold(0.0f32, |most, score| most.max(score.abs()));
    if let Some(most) = loss.max_score().filter(|most| f64::from(highest) > *most) {
        return Err(Error::Unusable(format!(
            "{}: a pair has the score {highest}, and a cosine ends at 1; set loss.cosine_similarity.max_score to the \
             highest score of the scale (it is {most}), or take loss.cosent, for which only the order counts",
            config.data.train.display()
        )));
    }
    Ok(())
}

/// Whether the loss can be computed from what the model makes of texts.
fn check_loss(model: &BiEncoder, loss: &dyn RetrievalLoss, config: &LossConfig) -> Result<()> {
    let (similarities_alone, sparse) = match model.representation() {
        Representation::Dense(_) => (false, false),
        Representation::LateInteraction(_) => (true, false),
        Representation::Sparse(_) => (false, true),
    };
    if similarities_alone && !loss.takes_similarities() {
        let why = format!(
            "this loss needs one vector a text; with late interaction take {} or a sum of them",
            LossConfig::names(|l| l.takes_similarities())
        );
        return Err(Error::Config { key: "loss".into(), why });
    }
    match (sparse, config.is_sparsifying()) {
        (false, true) => {
            let why = "it keeps weights of words sparse: set [model.sparse]".to_string();
            return Err(Error::Config { key: "loss.flops".into(), why });
        }
        (true, false) => {
            tracing::warn!(
                "nothing in [loss] keeps the weights of words sparse: add a term {{ flops = {{}} }} to loss.sum"
            );
        }
        (true, true) | (false, false) => {}
    }
    Ok(())
}
