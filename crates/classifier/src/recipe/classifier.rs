//! Sequence classification and regression: batches of texts, a head, a loss.

use super::config::ClassifierConfig;
use crate::error::{Error, Result, catch};
use crate::labels::{LabelSet, Target};
use crate::model::{Classifier, texts};
use crate::sampling::balanced;
use crate::scores::{Measure, Scores};
use ragduet_data::{LabelledRecord, read_labelled};
use ragduet_text::Encoding;
use ragduet_torch::{Tensor, grad};
use ragduet_train::{
    Card, Counts, Epoch, Evaluated, Facts, Fingerprint, Goal, Learner, Metrics, Recipe, RunContext,
    RunOptions, RunState, epoch_rng,
};
use rand::seq::SliceRandom;
use std::path::Path;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps, folders, scores, speed.
    pub run: ragduet_train::Outcome<Scores>,
    /// The classes.
    pub labels: LabelSet,
    /// Texts of the training set, and how many of them were truncated.
    pub texts: (usize, usize),
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or a base that do not fit; a loss that is no number; memory that runs out.
pub fn train(config: &ClassifierConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| Fit::build(config, context))?;
    let Fit { model, targets, cut, .. } = done.recipe;
    Ok(Outcome { run: done.outcome, labels: model.labels, texts: (targets.len(), cut) })
}

/// A classifier that learns.
struct Fit<'a> {
    config: &'a ClassifierConfig,
    model: Classifier,
    learner: Learner,
    encodings: Vec<Encoding>,
    targets: Vec<Target>,
    /// Texts that were truncated.
    cut: usize,
    /// Class weights of the loss.
    weights: Vec<f64>,
    dev: Option<Vec<LabelledRecord>>,
    measure: Measure,
    fingerprint: u64,
}

impl<'a> Fit<'a> {
    fn build(config: &'a ClassifierConfig, context: &RunContext) -> Result<Self> {
        let read = |path: &Path| -> Result<Vec<LabelledRecord>> {
            let records = read_labelled(path, true, &context.bad_rows)?;
            let records = records.collect::<std::result::Result<Vec<_>, _>>()?;
            match records.is_empty() {
                true => Err(Error::Unusable(format!("{}: no usable row", path.display()))),
                false => Ok(records),
            }
        };
        let records = read(&config.data.train)?;
        let dev = config.data.dev.as_deref().map(read).transpose()?;
        let labels = match &config.labels {
            Some(names) => LabelSet::given(config.task, names.clone())?,
            None => LabelSet::of(config.task, &records)?,
        };
        config.loss.check(&labels)?;
        let model = config.model.build(labels, config.peft.as_ref(), context)?;
        let targets = model.targets(&records)?;
        let (encodings, cut) = model.encode(&texts(&records))?;
        if cut > 0 {
            tracing::warn!("{cut} of {} texts are truncated to {} tokens", records.len(), model.max_tokens);
        }
        if let Some(dev) = &dev {
            // Labels that the model does not have are said before training, not at its end.
            model.targets(dev)?;
        }
        let all = texts(&records);
        let fingerprint = Fingerprint::default()
            .texts(all.iter().flat_map(|(a, b)| [*a, b.unwrap_or_default()]))
            .texts(targets.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().iter().map(String::as_str))
            .digest();
        Ok(Self {
            config,
            weights: config.loss.weights(&model.labels, &targets)?,
            learner: model.learner(&config.optim)?,
            measure: config.eval.measure.unwrap_or_else(|| Measure::of(&model.labels)),
            model,
            encodings,
            targets,
            cut,
            dev,
            fingerprint,
        })
    }
}

impl Recipe for Fit<'_> {
    type Batch = Vec<usize>;
    type Scores = Scores;
    type Error = Error;
    const UNIT: &'static str = "texts";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.trained()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.targets.len().div_ceil(self.config.batch.size * self.config.batch.accumulate) as f64
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn describe(&self) -> String {
        let labels = self.model.labels.names.join(", ");
        format!("{} texts, labels {labels}; {}", self.targets.len(), self.model.parameters_line())
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Vec<usize>, Error>> {
        let mut rng = epoch_rng(self.config.run.seed, epoch);
        let mut order: Vec<usize> = (0..self.targets.len()).collect();
        match self.config.sampling.balanced {
            true => order = balanced(&self.targets, &mut rng),
            false => order.shuffle(&mut rng),
        }
        let batch = &self.config.batch;
        Ok(Epoch::of(&order, batch.size, batch.accumulate, from))
    }

    fn counts(&self, batch: &Vec<usize>) -> Counts {
        let targets: Vec<&Target> = batch.iter().map(|&i| &self.targets[i]).collect();
        Counts::one(self.config.loss.total(&targets, &self.weights))
    }

    fn units(&self, batch: &Vec<usize>) -> u64 {
        batch.len() as u64
    }

    fn ids(&self, batch: &Vec<usize>) -> Vec<String> {
        batch.iter().map(|i| format!("text {}", i + 1)).collect()
    }

    fn backward(&mut self, batch: &Vec<usize>, totals: &Counts, _: &mut RunState) -> Result<Metrics> {
        catch("a training step", "lower batch.size and raise batch.accumulate", || {
            let texts: Vec<&Encoding> = batch.iter().map(|&i| &self.encodings[i]).collect();
            let targets: Vec<&Target> = batch.iter().map(|&i| &self.targets[i]).collect();
            let logits = self.model.logits(&texts, self.model.mode(true));
            let share = self.config.loss.sum(&logits, &targets, &self.weights) / totals[0];
            grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            Ok(Metrics::of(&share))
        })
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<Scores>>> {
        let Some(dev) = &self.dev else { return Ok(None) };
        let scores = self.model.evaluate(dev, self.config.eval.batch_tokens)?.0;
        let main = scores.get(self.measure).unwrap_or(f64::NAN);
        let named = scores.named().into_iter().map(|(n, v)| (n.to_string(), v)).collect();
        Ok(Some(Evaluated { scores, main, named }))
    }

    fn goal(&self) -> Goal {
        self.measure.goal()
    }

    fn save_model(&self, dir: &Path, _: &Facts<'_, Scores>) -> Result<()> {
        self.model.save(dir)
    }

    fn card(&self) -> Option<Card> {
        let c = self.config;
        Some(self.model.card("classifier", &c.model.base, &c.data.train))
    }
}
