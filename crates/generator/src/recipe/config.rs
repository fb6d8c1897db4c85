//! The config of generator training.

use crate::contexts::ContextConfig;
use crate::decode::DecodeConfig;
use crate::error::{Error, Result, bad};
use crate::loss::{PreferenceConfig, SftLoss};
use crate::model::ScratchGenerator;
use crate::prepare::PromptConfig;
use ragduet_data::RecordFormat;
use ragduet_nn::peft::PeftConfig;
use ragduet_torch::{Precision, Quantize};
use ragduet_train::{OptimizerConfig, SaveConfig, StopConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Supervised fine-tuning of a generator on questions, retrieved contexts and answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// In what precision matrix products run.
    #[serde(default)]
    pub precision: Precision,
    /// Where the model comes from.
    pub model: ModelConfig,
    /// Trains an adapter over the model, not the model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What it learns.
    pub data: DataConfig,
    /// How prompts are made.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// Which passages stand in training prompts; drawn anew each epoch.
    #[serde(default)]
    pub contexts: ContextConfig,
    /// What a token's loss is.
    #[serde(default)]
    pub loss: SftLoss,
    /// Sizes of batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Length and rhythm.
    #[serde(default)]
    pub train: TrainConfig,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// Answers while training.
    #[serde(default)]
    pub eval: EvalConfig,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(SftConfig);

pub(super) fn auto() -> String {
    "auto".into()
}

/// Where the model comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A folder or hub id.
    pub base: Option<String>,
    /// A new small model instead, with a tokenizer trained on the data.
    pub scratch: Option<ScratchGenerator>,
    /// Replaces the base's dropout in hidden layers.
    pub dropout: Option<f64>,
    /// Replaces the base's dropout on attention.
    pub attention_dropout: Option<f64>,
    /// Layers' inner values are made again in the backward pass: less memory, a third more time. Decoder-only models.
    pub recompute: bool,
    /// Keeps the weights of the base's layers in 8 or 4 bits (QLoRA); they are computed with in `precision`. With [peft].
    pub quantize: Quantize,
}

impl ModelConfig {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<()> {
        if self.base.is_some() == self.scratch.is_some() {
            return Err(bad("model", "give one of `base` (a folder or hub id) and `[model.scratch]`"));
        }
        for (key, p) in [("dropout", self.dropout), ("attention_dropout", self.attention_dropout)] {
            if p.is_some_and(|p| !(0.0..1.0).contains(&p)) {
                return Err(bad(&format!("model.{key}"), "must be at least 0 and below 1"));
            }
        }
        Ok(())
    }
}

/// Files of records (see `ragduet_data::read_records`): questions with passages, as `ragduet retrieve` writes them,
/// conversations, prompts with completions, instructions. For preferences see `ragduet_data::read_preferences`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// What is learned.
    pub train: PathBuf,
    /// What is answered while training; absent: nothing.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// What rows of records are; absent: seen by their columns, row by row.
    #[serde(default)]
    pub format: Option<RecordFormat>,
    /// Move bad rows to `bad_rows.jsonl` in the run folder instead of stopping.
    #[serde(default)]
    pub skip_bad_rows: bool,
}

/// Sizes of batches. Examples are laid one after another without padding, and attention sees each alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Tokens of a forward pass.
    pub tokens: usize,
    /// Forward passes per optimiser step; the loss is the mean over the learned tokens of all of them.
    pub accumulate: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { tokens: 4096, accumulate: 1 }
    }
}

/// Length and rhythm of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: u64,
    /// Ends earlier, after this many optimiser steps.
    pub max_steps: Option<u64>,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { epochs: 3, max_steps: None, log_every: 10 }
    }
}

/// Answering the dev set while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Optimiser steps between evaluations; 0: at the end only.
    pub every_steps: u64,
    /// Questions answered, the first of the file; 0 for all.
    pub questions: usize,
    /// Passages shown, the best retrieved ones; absent: as many as in training.
    pub contexts: Option<usize>,
    /// Answers generated at a time.
    pub batch: usize,
    /// How answers are generated.
    pub decode: DecodeConfig,
    /// When to give up (by token F1).
    pub stop: Option<StopConfig>,
}

impl Default for EvalConfig {
    fn default() -> Self {
        // Greedy, so that the figure of one model is one figure.
        let decode =
            DecodeConfig { max_new_tokens: Some(48), do_sample: Some(false), ..DecodeConfig::default() };
        Self { every_steps: 0, questions: 200, contexts: None, batch: 16, decode, stop: None }
    }
}

impl SftConfig {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        self.model.check()?;
        if self.batch.tokens == 0 || self.batch.accumulate == 0 {
            return bad("batch", "tokens and accumulate must be 1 or more");
        }
        if self.train.epochs == 0 {
            return bad("train.epochs", "must be 1 or more");
        }
        if self.eval.stop.is_some() && (self.data.dev.is_none() || self.eval.every_steps == 0) {
            return bad("eval.stop", "needs `data.dev` and `eval.every_steps`");
        }
        if self.eval.batch == 0 {
            return bad("eval.batch", "must be 1 or more");
        }
        self.contexts.check()
    }
}

/// Preference optimisation of a generator on prompts with a better and a worse answer, or (kto) on answers that are
/// good or bad.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferenceRecipe {
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// In what precision matrix products run.
    #[serde(default)]
    pub precision: Precision,
    /// The model: policy at the start, and reference.
    pub model: ModelConfig,
    /// Trains an adapter over the model, not the model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// Files of preferences (see `ragduet_data::read_preferences`), or for kto of judged completions
    /// (`ragduet_data::read_judged`).
    pub data: DataConfig,
    /// The loss.
    #[serde(default)]
    pub preference: PreferenceConfig,
    /// Whether prompts go through the tokenizer's chat template; absent: where it has one.
    #[serde(default)]
    pub chat: Option<bool>,
    /// Most tokens of prompt and answer; pairs with more are left out and counted. Absent: what the model can take.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Sizes of batches; a pair stays together, and so do a judged completion and its mismatched one.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Length and rhythm.
    #[serde(default)]
    pub train: TrainConfig,
    /// The optimiser.
    #[serde(default = "gentle")]
    pub optim: OptimizerConfig,
    /// Optimiser steps between evaluations on `data.dev`; 0: at the end only. The best model has the lowest loss.
    #[serde(default)]
    pub eval_every_steps: u64,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(PreferenceRecipe);

/// Preference losses want small steps.
fn gentle() -> OptimizerConfig {
    OptimizerConfig { lr: 1e-6, ..OptimizerConfig::default() }
}

impl PreferenceRecipe {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        if self.model.base.is_none() || self.model.scratch.is_some() {
            return bad(
                "model.base",
                "preferences are learned by a model that can answer: give its folder or hub id",
            );
        }
        if self.batch.tokens == 0 || self.batch.accumulate == 0 || self.train.epochs == 0 {
            return bad("batch", "tokens, accumulate and train.epochs must be 1 or more");
        }
        if self.data.format.is_some() {
            return bad("data.format", "the loss says what is read: pairs, or judged completions for kto");
        }
        let built = self.preference.build()?;
        if !built.loss.paired() && self.preference.sft_weight > 0.0 {
            return bad("preference.sft_weight", "kto has no pairs, and no chosen answer to each prompt");
        }
        Ok(())
    }
}
