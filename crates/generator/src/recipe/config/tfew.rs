//! The config of T-Few.

use super::ModelConfig;
use crate::contexts::{ContextConfig, WithoutGolden};
use crate::error::{Result, bad};
use crate::loss::TfewLoss;
use crate::prepare::PromptConfig;
use ragduet_data::{Columns, Mixing};
use ragduet_nn::peft::PeftConfig;
use ragduet_text::LossOn;
use ragduet_train::{OptimizerConfig, OptimizerName, RecipeConfig, ScheduleConfig, Warmup, recipe_config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

recipe_config! {
    /// Few-shot learning from multiple-choice records, on one task or a mixture: T-Few (Liu et al., 2022, arXiv
    /// 2205.05638). Pre-training: a mixture, many steps and a new adapter. Adaptation: that run's `best/` as `model.base`
    /// and no `[peft]`. Without `run.epochs` and `run.max_steps` it has the paper's 1,000 steps.
    pub struct TfewConfig {
        /// Base model: a model, or an adapter folder whose training continues.
        pub model: ModelConfig,
        /// Parameter-efficient fine-tuning: trains a new adapter over the frozen model.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Tasks.
        pub data: TfewDataConfig,
        /// Selection of passages for training prompts, sampled anew each epoch.
        #[serde(default)]
        pub contexts: ContextConfig,
        /// Prompt format and length limit.
        #[serde(default)]
        pub prompt: PromptConfig,
        /// Weights of the three losses.
        #[serde(default)]
        pub loss: TfewLoss,
        /// Batch size.
        #[serde(default)]
        pub batch: TfewBatchConfig,
        /// Optimizer and learning-rate schedule.
        #[serde(default = "paper")]
        pub optim: OptimizerConfig,
        /// Evaluation during training: rank classification of the dev sets. Mean accuracy over tasks chooses the best
        /// model and stops early.
        #[serde(default)]
        pub eval: TfewEvalConfig,
    }
    epochs = 1.0
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
pub struct TfewDataConfig {
    /// Tasks; several are mixed record by record.
    pub tasks: Vec<TaskConfig>,
    /// Bad rows are moved to `bad_rows.jsonl` in the run folder and counted, instead of stopping the run.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Columns of the data by role, for data with other names than those that are read: `query = "question"`. All files
    /// of the run are read so.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Task name in tables, for records without one of their own.
    pub name: String,
    /// Training set.
    pub train: PathBuf,
    /// Dev set, evaluated during training; absent: no evaluation.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Number of training records, sampled with the run's seed (few-shot learning); absent: all.
    #[serde(default)]
    pub shots: Option<usize>,
    /// Sampling weight relative to the other tasks; given for all tasks or for none. Absent: every record of every task
    /// once per epoch.
    #[serde(default)]
    pub weight: Option<f64>,
}

/// Sizes of batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TfewBatchConfig {
    /// Records per optimiser step, each with all its choices.
    pub size: usize,
    /// Tokens per forward pass; a step takes as many passes as it needs. The choices of a record stay in one pass;
    /// records with more tokens are dropped and counted.
    pub tokens: usize,
}

impl Default for TfewBatchConfig {
    fn default() -> Self {
        Self { size: 8, tokens: 8192 }
    }
}

ragduet_train::eval_config! {
    /// Choosing answers on the dev sets while training.
    pub struct TfewEvalConfig {
        /// Passages per prompt, the top retrieved ones; absent: as in training.
        pub contexts: Option<usize> = None,
        /// Number of dev records per task, the first of the file; 0 or absent: all.
        pub limit: usize = 0,
    }
}

impl TfewConfig {
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
        if self.batch.size == 0 || self.batch.tokens == 0 {
            return Err(bad("batch", "size and tokens must be 1 or more"));
        }
        if self.prompt.loss_on != LossOn::Completion {
            return Err(bad("prompt.loss_on", "choices are scored by their own tokens: completion"));
        }
        if self.contexts.excerpt_epochs > 0 {
            return Err(bad(
                "contexts.excerpt_epochs",
                "T-Few counts steps, not epochs: passages stay whole",
            ));
        }
        if self.contexts.substitute_rate > 0.0 || self.contexts.without_golden == WithoutGolden::Abstain {
            return Err(bad("contexts", "choices are what they are: no substitutes, and no abstaining"));
        }
        let dev = tasks.iter().any(|t| t.dev.is_some());
        RecipeConfig::eval(self).check(dev).map_err(|(key, why)| bad(key, why))?;
        self.loss.check()?;
        self.contexts.check()
    }
}
