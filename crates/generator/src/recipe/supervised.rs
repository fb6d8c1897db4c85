//! Learning answers token by token from records: the recipe of supervised fine-tuning and of distillation.
//!
//! Examples of an epoch are made anew (other distractors, dropped golden passages), shuffled and laid one after another
//! into forward passes of `batch.tokens`. The loss of a step is the mean over the learned tokens of its whole window;
//! what a token costs is a [`TokenLoss`].

use super::card::card;
use super::config::SftConfig;
use super::parts::{described, learner, shuffled};
use crate::answers::{AnswerOptions, AnswerScores, answer_all};
use crate::contexts::ContextConfig;
use crate::error::{Error, Result, bad, catch};
use crate::excerpt::excerpt;
use crate::model::Generator;
use crate::packed::PackedExamples;
use crate::prepare::{PrepareReport, Preparer};
use crate::substitute::Substitutes;
use crate::trained_with::TrainedWith;
use ragduet_data::{BadRows, RagRecord, no_answers, rag_line, read_records};
use ragduet_text::TrainExample;
use ragduet_torch::Tensor;
use ragduet_train::{
    Card, Counts, Epoch, Evaluated, Facts, Fingerprint, Finished, Learner, Metrics, Recipe, RunContext,
    RunState,
};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps, model, scores on the dev set.
    pub run: ragduet_train::Outcome<AnswerScores>,
    /// What became of the training records in the last epoch made.
    pub prepared: PrepareReport,
    /// Learned tokens per second of training steps.
    pub targets_per_second: f64,
}

impl From<Finished<Supervised>> for Outcome {
    fn from(done: Finished<Supervised>) -> Self {
        let Finished { recipe, outcome } = done;
        let share = recipe.learned as f64 / recipe.read.max(1) as f64;
        Self { prepared: recipe.prepared, targets_per_second: share * outcome.units_per_second, run: outcome }
    }
}

/// What a token of an answer costs.
pub(super) trait TokenLoss {
    /// The share of a batch in the loss of a step that has so many learned tokens; its gradients are added to the
    /// student's.
    ///
    /// # Errors
    /// libtorch's, and those of reading what was kept of a teacher.
    fn learn(&self, student: &Generator, batch: &PackedExamples, step_tokens: u64) -> Result<Metrics>;
}

/// A generator that learns the answers of records.
pub(super) struct Supervised {
    config: SftConfig,
    generator: Generator,
    learner: Learner,
    loss: Box<dyn TokenLoss>,
    epochs: EpochBuilder,
    /// Batches of the first epoch, which is made before the run begins.
    per_epoch: usize,
    first: Option<Vec<PackedExamples>>,
    prepared: PrepareReport,
    /// Tokens of all steps, and those of them that were learned.
    read: u64,
    learned: u64,
}

impl Supervised {
    /// A student, what it learns from, and how.
    ///
    /// # Errors
    /// As [`learner`] and [`EpochBuilder::epoch`].
    pub fn new(
        config: SftConfig,
        generator: Generator,
        epochs: EpochBuilder,
        loss: Box<dyn TokenLoss>,
    ) -> Result<Self> {
        let learner = learner(&config.optim, &generator)?;
        let (first, prepared) = epochs.epoch(0)?;
        Ok(Self {
            config,
            generator,
            learner,
            loss,
            epochs,
            per_epoch: first.len(),
            first: Some(first),
            prepared,
            read: 0,
            learned: 0,
        })
    }
}

impl Recipe for Supervised {
    type Batch = PackedExamples;
    type Scores = AnswerScores;
    type Error = Error;

    const UNIT: &'static str = "tokens";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.generator.trained().named()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.per_epoch.div_ceil(self.config.batch.accumulate) as f64
    }

    fn fingerprint(&self) -> u64 {
        self.epochs.records.fingerprint
    }

    fn describe(&self) -> String {
        format!("{}; {}", self.prepared, described(&self.generator))
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<PackedExamples, Error>> {
        let made = match (epoch, self.first.take()) {
            (0, Some(first)) => first,
            _ => {
                let (made, prepared) = self.epochs.epoch(epoch)?;
                self.prepared = prepared;
                made
            }
        };
        Ok(Epoch::of_batches(made, self.config.batch.accumulate, from))
    }

    fn counts(&self, batch: &PackedExamples) -> Counts {
        Counts::one(batch.targets.len() as f64)
    }

    fn units(&self, batch: &PackedExamples) -> u64 {
        batch.tokens() as u64
    }

    fn ids(&self, batch: &PackedExamples) -> Vec<String> {
        batch.ids.clone()
    }

    fn backward(&mut self, batch: &PackedExamples, totals: &Counts, _: &mut RunState) -> Result<Metrics> {
        self.read += batch.tokens() as u64;
        self.learned += batch.targets.len() as u64;
        catch("a training step", "lower batch.tokens and raise batch.accumulate", || {
            self.loss.learn(&self.generator, batch, totals[0] as u64)
        })
    }

    fn log(&self, window: &[PackedExamples], values: &mut Vec<(&'static str, f64)>) {
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        let read: usize = window.iter().map(PackedExamples::tokens).sum();
        values.extend([("tokens", read as f64), ("targets", learned as f64)]);
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<AnswerScores>>> {
        let (config, dev) = (&self.config, &self.epochs.records.dev);
        if dev.is_empty() {
            return Ok(None);
        }
        let options = AnswerOptions {
            prompt: &config.prompt,
            contexts: ContextConfig::retrieved(config.eval.contexts.unwrap_or(config.contexts.count)),
            decode: &config.eval.decode,
            batch: config.eval.batch_size,
            seed: config.run.seed,
        };
        let scores = AnswerScores::of(&answer_all(&self.generator, dev, &options, &mut |_| ())?.0);
        let named = scores.named().map(|(name, value)| (name.to_string(), value)).to_vec();
        Ok(Some(Evaluated { scores, main: scores.f1, named }))
    }

    fn save_model(&self, dir: &Path, _: &Facts<'_, AnswerScores>) -> Result<()> {
        self.generator.save(dir)?;
        let c = &self.config;
        TrainedWith::of(&c.prompt, &c.contexts, &c.eval).save(dir)
    }

    fn card(&self) -> Option<Card> {
        let c = &self.config;
        let data = c.data.train.display().to_string();
        Some(card("generator", &self.generator, c.model.base.as_deref(), data))
    }

    fn best_facts(&self, dev: Option<&Evaluated<AnswerScores>>) -> Map<String, Value> {
        let dev = dev.map(|e| e.scores);
        Map::from_iter([("dev".into(), json!(dev)), ("prepared".into(), json!(self.prepared))])
    }
}

/// What a run reads.
pub(super) struct Records {
    /// What is learned.
    pub train: Vec<RagRecord>,
    /// What is answered during training, the first `eval.limit`.
    pub dev: Vec<RagRecord>,
    /// A hash of what is learned, as it was read.
    fingerprint: u64,
    /// Where rows go that the model's template refuses.
    bad: BadRows,
}

impl Records {
    pub fn read(config: &SftConfig, context: &RunContext) -> Result<Self> {
        let data = &config.data;
        let all = |path: &Path, most: usize| -> Result<Vec<RagRecord>> {
            let rows = read_records(path, data.format, &context.bad_rows)?;
            Ok(rows.take(most).collect::<std::result::Result<_, _>>()?)
        };
        let train = all(&data.train, usize::MAX)?;
        let most = if config.eval.limit == 0 { usize::MAX } else { config.eval.limit };
        let dev = data.dev.as_deref().map_or(Ok(Vec::new()), |path| all(path, most))?;
        if let Some(path) = &data.dev {
            if !dev.is_empty() && dev.iter().all(RagRecord::asks_nothing) {
                return Err(Error::Unusable(format!(
                    "{}: its texts ask nothing, so there is no answer to measure: leave data.dev out, or give a dev set \
                     of questions or prompts",
                    path.display()
                )));
            }
            let without = dev.iter().filter(|r| r.answers.is_empty()).count();
            if without == dev.len() && without > 0 {
                return Err(Error::Unusable(no_answers(path, without)));
            }
            if without > 0 {
                tracing::warn!(
                    "{}: {without} of {} records have no answer: exact match and F1 leave them out",
                    path.display(),
                    dev.len()
                );
            }
        }
        let lines = train.iter().map(rag_line).chain(config.prompt.examples_digest()?);
        let fingerprint = lines.fold(Fingerprint::default(), |all, line| all.text(&line)).digest();
        Ok(Self { train, dev, fingerprint, bad: context.bad_rows.clone() })
    }

    /// What a new tokenizer is trained on.
    pub fn texts(&self) -> Vec<&str> {
        let all = self.train.iter().flat_map(|r| {
            let passages = r.contexts.iter().map(|f| &f.passage).chain(&r.gold);
            let own = [r.question.as_str()].into_iter().chain(r.answers.iter().map(String::as_str));
            let said = r.history.iter().chain(&r.steps).map(ragduet_data::Message::content);
            passages.map(|p| p.text.as_str()).chain(said).chain(own)
        });
        all.collect()
    }
}

/// Records as the batches of epochs.
pub(super) struct EpochBuilder {
    preparer: Preparer<'static>,
    records: Records,
    substitutes: Substitutes,
    substitute_rate: f64,
    excerpt_epochs: u64,
    tokens: usize,
    seed: u64,
    same_examples: bool,
}

impl EpochBuilder {
    /// Of records for a generator. `same_examples`: all epochs show the examples of the first.
    ///
    /// # Errors
    /// Those of [`Preparer::new`].
    pub fn new(
        generator: &Generator,
        config: &SftConfig,
        mut records: Records,
        same_examples: bool,
    ) -> Result<Self> {
        let (contexts, tokens, seed) = (config.contexts.clone(), config.batch.tokens, config.run.seed);
        let preparer = Preparer::new(generator, &config.prompt, contexts, tokens, seed)?.into_owned();
        preparer.set_refused_aside(&mut records.train, &records.bad)?;
        preparer.set_refused_aside(&mut records.dev, &records.bad)?;
        preparer.log_first(&records.train)?;
        let substitutes = Substitutes::of(&records.train);
        let ContextConfig { substitute_rate, excerpt_epochs, .. } = config.contexts;
        if same_examples && excerpt_epochs > 0 {
            let why = "every epoch repeats the examples of the first: no passage would ever be whole; set 0";
            return Err(bad("contexts.excerpt_epochs", why));
        }
        Ok(Self {
            preparer,
            records,
            substitutes,
            substitute_rate,
            excerpt_epochs,
            tokens,
            seed,
            same_examples,
        })
    }

    /// The forward passes of an epoch, and what became of the records.
    ///
    /// # Errors
    /// Prompts that cannot be made; nothing to learn from.
    pub fn epoch(&self, epoch: u64) -> Result<(Vec<PackedExamples>, PrepareReport)> {
        let drawn = if self.same_examples { 0 } else { epoch };
        let made: Vec<(Option<(String, TrainExample)>, PrepareReport)> =
            shuffled(self.records.train.len(), self.seed, epoch)
                .par_iter()
                .map(|&i| {
                    let mut report = PrepareReport::default();
                    let (own, rate) = (&self.records.train[i], self.substitute_rate);
                    let record = self.substitutes.apply(own, rate, self.seed, drawn);
                    let cut = if drawn < self.excerpt_epochs {
                        excerpt(&record, drawn as usize, self.seed)
                    } else {
                        None
                    };
                    report.excerpts = usize::from(cut.is_some());
                    let record = cut.as_ref().unwrap_or(&record);
                    let built = self.preparer.example(record, drawn, &mut report)?;
                    Ok((built.ok().map(|example| (own.id.clone(), example)), report))
                })
                .collect::<Result<_>>()?;
        let mut report = PrepareReport::default();
        let mut examples = Vec::with_capacity(made.len());
        for (example, one) in made {
            report.add(&one);
            examples.extend(example);
        }
        if let Some(first) = self.records.train.first()
            && self.records.train.iter().all(|r| r.learned_answer().is_none())
        {
            let why = no_answers(&first.origin.path, self.records.train.len());
            return Err(Error::Unusable(format!("nothing to train on: {why}")));
        }
        if examples.is_empty() {
            return Err(Error::Unusable(format!("nothing to train on: {report}")));
        }
        Ok((PackedExamples::pack_named(examples, self.tokens), report))
    }
}
