//! Preference optimisation: DPO and its paired variants, and KTO, which learns from single judged completions.
//!
//! KTO's estimate of the divergence needs completions under prompts they do not belong to. Each row gets the completion
//! of the next row (of the file, which is a circle) that has another prompt, once for the whole run, so that the
//! reference's log-probabilities of them are known as well; a forward pass takes the mean over its own rows. TRL
//! rotates completions inside fixed batches instead, with the same expectation, and pairs a prompt with its own other
//! completion where a file holds them side by side.
//!
//! The reference is the model as it was before the first step; its log-probabilities of all pairs are computed once
//! and kept in `reference/` of the run folder. Dropout is off, as in the papers: policy and reference are
//! then equal at the start.

mod reference;
mod rows;

use super::card::card;
use super::config::PreferenceConfig;
use super::parts::{build, described, learner, shuffled};
use crate::error::{Error, Result, catch};
use crate::loss::{LikelihoodScope, Preference, PreferenceBatch, Reference, RewardMetrics, Window};
use crate::model::Generator;
use crate::packed::likelihoods;
use ragduet_text::{TrainExample, pack_in_order};
use ragduet_torch::{Kind, Tensor, grad, no_grad};
use ragduet_train::{
    Card, Counts, Epoch, Evaluated, Facts, Goal, Learner, Metrics, Recipe, RunContext, RunOptions, RunState,
};
use reference::{References, references};
use rows::{Row, fingerprint, read};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps, model, scores on the dev set.
    pub run: ragduet_train::Outcome<Scores>,
    /// Pairs (of kto: completions) learned from, and left out for their length.
    pub pairs: (usize, usize),
}

/// Loss and implicit rewards, means over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// The loss.
    pub loss: f64,
    /// Rewards, margin, accuracy.
    #[serde(flatten)]
    pub rewards: RewardMetrics,
}

impl Scores {
    /// Names and values, for logs; no accuracy where rows are no pairs.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let RewardMetrics { chosen, rejected, margin, accuracy } = self.rewards;
        let mut out = vec![
            ("loss", self.loss),
            ("reward_chosen", chosen),
            ("reward_rejected", rejected),
            ("margin", margin),
        ];
        out.extend(accuracy.map(|a| ("accuracy", a)));
        out
    }

    fn of(all: &Metrics) -> Result<Self> {
        let number = |t: &Tensor| f64::try_from(t).map_err(ragduet_torch::Error::from);
        let term =
            |name: &str| all.terms.iter().find(|(n, _)| *n == name).map(|(_, t)| number(t)).transpose();
        let chosen = term("reward_chosen")?.unwrap_or_default();
        let rejected = term("reward_rejected")?.unwrap_or_default();
        let accuracy = term("accuracy")?;
        let loss = all.loss.as_ref().map(number).transpose()?.unwrap_or_default();
        Ok(Self { loss, rewards: RewardMetrics { chosen, rejected, margin: chosen - rejected, accuracy } })
    }
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// A config, a model or data that cannot work, a loss that is no number, memory, files.
pub fn train(config: &PreferenceConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| Policy::build(config, context))?;
    Ok(Outcome { pairs: (done.recipe.train.rows.len(), done.recipe.train.left_out), run: done.outcome })
}

/// A generator that learns preferences.
struct Policy<'a> {
    config: &'a PreferenceConfig,
    preference: Preference,
    generator: Generator,
    learner: Learner,
    train: Set,
    dev: Set,
    /// Batches of the first epoch.
    per_epoch: usize,
}

/// Rows of a file that fit, and what the reference says of them.
#[derive(Default)]
struct Set {
    rows: Vec<Row>,
    left_out: usize,
    reference: Option<References>,
}

impl<'a> Policy<'a> {
    fn build(config: &'a PreferenceConfig, context: &RunContext) -> Result<Self> {
        let preference = config.preference.build()?;
        let peft = config.peft.as_ref();
        let generator = build(&config.model, peft, context.compute, context.device, None, Vec::new)?;
        let learner = learner(&config.optim, &generator)?;
        let set = |path: &Path| -> Result<Set> {
            let (rows, left_out) = read(config, &generator, path, &context.bad_rows)?;
            Ok(Set { rows, left_out, reference: None })
        };
        let mut train = set(&config.data.train)?;
        let mut dev = config.data.dev.as_deref().map_or_else(|| Ok(Set::default()), set)?;
        if train.rows.is_empty() {
            let limit = limit(config, &generator);
            return Err(Error::Unusable(format!("no row fits: {} are longer than {limit}", train.left_out)));
        }
        // Before a checkpoint changes the weights.
        for (set, name) in [(&mut train, "reference"), (&mut dev, "reference-dev")] {
            set.reference = references(&generator, &preference, config, &set.rows, context, name)?;
        }
        let per_epoch = batches(config, &train.rows, 0).len();
        Ok(Self { config, preference, generator, learner, train, dev, per_epoch })
    }

    /// What the likelihood term is over: the whole sequence, or the completion.
    fn whole(&self) -> bool {
        self.preference.likelihood.is_some_and(|l| l.scope == LikelihoodScope::PromptAndCompletion)
    }

    /// Of a batch: rows, tokens of the likelihood term, chosen and rejected completions.
    fn count(&self, set: &Set, batch: &[usize]) -> Counts {
        let whole = self.whole();
        let tokens = |e: &TrainExample| if whole { e.predicted().len() } else { e.targets() };
        let [chosen, rejected, _] = [0, 1, 2].map(|side| side_of(&set.rows, batch, side));
        let likelihood: usize = chosen.iter().map(|(_, e)| tokens(e)).sum();
        Counts([batch.len(), likelihood, chosen.len(), rejected.len()].map(|n| n as f64).to_vec())
    }

    /// Loss and rewards of a batch, its share of a step's or a set's; with `learn` also its gradients.
    fn pass(&self, set: &Set, batch: &[usize], totals: &Counts, learn: bool) -> Result<Metrics> {
        let (generator, preference) = (&self.generator, &self.preference);
        let window = Window { rows: totals[0] as u64, likelihood_tokens: totals[1] as u64 };
        catch("a preference step", "lower batch.tokens and raise batch.accumulate", || {
            let sides = [0, 1, 2].map(|side| side_of(&set.rows, batch, side));
            let [chosen, rejected, mismatched] = &sides;
            let (n, m) = (chosen.len(), rejected.len());
            let sequences: Vec<&TrainExample> = chosen.iter().chain(rejected).map(|s| s.1).collect();
            let whole = self.whole();
            let l = likelihoods(generator, &sequences, if whole { n } else { 0 }, generator.mode(false));
            let split = |t: &Tensor| (t.narrow(0, 0, n as i64), t.narrow(0, n as i64, m as i64));
            let known = set.reference.as_ref().map(|r| {
                [0, 1, 2].map(|side| {
                    let values: Vec<f32> = sides[side].iter().map(|(i, _)| r[side][*i]).collect();
                    Tensor::from_slice(&values).to_device(generator.device)
                })
            });
            let drift = match &known {
                Some([_, _, at_start]) if preference.loss.needs_mismatched() => {
                    let _guard = no_grad();
                    let sequences: Vec<&TrainExample> = mismatched.iter().map(|s| s.1).collect();
                    Some(likelihoods(generator, &sequences, 0, generator.mode(false)).completions - at_start)
                }
                _ => None,
            };
            let ((chosen, rejected), (of_chosen, of_rejected)) = (split(&l.completions), split(&l.tokens));
            let losses = preference.loss.rows(&PreferenceBatch {
                chosen: &chosen,
                rejected: &rejected,
                chosen_tokens: &of_chosen,
                rejected_tokens: &of_rejected,
                reference: known.as_ref().map(|[c, r, _]| Reference { chosen: c, rejected: r }),
                mismatched: drift.as_ref(),
            })?;
            let nll = if whole { l.whole } else { chosen.sum(Kind::Float).neg() };
            let share = preference.share(&losses, Some(&nll), window)?;
            if learn {
                grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            }
            let means = losses.means(preference.loss.paired());
            let (of_chosen, of_rejected) = (n as f64 / totals[2].max(1.0), m as f64 / totals[3].max(1.0));
            let (chosen, rejected) = (means.chosen * of_chosen, means.rejected * of_rejected);
            let all = Metrics::of(&share)
                .with("reward_chosen", &chosen)
                .with("reward_rejected", &rejected)
                .with("margin", &(&chosen - &rejected));
            Ok(match means.accuracy {
                Some(accuracy) => all.with("accuracy", &(accuracy * of_chosen)),
                None => all,
            })
        })
    }
}

impl Recipe for Policy<'_> {
    type Batch = Vec<usize>;
    type Scores = Scores;
    type Error = Error;

    const UNIT: &'static str = "pairs";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.generator.trained().named()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(&self.train.rows)
    }

    fn describe(&self) -> String {
        let limit = limit(self.config, &self.generator);
        let said = |set: &Set| {
            format!("{} rows ({} longer than {limit} and left out)", set.rows.len(), set.left_out)
        };
        let dev = self.config.data.dev.as_ref().map(|_| format!("; dev: {}", said(&self.dev)));
        format!("{}{}; {}", said(&self.train), dev.unwrap_or_default(), described(&self.generator))
    }

    fn steps_per_epoch(&self) -> f64 {
        self.per_epoch.div_ceil(self.config.batch.accumulate) as f64
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Vec<usize>, Error>> {
        let batches = batches(self.config, &self.train.rows, epoch);
        Ok(Epoch::of_batches(batches, self.config.batch.accumulate, from))
    }

    fn counts(&self, batch: &Vec<usize>) -> Counts {
        self.count(&self.train, batch)
    }

    fn units(&self, batch: &Vec<usize>) -> u64 {
        batch.len() as u64
    }

    fn ids(&self, batch: &Vec<usize>) -> Vec<String> {
        batch.iter().map(|&i| format!("row {}", self.train.rows[i].number)).collect()
    }

    fn backward(&mut self, batch: &Vec<usize>, totals: &Counts, _: &mut RunState) -> Result<Metrics> {
        self.pass(&self.train, batch, totals, true)
    }

    fn goal(&self) -> Goal {
        Goal::Min
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<Scores>>> {
        if self.dev.rows.is_empty() {
            return Ok(None);
        }
        let _guard = no_grad();
        let batches = batches(self.config, &self.dev.rows, 0);
        let (mut totals, mut all) = (Counts::default(), Metrics::default());
        batches.iter().for_each(|b| totals.add(&self.count(&self.dev, b)));
        for batch in &batches {
            all.add(self.pass(&self.dev, batch, &totals, false)?);
        }
        let scores = Scores::of(&all)?;
        let named = scores.named().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Ok(Some(Evaluated { scores, main: scores.loss, named }))
    }

    fn save_model(&self, dir: &Path, _: &Facts<'_, Scores>) -> Result<()> {
        self.generator.save(dir)?;
        // What the base was asked with is what this one is asked with.
        let base = self.config.model.base.as_deref().map(ragduet_nn::hub::resolve).transpose()?;
        match base.map(|base| crate::TrainedWith::find(&base)).transpose()?.flatten() {
            Some(settings) => settings.save(dir),
            None => Ok(()),
        }
    }

    fn card(&self) -> Option<Card> {
        let c = self.config;
        let data = c.data.train.display().to_string();
        Some(card("generator, by preferences,", &self.generator, c.model.base.as_deref(), data))
    }

    fn best_facts(&self, dev: Option<&Evaluated<Scores>>) -> Map<String, Value> {
        Map::from_iter([("dev".to_string(), json!(dev.map(|e| e.scores)))])
    }
}

/// The limit of prompt and answer, and the key that sets it.
fn limit(config: &PreferenceConfig, generator: &Generator) -> String {
    match config.max_tokens {
        Some(n) => format!("{n} tokens (max_tokens)"),
        None => {
            let n = rows::usual_limit(config, generator);
            format!("{n} tokens (the model's positions and half of batch.tokens; max_tokens is not set)")
        }
    }
}

/// The forward passes of an epoch: places of rows.
fn batches(config: &PreferenceConfig, rows: &[Row], epoch: u64) -> Vec<Vec<usize>> {
    let order = shuffled(rows.len(), config.run.seed, epoch);
    let lengths: Vec<usize> = order.iter().map(|&i| rows[i].tokens()).collect();
    let packed = pack_in_order(&lengths, config.batch.tokens).rows;
    packed.iter().map(|row| row.iter().map(|&i| order[i]).collect()).collect()
}

/// The sequences of a side that rows of a batch have, with the rows' places.
fn side_of<'a>(rows: &'a [Row], batch: &[usize], side: usize) -> Vec<(usize, &'a TrainExample)> {
    batch.iter().filter_map(|&i| Some((i, rows[i].sides()[side]?))).collect()
}
