//! The config of `train classifier`.

use super::model_config::ModelConfig;
use crate::error::{Result, bad};
use crate::labels::Task;
use crate::loss::ClassifierLoss;
use crate::scores::Measure;
use ragduet_data::Columns;
use ragduet_nn::peft::PeftConfig;
use ragduet_train::{OptimizerConfig, RecipeConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

ragduet_train::recipe_config! {
    /// Sequence classification or regression: fine-tuning of an encoder or a decoder-only model on labelled texts or pairs
    /// of texts.
    pub struct ClassifierConfig {
        /// Kind of labels: one class, several classes, a number.
        #[serde(default)]
        pub task: Task,
        /// Classes, in the order of the logits; absent: those of the training set, numbers by value, names alphabetically.
        #[serde(default)]
        pub labels: Option<Vec<String>>,
        /// Base model.
        pub model: ModelConfig,
        /// Parameter-efficient fine-tuning: trains an adapter and the head over the frozen model.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Training set and dev set.
        pub data: DataConfig,
        /// Training loss.
        #[serde(default)]
        pub loss: ClassifierLoss,
        /// Sampling of an epoch's texts.
        #[serde(default)]
        pub sampling: SamplingConfig,
        /// Batch size.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
        /// Evaluation on the dev set during training.
        #[serde(default)]
        pub eval: EvalConfig,
    }
    epochs = 3.0
}

/// Files of labelled texts (see `ragduet_data::read_labelled`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training set: a file, a folder of files, a pattern such as `data/*.jsonl`, or a list of them.
    #[serde(deserialize_with = "ragduet_data::path_or_list")]
    #[schemars(with = "ragduet_data::OneOrMore")]
    pub train: PathBuf,
    /// Dev set, evaluated during training; absent: no evaluation.
    #[serde(default, deserialize_with = "ragduet_data::path_or_list_if")]
    #[schemars(with = "Option<ragduet_data::OneOrMore>")]
    pub dev: Option<PathBuf>,
    /// Bad rows are moved to `bad_rows.jsonl` in the run folder and counted, instead of stopping the run.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Columns of the data by role, for data with other names than those that are read: `query = "question"`. All files
    /// of the run are read so.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

/// Sampling of an epoch's texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Class-balanced sampling: every class equally often, small ones repeated, large ones subsampled. False: each text
    /// once.
    pub balanced: bool,
}

/// Batch size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Texts per forward pass. Texts are packed without padding.
    pub size: usize,
    /// Gradient accumulation: forward and backward passes per optimizer step. The loss is averaged over all of them.
    pub accumulate: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { size: 32, accumulate: 1 }
    }
}

ragduet_train::eval_config! {
    /// Evaluation on the dev set during training.
    pub struct EvalConfig {
        /// Measure that chooses the best model; absent: accuracy, micro F1 or mean squared error, by task.
        pub measure: Option<Measure> = None,
        /// Tokens per forward pass during evaluation.
        pub batch_tokens: usize = 16_384,
    }
}

impl ClassifierConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    pub fn validate(&self) -> Result<()> {
        self.model.check()?;
        if self.batch.size == 0 || self.batch.accumulate == 0 {
            return Err(bad("batch", "size and accumulate must be 1 or more"));
        }
        if self.eval.batch_tokens == 0 {
            return Err(bad("eval.batch_tokens", "must be 1 or more"));
        }
        if self.sampling.balanced && self.task != Task::Classification {
            return Err(bad("sampling.balanced", "is for task = \"classification\""));
        }
        if self.labels.is_some() && self.task == Task::Regression {
            return Err(bad("labels", "a regression has none"));
        }
        self.eval().check(self.data.dev.is_some()).map_err(|(key, why)| bad(key, why))?;
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
