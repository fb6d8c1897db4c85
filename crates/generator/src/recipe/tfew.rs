//! T-Few: learning to choose, from few records or from a mixture of tasks.
//!
//! A step's loss is over the records of the whole step: token means and the mean over records do not depend on how many
//! forward passes it takes. Records come in an order that is a pure function of (data, config, seed): the step is all
//! that a checkpoint needs to know.
//!
//! Adaptation continues pre-training: an adapter folder as `model.base` and no `[peft]`; pre-training is the same
//! recipe over a mixture. The order of records is a pure function of the step, so a checkpoint holds the step alone.
//! Choices of a record are sequences of one packed pass, each with its prompt.

use super::card::card;
use super::config::{TaskConfig, TfewConfig};
use super::parts::{build, described, learner};
use crate::choices::{
    ChoiceOptions, ChoiceScores, MultipleChoiceExample, choose_all, multiple_choice, passes, token_nll,
};
use crate::error::{Error, Result, bad, catch};
use crate::loss::{TfewBatch, TfewLoss, TfewTotals};
use crate::model::Generator;
use crate::prepare::{PrepareReport, Preparer};
use ragduet_data::{BadRows, ChoiceRecord, Mixing, choice_line, mix, read_choices};
use ragduet_torch::{Tensor, grad};
use ragduet_train::{
    At, Card, Counts, Epoch, Evaluated, Facts, Fingerprint, Learner, Metrics, Recipe, RunContext, RunOptions,
    RunState,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The paper's number of steps, where `[run]` says nothing.
const STEPS: u64 = 1000;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps, model, scores on the dev sets.
    pub run: ragduet_train::Outcome<ChoiceScores>,
    /// Records learned from, and left out for their length.
    pub records: (usize, usize),
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// A config or data that cannot work, a loss that is no number, memory, files.
pub fn train(config: &TfewConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let mut config = config.clone();
    if config.run.epochs.is_none() {
        config.run.max_steps.get_or_insert(STEPS);
    }
    let done = ragduet_train::run(&config, options, |context| Tfew::build(&config, context))?;
    let recipe = done.recipe;
    Ok(Outcome { run: done.outcome, records: (recipe.stream.order.records(), recipe.left_out()) })
}

/// A task's records.
struct Task {
    name: String,
    train: Vec<ChoiceRecord>,
    dev: Vec<ChoiceRecord>,
}

/// A generator that learns to choose.
struct Tfew<'a> {
    config: &'a TfewConfig,
    generator: Generator,
    learner: Learner,
    stream: Rc<Stream>,
    data: u64,
    prepared: PrepareReport,
}

impl<'a> Tfew<'a> {
    fn build(config: &'a TfewConfig, context: &RunContext) -> Result<Self> {
        let read = |task| read(config, task, &context.bad_rows);
        let mut tasks = config.data.tasks.iter().map(read).collect::<Result<Vec<Task>>>()?;
        let peft = config.peft.as_ref();
        let generator = build(&config.model, peft, context.compute, context.device, None, || texts(&tasks))?;
        let learner = learner(&config.optim, &generator)?;
        let (contexts, tokens, seed) = (config.contexts.clone(), config.batch.tokens, config.run.seed);
        let preparer = Preparer::new(&generator, &config.prompt, contexts, tokens, seed)?.into_owned();
        let all =
            tasks.iter().flat_map(|t| &t.train).map(choice_line).chain(config.prompt.examples_digest()?);
        let data = all.fold(Fingerprint::default(), |all, line| all.text(&line)).digest();
        let mut prepared = PrepareReport::default();
        for task in &mut tasks {
            keep_what_fits(&preparer, task, tokens, &mut prepared)?;
        }
        preparer.log_first(tasks.iter().flat_map(|t| t.train.first()).map(|c| &c.record))?;
        let counts = tasks.iter().map(|t| t.train.len()).collect();
        let order = Order { counts, mixing: config.mixing(), seed };
        let stream = Rc::new(Stream { preparer, tasks, order, size: config.batch.size, tokens });
        Ok(Self { config, generator, learner, stream, data, prepared })
    }

    fn left_out(&self) -> usize {
        self.prepared.left_out.values().sum()
    }
}

impl Recipe for Tfew<'_> {
    /// The records of a forward pass.
    type Batch = Vec<MultipleChoiceExample>;
    type Scores = ChoiceScores;
    type Error = Error;

    const UNIT: &'static str = "records";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.generator.trained().named()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.stream.order.records() as f64 / self.stream.size as f64
    }

    fn fingerprint(&self) -> u64 {
        self.data
    }

    fn describe(&self) -> String {
        format!(
            "{} records of {} tasks ({} too long and left out); steps of {}; {}",
            self.stream.order.records(),
            self.stream.tasks.len(),
            self.left_out(),
            self.stream.size,
            described(&self.generator)
        )
    }

    fn epoch(&mut self, _: u64, from: usize) -> Result<Epoch<Self::Batch, Error>> {
        let (stream, mut plans) = (Rc::clone(&self.stream), HashMap::new());
        let rest = (from as u64..).map(move |step| stream.step(step, &mut plans));
        Ok(Epoch { windows: None, rest: Box::new(rest) })
    }

    fn epochs_done(&self, at: &At) -> f64 {
        (at.window * self.stream.size) as f64 / self.stream.order.records() as f64
    }

    fn counts(&self, batch: &Self::Batch) -> Counts {
        let mut all = TfewTotals::default();
        for e in batch {
            let tokens: Vec<usize> = e.sequences.iter().map(|s| s.targets()).collect();
            all.add(TfewTotals::of(&tokens, &[shape(e)]));
        }
        Counts([all.records, all.right_tokens, all.wrong_tokens].map(|n| n as f64).to_vec())
    }

    fn units(&self, batch: &Self::Batch) -> u64 {
        batch.len() as u64
    }

    fn ids(&self, batch: &Self::Batch) -> Vec<String> {
        batch.iter().map(|e| e.id.clone()).collect()
    }

    fn backward(&mut self, batch: &Self::Batch, totals: &Counts, _: &mut RunState) -> Result<Metrics> {
        let [records, right_tokens, wrong_tokens] = [0, 1, 2].map(|i| totals[i] as usize);
        let totals = TfewTotals { records, right_tokens, wrong_tokens };
        learn(&self.config.loss, &self.generator, batch, totals, true)
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<ChoiceScores>>> {
        let config = self.config;
        let options = ChoiceOptions {
            prompt: &config.prompt,
            contexts: config.shown(),
            length_norm: config.loss.length_norm,
            tokens: config.batch.tokens,
            seed: config.run.seed,
        };
        let mut all = Vec::new();
        for task in self.stream.tasks.iter().filter(|t| !t.dev.is_empty()) {
            all.extend(choose_all(&self.generator, &task.dev, &task.name, &options, &mut |_| ())?.0);
        }
        if self.stream.tasks.iter().all(|t| t.dev.is_empty()) {
            return Ok(None);
        }
        let scores = ChoiceScores::of(&all)?;
        Ok(Some(Evaluated { main: scores.mean.accuracy, named: scores.named(), scores }))
    }

    fn save_model(&self, dir: &Path, _: &Facts<'_, ChoiceScores>) -> Result<()> {
        self.generator.save(dir)?;
        crate::TrainedWith::of_choices(self.config).save(dir)
    }

    fn card(&self) -> Option<Card> {
        let c = self.config;
        let tasks: Vec<String> = c.data.tasks.iter().map(|t| t.train.display().to_string()).collect();
        Some(card("generator", &self.generator, c.model.base.as_deref(), tasks.join(", ")))
    }

    fn best_facts(&self, dev: Option<&Evaluated<ChoiceScores>>) -> Map<String, Value> {
        let dev = json!(dev.map(|e| &e.scores));
        Map::from_iter([("prepared".to_string(), json!(self.prepared)), ("dev".to_string(), dev)])
    }
}

/// How many choices an example has, and which of them is right.
fn shape(e: &MultipleChoiceExample) -> (usize, usize) {
    (e.sequences.len(), e.answer)
}

/// The share of a batch in the losses of a step; its gradients are added to what is there.
fn learn(
    loss: &TfewLoss,
    generator: &Generator,
    batch: &[MultipleChoiceExample],
    totals: TfewTotals,
    train: bool,
) -> Result<Metrics> {
    catch("a training step", "lower batch.tokens or batch.size", || {
        let sequences = batch.iter().flat_map(|r| &r.sequences);
        let (nll, tokens) = token_nll(generator, sequences, generator.mode(train));
        let shapes: Vec<(usize, usize)> = batch.iter().map(shape).collect();
        let shares = loss.shares(&TfewBatch { nll: &nll, tokens: &tokens, records: &shapes }, totals);
        let total = loss.total(&shares);
        grad::backward(&[total.shallow_clone()], &[Tensor::ones_like(&total)])?;
        Ok(Metrics::of(&total)
            .with("language_model", &shares.language_model)
            .with("unlikelihood", &shares.unlikelihood)
            .with("length_normalized", &shares.length_normalized))
    })
}

fn read(config: &TfewConfig, task: &TaskConfig, bad_rows: &BadRows) -> Result<Task> {
    let all = |path: &PathBuf, most: usize| -> Result<Vec<ChoiceRecord>> {
        Ok(read_choices(path, bad_rows)?.take(most).collect::<std::result::Result<_, _>>()?)
    };
    let mut train = all(&task.train, usize::MAX)?;
    if let Some(shots) = task.shots {
        if shots > train.len() {
            let why = format!("{shots} of `{}` are asked for, {} are there", task.name, train.len());
            return Err(bad("data.tasks.shots", why));
        }
        let seed = keyed(config.run.seed, &[task.name.as_bytes()]);
        train.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        train.truncate(shots);
    }
    let most = if config.eval.limit == 0 { usize::MAX } else { config.eval.limit };
    let dev = task.dev.as_ref().map_or(Ok(Vec::new()), |path| all(path, most))?;
    Ok(Task { name: task.name.clone(), train, dev })
}

/// Leaves out the records whose choices are too long: half a choice is none.
fn keep_what_fits(
    preparer: &Preparer<'_>,
    task: &mut Task,
    tokens: usize,
    report: &mut PrepareReport,
) -> Result<()> {
    let (made, one) = multiple_choice(preparer, task.train.as_slice(), 0)?;
    report.add(&one);
    let mut fits = made.iter().map(|m| m.as_ref().map(MultipleChoiceExample::len));
    let mut over = 0;
    task.train.retain(|_| match fits.next().flatten() {
        Some(n) if n <= tokens => true,
        Some(_) => {
            over += 1;
            false
        }
        None => false,
    });
    if over > 0 {
        let why = format!("all choices together are over {tokens} tokens (batch.tokens)");
        *report.left_out.entry(why).or_default() += over;
    }
    if task.train.is_empty() {
        return Err(Error::Unusable(format!("no record of task `{}` fits: {report}", task.name)));
    }
    Ok(())
}

/// Records as the batches of steps, without end.
struct Stream {
    preparer: Preparer<'static>,
    tasks: Vec<Task>,
    order: Order,
    /// Records of a step.
    size: usize,
    /// Tokens of a forward pass.
    tokens: usize,
}

impl Stream {
    /// The forward passes of a step; `plans` holds epochs that were made.
    fn step(
        &self,
        step: u64,
        plans: &mut HashMap<u64, Vec<Picked>>,
    ) -> Result<Vec<Vec<MultipleChoiceExample>>> {
        let made: Vec<Option<MultipleChoiceExample>> = self
            .order
            .step(step, self.size, plans)?
            .par_iter()
            .map(|p| {
                let record = &self.tasks[p.task].train[p.record..=p.record];
                Ok(multiple_choice(&self.preparer, record, p.epoch)?.0.pop().flatten())
            })
            .collect::<Result<_>>()?;
        let mut rest = made.into_iter().flatten().collect::<Vec<_>>();
        let lengths: Vec<usize> = rest.iter().map(MultipleChoiceExample::len).collect();
        Ok(passes(&lengths, self.tokens).into_iter().map(|pass| rest.drain(..pass.len()).collect()).collect())
    }
}

/// In which order the records of all tasks come, epoch after epoch.
struct Order {
    counts: Vec<usize>,
    mixing: Mixing,
    seed: u64,
}

/// A record and the epoch it is learned in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picked {
    task: usize,
    record: usize,
    epoch: u64,
}

impl Order {
    /// Records of an epoch.
    fn records(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The records of a step; `plans` holds epochs that were made.
    fn step(&self, step: u64, records: usize, plans: &mut HashMap<u64, Vec<Picked>>) -> Result<Vec<Picked>> {
        let per_epoch = self.records() as u64;
        let from = step * records as u64;
        plans.retain(|&epoch, _| epoch >= from / per_epoch);
        (from..from + records as u64)
            .map(|at| {
                let epoch = at / per_epoch;
                if let std::collections::hash_map::Entry::Vacant(e) = plans.entry(epoch) {
                    e.insert(self.epoch(epoch)?);
                }
                Ok(plans[&epoch][(at % per_epoch) as usize])
            })
            .collect()
    }

    fn epoch(&self, epoch: u64) -> Result<Vec<Picked>> {
        let mut shuffled: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
        let turns = mix(&self.counts, &self.mixing, self.seed, epoch)?;
        let pick = turns.into_iter().map(|turn| {
            let order = shuffled.entry((turn.set, turn.pass)).or_insert_with(|| {
                let mut order: Vec<usize> = (0..self.counts[turn.set]).collect();
                let key = [turn.set as u64, epoch, turn.pass].map(u64::to_le_bytes);
                let seed = keyed(self.seed, &[&key[0], &key[1], &key[2]]);
                order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                order
            });
            Picked { task: turn.set, record: order[turn.batch], epoch }
        });
        Ok(pick.collect())
    }
}

fn keyed(seed: u64, parts: &[&[u8]]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&parts.concat(), seed)
}

/// What a new tokenizer is trained on.
fn texts(tasks: &[Task]) -> Vec<&str> {
    let records = tasks.iter().flat_map(|t| &t.train);
    let all = records.flat_map(|r| {
        let passages = r.record.contexts.iter().map(|f| f.passage.text.as_str());
        let choices = r.choices.iter().map(String::as_str);
        passages.chain([r.record.question.as_str()]).chain(choices)
    });
    all.collect()
}

#[cfg(test)]
mod tests;
