//! Trains a cross-encoder on queries with what a first stage finds for them.
//!
//! The order of an epoch and the negatives of a query in it are pure functions of (data, config, seed, epoch). What the
//! first stage found is kept in the run folder.

use super::config::CrossEncoderConfig;
use super::first_stage::{Dev, FirstStageRun};
use super::lists::{List, list, order};
use crate::error::catch;
use crate::loss::{Candidates, RankingLoss};
use crate::model::CrossEncoder;
use crate::{Error, Result};
use ragduet_classifier::{LabelSet, Task, Text};
use ragduet_data::{PassagePool, TrainingSet};
use ragduet_metrics::{Evaluation, evaluate};
use ragduet_retriever::evaluate::EvalSet;
use ragduet_text::Encoding;
use ragduet_torch::{Tensor, grad};
use ragduet_train::{
    Card, Counts, Epoch, Evaluated, Facts, Fingerprint, Learner, Metrics, Recipe, RunContext, RunOptions,
    RunState,
};
use std::path::Path;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps, folders, scores, speed.
    pub run: ragduet_train::Outcome<Evaluation>,
    /// Dev as the first stage ranks it.
    pub first_stage: Option<Evaluation>,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or models that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &CrossEncoderConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| Fit::build(config, context))?;
    Ok(Outcome { run: done.outcome, first_stage: done.recipe.first })
}

/// A cross-encoder that learns.
struct Fit<'a> {
    config: &'a CrossEncoderConfig,
    set: TrainingSet,
    model: CrossEncoder,
    learner: Learner,
    loss: Box<dyn RankingLoss>,
    /// Negatives by query.
    mined: Option<Vec<Vec<u32>>>,
    dev: Option<Dev>,
    /// Dev as the first stage ranks it.
    first: Option<Evaluation>,
    fingerprint: u64,
}

impl<'a> Fit<'a> {
    fn build(config: &'a CrossEncoderConfig, context: &RunContext) -> Result<Self> {
        let (set, dev) = read(config, context)?;
        // The name that transformers gives the only label, so that a cross-encoder's head goes on.
        let labels = LabelSet::given(Task::Regression, vec!["LABEL_0".into()])?;
        let classifier = config.model.build(labels, config.peft.as_ref(), context)?;
        let model = CrossEncoder::over(classifier, config.loss.activation())?;
        let fingerprint = Fingerprint::default()
            .texts(set.queries().iter().map(|q| q.text.as_str()))
            .texts(set.passages().iter().map(|p| p.text.as_str()))
            .digest();
        let learner = model.classifier.learner(&config.optim)?;
        let loss = config.loss.build()?;
        let found = FirstStageRun::of(config, &set, dev, context, fingerprint)?;
        let first = found.dev.as_ref().map(|d| evaluate(&d.set.qrels, &d.ranking, &config.eval.measures));
        Ok(Self {
            config,
            set,
            model,
            learner,
            loss,
            mined: found.negatives,
            dev: found.dev,
            first,
            fingerprint,
        })
    }
}

impl Recipe for Fit<'_> {
    /// The lists of a step, which are split into forward passes once they are tokenised.
    type Batch = Vec<List>;
    type Scores = Evaluation;
    type Error = Error;
    const UNIT: &'static str = "pairs";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.classifier.trained()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.set.items().len().div_ceil(self.config.batch.size) as f64
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn describe(&self) -> String {
        let (items, passages) = (self.set.items().len(), self.set.passages().len());
        format!("{items} examples over {passages} passages; {}", self.model.classifier.parameters_line())
    }

    fn ready(&mut self, resumed: bool, run: &mut RunState) -> Result<()> {
        let (Some(first), false) = (&self.first, resumed) else { return Ok(()) };
        let named = named(first);
        let said: Vec<String> = named.iter().map(|(m, v)| format!("{m} {v:.4}")).collect();
        tracing::info!("dev as the first stage ranks it: {}", said.join("  "));
        let values: Vec<(&str, f64)> = named.iter().map(|(m, v)| (m.as_str(), *v)).collect();
        Ok(run.log.write("first_stage", 0, &values)?)
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Vec<List>, Error>> {
        let order = order(self.config, self.set.items().len(), epoch);
        let teacher = self.loss.needs_teacher();
        let lists = order
            .iter()
            .skip(from * self.config.batch.size)
            .map(|&i| list(self.config, &self.set, self.mined.as_deref(), i, epoch, teacher))
            .collect::<Result<Vec<List>>>()?;
        let steps: Vec<Vec<List>> = lists.chunks(self.config.batch.size).map(<[List]>::to_vec).collect();
        let windows = Some(order.len().div_ceil(self.config.batch.size));
        Ok(Epoch { windows, rest: Box::new(steps.into_iter().map(|lists| Ok(vec![lists]))) })
    }

    fn counts(&self, batch: &Vec<List>) -> Counts {
        Counts::one(batch.len() as f64)
    }

    fn units(&self, batch: &Vec<List>) -> u64 {
        batch.iter().map(|l| l.passages.len() as u64).sum()
    }

    fn ids(&self, batch: &Vec<List>) -> Vec<String> {
        batch.iter().map(|l| self.set.queries()[l.query as usize].id.clone()).collect()
    }

    fn backward(&mut self, lists: &Vec<List>, totals: &Counts, _: &mut RunState) -> Result<Metrics> {
        let (set, model) = (&self.set, &self.model.classifier);
        let query = |l: &List| set.queries()[l.query as usize].text.clone();
        let passages =
            |l: &List| l.passages.iter().map(|&p| set.passages()[p as usize].full_text()).collect();
        let texts: Vec<(String, Vec<String>)> = lists.iter().map(|l| (query(l), passages(l))).collect();
        let pairs: Vec<Text<'_>> =
            texts.iter().flat_map(|(q, ps)| ps.iter().map(move |p| (q.as_str(), Some(p.as_str())))).collect();
        let (encodings, _) = model.encode(&pairs)?;
        let mut rest = encodings.as_slice();
        let mut sum = Metrics::default();
        for now in passes(lists, &encodings, self.config.batch.tokens) {
            let count = lists[now.clone()].iter().map(|l| l.passages.len()).sum();
            let (texts, later) = rest.split_at(count);
            let share = now.len() as f64 / totals[0];
            sum.add(catch("a training step", "lower batch.tokens", || {
                let texts: Vec<&Encoding> = texts.iter().collect();
                let logits = model.logits(&texts, model.mode(true)).view(-1);
                let value = of_lists(&*self.loss, &logits, &lists[now]) * share;
                grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
                Ok(Metrics::of(&value))
            })?);
            rest = later;
        }
        Ok(sum)
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<Evaluation>>> {
        let Some(dev) = &self.dev else { return Ok(None) };
        let e = &self.config.eval;
        let run = self.model.rerank_set(&dev.set, &dev.ranking, e.depth, e.batch_tokens, &mut |_| ())?;
        let scores = evaluate(&dev.set.qrels, &run, &e.measures);
        let main = e.measures.first().and_then(|&m| scores.mean(m)).unwrap_or(f64::NAN);
        let named = named(&scores);
        Ok(Some(Evaluated { scores, main, named }))
    }

    fn save_model(&self, dir: &Path, _: &Facts<'_, Evaluation>) -> Result<()> {
        self.model.save(dir)
    }

    fn card(&self) -> Option<Card> {
        let c = self.config;
        let card = self.model.classifier.card("cross-encoder (re-ranker)", &c.model.base, &c.data.train);
        let code = "from sentence_transformers import CrossEncoder\n\n\
                    model = CrossEncoder(\"path/to/this/folder\")\n\
                    print(model.predict([(\"query\", \"title passage\")]))";
        if self.model.classifier.adapter.is_some() {
            return Some(Card { task: "text-ranking", tags: vec!["cross-encoder"], ..card });
        }
        let library = "sentence-transformers";
        let tags = vec!["sentence-transformers", "cross-encoder", "reranker"];
        Some(Card { library, task: "text-ranking", tags, code: code.into(), ..card })
    }
}

fn named(e: &Evaluation) -> Vec<(String, f64)> {
    e.mean.iter().map(|(m, v)| (m.to_string(), v)).collect()
}

fn read(config: &CrossEncoderConfig, context: &RunContext) -> Result<(TrainingSet, Option<EvalSet>)> {
    let (d, bad) = (&config.data, &context.bad_rows);
    bad.set_missing(d.missing);
    let options = d.options(config.loss.build()?.needs_teacher())?;
    let set = TrainingSet::read(&d.train, &options, PassagePool::WholeCorpus, bad)?;
    if set.items().is_empty() {
        return Err(Error::Unusable(format!("{}: no training examples", d.train.display())));
    }
    let dev = d.dev.as_ref().map(|path| EvalSet::read(path, &d.dev_options()?, None, config.run.seed, bad));
    Ok((set, dev.transpose()?))
}

/// The forward passes of a step: as many lists as fit into `tokens`, one at least.
fn passes(lists: &[List], encodings: &[Encoding], tokens: usize) -> Vec<std::ops::Range<usize>> {
    let mut rest = encodings;
    let (mut out, mut from, mut taken) = (Vec::new(), 0, 0);
    for (i, l) in lists.iter().enumerate() {
        let (own, later) = rest.split_at(l.passages.len());
        let own: usize = own.iter().map(Encoding::len).sum();
        if i > from && taken + own > tokens {
            out.push(from..i);
            (from, taken) = (i, 0);
        }
        (taken, rest) = (taken + own, later);
    }
    out.push(from..lists.len());
    out
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
