//! The config of T-Few.

use super::config::{ModelConfig, auto};
use crate::contexts::{ContextConfig, WithoutGolden};
use crate::error::{Result, bad};
use crate::loss::ChoiceLoss;
use crate::prepare::PromptConfig;
use ragduet_data::Mixing;
use ragduet_nn::peft::PeftConfig;
use ragduet_text::LossOn;
use ragduet_torch::Precision;
use ragduet_train::{OptimizerConfig, OptimizerName, SaveConfig, ScheduleConfig, StopConfig, Warmup};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Few-shot learning from records with answers to choose from, on one task or a mixture of several: T-Few (Liu et al.,
/// 2022, arXiv 2205.05638). Pre-training is a mixture with many steps and a new adapter; adaptation has that run's
/// `best/` as `model.base` and no `[peft]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceConfig {
    /// `choices`: what tells this config from the one of supervised fine-tuning.
    pub recipe: ChoiceRecipe,
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// In what precision matrix products run.
    #[serde(default)]
    pub precision: Precision,
    /// Where the model comes from: a model, or an adapter over one that training goes on with.
    pub model: ModelConfig,
    /// Trains a new adapter over the model, not the model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What it learns.
    pub data: ChoiceData,
    /// How prompts are made.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// Which passages stand in training prompts; drawn anew each epoch.
    #[serde(default)]
    pub contexts: ContextConfig,
    /// Weights of the losses.
    #[serde(default)]
    pub loss: ChoiceLoss,
    /// Sizes of batches.
    #[serde(default)]
    pub batch: ChoiceBatchConfig,
    /// Length and rhythm.
    #[serde(default)]
    pub train: ChoiceTrain,
    /// The optimiser.
    #[serde(default = "paper")]
    pub optim: OptimizerConfig,
    /// Choosing answers while training.
    #[serde(default)]
    pub eval: ChoiceEval,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(ChoiceConfig);

/// The name of the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceRecipe {
    /// T-Few.
    Choices,
}

/// The paper's: Adafactor, 3e-3, down in a line after 60 of 1,000 steps, no decay.
fn paper() -> OptimizerConfig {
    OptimizerConfig {
        name: OptimizerName::Adafactor,
        lr: 3e-3,
        weight_decay: 0.0,
        schedule: ScheduleConfig::Linear,
        warmup: Warmup::Ratio(0.06),
        ..OptimizerConfig::default()
    }
}

/// Files of records with choices (see `ragduet_data::read_choices`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceData {
    /// One task, or several that are mixed record by record.
    pub tasks: Vec<ChoiceTask>,
    /// Move bad rows to `bad_rows.jsonl` in the run folder instead of stopping.
    #[serde(default)]
    pub skip_bad_rows: bool,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceTask {
    /// Its name in tables, for records that have none of their own.
    pub name: String,
    /// What is learned.
    pub train: PathBuf,
    /// What is chosen from while training; absent: nothing.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Only so many records of `train`, drawn by the seed: few-shot learning.
    #[serde(default)]
    pub shots: Option<usize>,
    /// How often its records come, in relation to the other tasks'; of all tasks or of none. Absent: each record of
    /// each task once per epoch.
    #[serde(default)]
    pub weight: Option<f64>,
}

/// Sizes of batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChoiceBatchConfig {
    /// Records per optimiser step, each with all its choices.
    pub records: usize,
    /// Tokens of a forward pass, of which a step has as many as it needs; the choices of a record stay together. A
    /// record that has more in all is left out.
    pub tokens: usize,
}

impl Default for ChoiceBatchConfig {
    fn default() -> Self {
        Self { records: 8, tokens: 8192 }
    }
}

/// Length and rhythm of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChoiceTrain {
    /// Optimiser steps.
    pub steps: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for ChoiceTrain {
    fn default() -> Self {
        Self { steps: 1000, log_every: 10 }
    }
}

/// Choosing answers on the dev sets while training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChoiceEval {
    /// Optimiser steps between evaluations; 0: at the end only.
    pub every_steps: u64,
    /// Records of each task, the first of the file; 0 for all.
    pub questions: usize,
    /// Passages shown, the best retrieved ones; absent: as many as in training.
    pub contexts: Option<usize>,
    /// When to give up (by the mean accuracy over tasks).
    pub stop: Option<StopConfig>,
}

impl ChoiceConfig {
    /// Passages that prompts show in evaluation and use.
    pub fn shown(&self) -> ContextConfig {
        ContextConfig::retrieved(self.eval.contexts.unwrap_or(self.contexts.count))
    }

    /// How records of the tasks take turns.
    pub fn mixing(&self) -> Mixing {
        let weights: Option<Vec<f64>> = self.data.tasks.iter().map(|t| t.weight).collect();
        weights.map_or(Mixing::Proportional, Mixing::Weights)
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`crate::Error::Config`], with the key.
    pub fn validate(&self) -> Result<()> {
        self.model.check()?;
        let tasks = &self.data.tasks;
        if tasks.is_empty() {
            return Err(bad("data.tasks", "give one task or more: [[data.tasks]] with name and train"));
        }
        if let Some(twice) = (1..tasks.len()).find(|&i| tasks[..i].iter().any(|t| t.name == tasks[i].name)) {
            return Err(bad("data.tasks", format!("`{}` is there twice", tasks[twice].name)));
        }
        let weighted = tasks.iter().filter(|t| t.weight.is_some()).count();
        if weighted != 0 && weighted != tasks.len() {
            return Err(bad("data.tasks.weight", "give all tasks a weight, or none"));
        }
        if tasks.iter().filter_map(|t| t.weight).any(|w| !(w > 0.0 && w.is_finite())) {
            return Err(bad("data.tasks.weight", "must be above 0"));
        }
        if tasks.iter().any(|t| t.shots == Some(0)) {
            return Err(bad("data.tasks.shots", "must be 1 or more"));
        }
        if self.batch.records == 0 || self.batch.tokens == 0 || self.train.steps == 0 {
            return Err(bad("batch", "records, tokens and train.steps must be 1 or more"));
        }
        if self.prompt.loss_on != LossOn::Completion {
            return Err(bad("prompt.loss_on", "choices are scored by their own tokens: completion"));
        }
        if self.contexts.substitute_rate > 0.0 || self.contexts.without_golden == WithoutGolden::Abstain {
            return Err(bad("contexts", "choices are what they are: no substitutes, and no abstaining"));
        }
        if self.eval.stop.is_some() && (self.eval.every_steps == 0 || tasks.iter().all(|t| t.dev.is_none())) {
            return Err(bad("eval.stop", "needs a task with `dev`, and `eval.every_steps`"));
        }
        self.loss.check()?;
        self.contexts.check()
    }
}
