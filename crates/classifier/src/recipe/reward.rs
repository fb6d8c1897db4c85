//! Reward models: one score for a prompt with an answer, learned from pairs of a better and a worse answer by the
//! Bradley-Terry loss, -log sigmoid(r(chosen) - r(rejected)) (Ouyang et al., 2022, arXiv 2203.02155), on request with a
//! term that centres rewards around 0 (Eisenstein et al., 2023, arXiv 2312.09244).
//!
//! A prompt and its answer are read as a pair of texts; a conversation's turns are rendered as text before the answer.

use super::model_config::ModelConfig;
use crate::error::{Error, Result, bad, catch};
use crate::labels::{LabelSet, Task};
use crate::model::{Classifier, Text};
use ragduet_data::{Message, PreferenceRecord, Prompt, read_preferences};
use ragduet_nn::peft::PeftConfig;
use ragduet_text::Encoding;
use ragduet_torch::{Kind, Tensor, grad};
use ragduet_train::{
    Card, Counts, Epoch, Evaluated, Facts, Fingerprint, Learner, Metrics, OptimizerConfig, Recipe,
    RecipeConfig, RunContext, RunOptions, RunState, epoch_rng,
};
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

use super::config::{BatchConfig, DataConfig};

ragduet_train::recipe_config! {
    /// Training of a reward model on preferences: rows of `prompt`, `chosen`, `rejected`.
    pub struct RewardConfig {
        /// Base model: an encoder or a decoder-only model, which gets a new head with one output.
        pub model: ModelConfig,
        /// Training set and dev set (see `ragduet_data::read_preferences`).
        pub data: DataConfig,
        /// Parameter-efficient fine-tuning: trains an adapter and the head over the frozen model.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Bradley-Terry loss.
        #[serde(default)]
        pub loss: BradleyTerry,
        /// Batch size, in pairs.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Evaluation on the dev set during training; the best model has the highest accuracy.
        #[serde(default)]
        pub eval: RewardEvalConfig,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
    }
    epochs = 1.0
}

/// Bradley-Terry loss of pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BradleyTerry {
    /// Margin by which the chosen answer's reward should be higher.
    pub margin: f64,
    /// Weight of the squared sum of a pair's rewards, which keeps them around 0.
    pub centering: f64,
}

impl BradleyTerry {
    /// The summed loss of pairs with these rewards, [pairs] each -> scalar of the same kind.
    pub fn sum(&self, chosen: &Tensor, rejected: &Tensor) -> Tensor {
        let kind = chosen.kind();
        let pairs = (chosen - rejected - self.margin).neg().softplus().sum(kind);
        if self.centering == 0.0 {
            return pairs;
        }
        pairs + (chosen + rejected).square().sum(kind) * self.centering
    }
}

ragduet_train::eval_config! {
    /// Evaluation on the dev set during training.
    pub struct RewardEvalConfig {
        /// Tokens per forward pass during evaluation.
        pub batch_tokens: usize = 16_384,
    }
}

impl RewardConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    pub fn validate(&self) -> Result<()> {
        self.model.check()?;
        if self.batch.size == 0 || self.batch.accumulate == 0 || self.eval.batch_tokens == 0 {
            return Err(bad("batch", "size, accumulate and eval.batch_tokens must be 1 or more"));
        }
        let loss = self.loss;
        if !(loss.margin.is_finite() && loss.centering >= 0.0 && loss.centering.is_finite()) {
            return Err(bad("loss", "margin must be a number, centering at least 0"));
        }
        self.eval().check(self.data.dev.is_some()).map_err(|(key, why)| bad(key, why))
    }
}

/// What a reward model says of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RewardScores {
    /// Share of pairs whose chosen answer has the higher reward.
    pub accuracy: f64,
    /// Mean Bradley-Terry loss.
    pub loss: f64,
    /// Mean reward of the chosen answers.
    pub chosen: f64,
    /// Mean reward of the rejected answers.
    pub rejected: f64,
}

/// What a run came to.
#[derive(Debug)]
pub struct RewardOutcome {
    /// Steps, folders, scores, speed.
    pub run: ragduet_train::Outcome<RewardScores>,
    /// Pairs of the training set, and how many of their answers were truncated.
    pub pairs: (usize, usize),
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data or a base that do not fit; a loss that is no number; memory that runs out.
pub fn train_reward(config: &RewardConfig, options: &RunOptions) -> Result<RewardOutcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| Reward::build(config, context))?;
    Ok(RewardOutcome { run: done.outcome, pairs: (done.recipe.pairs.len(), done.recipe.cut) })
}

/// A reward model that learns.
struct Reward<'a> {
    config: &'a RewardConfig,
    model: Classifier,
    learner: Learner,
    /// Chosen and rejected.
    pairs: Vec<[Encoding; 2]>,
    cut: usize,
    /// Prompts with their answers, chosen and rejected in turns.
    dev: Option<Vec<(String, String)>>,
    fingerprint: u64,
}

impl<'a> Reward<'a> {
    fn build(config: &'a RewardConfig, context: &RunContext) -> Result<Self> {
        let read = |path: &Path| -> Result<Vec<PreferenceRecord>> {
            let all =
                read_preferences(path, &context.bad_rows)?.collect::<std::result::Result<Vec<_>, _>>()?;
            match all.is_empty() {
                true => Err(Error::Unusable(format!("{}: no usable row", path.display()))),
                false => Ok(all),
            }
        };
        let train = read(&config.data.train)?;
        let dev = config.data.dev.as_deref().map(read).transpose()?;
        // The name that transformers gives the only label.
        let labels = LabelSet::given(Task::Regression, vec!["LABEL_0".into()])?;
        let model = config.model.build(labels, config.peft.as_ref(), context)?;
        let texts = texts_of(&model, &train)?;
        let fingerprint =
            Fingerprint::default().texts(texts.iter().flat_map(|(p, a)| [p.as_str(), a])).digest();
        let asked: Vec<Text<'_>> = texts.iter().map(|(p, a)| (p.as_str(), Some(a.as_str()))).collect();
        let (encodings, cut) = model.encode(&asked)?;
        if cut > 0 {
            tracing::warn!("{cut} of {} answers are truncated to {} tokens", asked.len(), model.max_tokens);
        }
        let mut encodings = encodings.into_iter();
        let pairs = std::iter::from_fn(|| Some([encodings.next()?, encodings.next()?])).collect();
        let dev = dev.map(|d| texts_of(&model, &d)).transpose()?;
        let learner = model.learner(&config.optim)?;
        Ok(Self { config, model, learner, pairs, cut, dev, fingerprint })
    }
}

/// Prompts with their answers, chosen and rejected in turns.
fn texts_of(model: &Classifier, records: &[PreferenceRecord]) -> Result<Vec<(String, String)>> {
    let template = model.tokenizer.fallback_chat_template()?;
    let mut out = Vec::with_capacity(2 * records.len());
    for r in records {
        let prompt = match &r.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Turns(turns) => {
                let turns: Vec<_> = turns.iter().map(Message::json).collect();
                template.render(&turns, (!r.tools.is_empty()).then_some(&r.tools), true)?.text
            }
        };
        out.extend([&r.chosen, &r.rejected].map(|answer| (prompt.clone(), spoken(answer))));
    }
    Ok(out)
}

/// An answer as text: its words, and the calls of tools behind them.
fn spoken(answer: &Message) -> String {
    let json = answer.json();
    let calls = json.get("tool_calls").and_then(|calls| calls.as_array()).into_iter().flatten();
    let calls = calls.map(|call| call.get("function").unwrap_or(call).to_string());
    let words = [answer.content().to_owned()].into_iter().filter(|words| !words.is_empty());
    words.chain(calls).collect::<Vec<_>>().join("\n")
}

impl Recipe for Reward<'_> {
    type Batch = Vec<usize>;
    type Scores = RewardScores;
    type Error = Error;
    const UNIT: &'static str = "pairs";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.model.trained()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.pairs.len().div_ceil(self.config.batch.size * self.config.batch.accumulate) as f64
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn describe(&self) -> String {
        format!("{} pairs; {}", self.pairs.len(), self.model.parameters_line())
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Vec<usize>, Error>> {
        let mut order: Vec<usize> = (0..self.pairs.len()).collect();
        order.shuffle(&mut epoch_rng(self.config.run.seed, epoch));
        Ok(Epoch::of(&order, self.config.batch.size, self.config.batch.accumulate, from))
    }

    fn counts(&self, batch: &Vec<usize>) -> Counts {
        Counts::one(batch.len() as f64)
    }

    fn units(&self, batch: &Vec<usize>) -> u64 {
        batch.len() as u64
    }

    fn ids(&self, batch: &Vec<usize>) -> Vec<String> {
        batch.iter().map(|i| format!("pair {}", i + 1)).collect()
    }

    fn backward(&mut self, batch: &Vec<usize>, totals: &Counts, _: &mut RunState) -> Result<Metrics> {
        let n = batch.len() as i64;
        catch("a training step", "lower batch.size and raise batch.accumulate", || {
            let pairs = &self.pairs;
            let sides = [0, 1].into_iter().flat_map(|side| batch.iter().map(move |&i| &pairs[i][side]));
            let texts: Vec<&Encoding> = sides.collect();
            let rewards = self.model.logits(&texts, self.model.mode(true)).view(-1);
            let (chosen, rejected) = (rewards.narrow(0, 0, n), rewards.narrow(0, n, n));
            let share = self.config.loss.sum(&chosen, &rejected) / totals[0];
            grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            let right = chosen.gt_tensor(&rejected).sum(Kind::Double) / totals[0];
            Ok(Metrics::of(&share).with("accuracy", &right))
        })
    }

    fn evaluate(&mut self, _: &mut RunState) -> Result<Option<Evaluated<RewardScores>>> {
        let Some(dev) = &self.dev else { return Ok(None) };
        let asked: Vec<Text<'_>> = dev.iter().map(|(p, a)| (p.as_str(), Some(a.as_str()))).collect();
        let rewards: Vec<f64> =
            self.model.score(&asked, self.config.eval.batch_tokens, &mut |_| ())?.concat();
        let n = rewards.len() as f64 / 2.0;
        let mean = |of: &dyn Fn(f64, f64) -> f64| rewards.chunks(2).map(|r| of(r[0], r[1])).sum::<f64>() / n;
        let BradleyTerry { margin, centering } = self.config.loss;
        let scores = RewardScores {
            accuracy: mean(&|c, r| f64::from(u8::from(c > r))),
            loss: mean(&|c, r| (-(c - r - margin)).exp().ln_1p() + centering * (c + r).powi(2)),
            chosen: mean(&|c, _| c),
            rejected: mean(&|_, r| r),
        };
        let RewardScores { accuracy, loss, chosen, rejected } = scores;
        let named = [
            ("accuracy", accuracy),
            ("loss", loss),
            ("reward_chosen", chosen),
            ("reward_rejected", rejected),
            ("margin", chosen - rejected),
        ];
        let named = named.map(|(n, v)| (n.to_string(), v)).to_vec();
        Ok(Some(Evaluated { scores, main: accuracy, named }))
    }

    fn save_model(&self, dir: &Path, _: &Facts<'_, RewardScores>) -> Result<()> {
        self.model.save(dir)
    }

    fn card(&self) -> Option<Card> {
        let c = self.config;
        Some(self.model.card("reward model", &c.model.base, &c.data.train))
    }
}
