//! The config of classifier training.

use crate::error::{Result, bad};
use crate::labels::Task;
use crate::loss::ClassifierLoss;
use crate::scores::Measure;
use ragduet_nn::peft::PeftConfig;
use ragduet_torch::{Precision, Quantize};
use ragduet_train::{OptimizerConfig, SaveConfig, StopConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Fine-tuning of an encoder or a decoder-only model to say what texts, or pairs of texts, are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// In what precision matrix products run.
    #[serde(default)]
    pub precision: Precision,
    /// What kind of answer is learned.
    #[serde(default)]
    pub task: Task,
    /// The classes, in the order of the logits; absent: those of the training set, numbers in their order, names in the
    /// alphabet's.
    #[serde(default)]
    pub labels: Option<Vec<String>>,
    /// Where the model comes from.
    pub model: ModelConfig,
    /// Trains an adapter and the head, not the model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What it learns.
    pub data: DataConfig,
    /// What errors cost.
    #[serde(default)]
    pub loss: ClassifierLoss,
    /// Which texts an epoch has.
    #[serde(default)]
    pub sampling: SamplingConfig,
    /// Sizes of batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Length and rhythm.
    #[serde(default)]
    pub train: TrainConfig,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// The dev set while training.
    #[serde(default)]
    pub eval: EvalConfig,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(ClassifierConfig);

fn auto() -> String {
    "auto".into()
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder or hub id: of a bare model, or of a classifier, whose head goes on where the labels are the same.
    pub base: String,
    /// Longer texts are cut to so many tokens; absent: what the model can take.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Replaces the base's dropout in hidden layers and before the output.
    #[serde(default)]
    pub dropout: Option<f64>,
    /// Replaces the base's dropout on attention.
    #[serde(default)]
    pub attention_dropout: Option<f64>,
    /// Layers' inner values are made again in the backward pass: less memory, a third more time. Decoder-only models.
    #[serde(default)]
    pub recompute: bool,
    /// Keeps the weights of the base's layers in 8 or 4 bits (QLoRA); they are computed with in `precision`. With [peft].
    #[serde(default)]
    pub quantize: Quantize,
}

/// Files of labelled texts (see `ragduet_data::read_labelled`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// What is learned.
    pub train: PathBuf,
    /// What is measured while training; absent: nothing.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Move bad rows to `bad_rows.jsonl` in the run folder instead of stopping.
    #[serde(default)]
    pub skip_bad_rows: bool,
}

/// Which texts an epoch has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Every class equally often: texts of small ones again and again, of large ones a part. Else each text once.
    pub balanced: bool,
}

/// Sizes of batches. Texts are laid one after another without padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Texts of a forward pass.
    pub size: usize,
    /// Forward passes per optimiser step; the loss is the mean over the texts of all of them.
    pub accumulate: usize,
    /// Tokens of a forward pass when measuring.
    pub eval_tokens: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { size: 32, accumulate: 1, eval_tokens: 16_384 }
    }
}

/// Length and rhythm of training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// The dev set while training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Optimiser steps between evaluations; 0: at the end of each epoch.
    pub every_steps: u64,
    /// The figure by which the best model is chosen; absent: accuracy, micro F1 or squared error, by task.
    pub measure: Option<Measure>,
    /// When to give up.
    pub stop: Option<StopConfig>,
}

impl ClassifierConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    pub fn validate(&self) -> Result<()> {
        for (key, p) in [("dropout", self.model.dropout), ("attention_dropout", self.model.attention_dropout)]
        {
            if p.is_some_and(|p| !(0.0..1.0).contains(&p)) {
                return Err(bad(&format!("model.{key}"), "must be at least 0 and below 1"));
            }
        }
        if self.batch.size == 0 || self.batch.accumulate == 0 || self.batch.eval_tokens == 0 {
            return Err(bad("batch", "size, accumulate and eval_tokens must be 1 or more"));
        }
        if self.train.epochs == 0 {
            return Err(bad("train.epochs", "must be 1 or more"));
        }
        if self.sampling.balanced && self.task != Task::Classification {
            return Err(bad("sampling.balanced", "is for task = \"classification\""));
        }
        if self.labels.is_some() && self.task == Task::Regression {
            return Err(bad("labels", "a regression has none"));
        }
        if self.eval.stop.is_some() && self.data.dev.is_none() {
            return Err(bad("eval.stop", "needs `data.dev`"));
        }
        let fits = |m: Measure| match self.task {
            Task::Regression => matches!(m, Measure::Pearson | Measure::Spearman | Measure::Mse),
            _ => matches!(m, Measure::Accuracy | Measure::MacroF1 | Measure::MicroF1),
        };
        if self.eval.measure.is_some_and(|m| !fits(m)) {
            return Err(bad("eval.measure", "the task has no such figure"));
        }
        Ok(())
    }
}
