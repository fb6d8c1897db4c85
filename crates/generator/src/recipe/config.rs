//! The configs of generator training: a file a recipe, and here the tables that they share.

mod distil;
mod preference;
mod sft;
mod tfew;

pub use distil::{DistilConfig, Objective, SequenceConfig, TeacherCache, TeacherConfig, TopKConfig};
pub use preference::{PreferenceConfig, PreferenceEvalConfig};
pub use sft::{SftConfig, SftEvalConfig};
pub use tfew::{TaskConfig, TfewBatchConfig, TfewConfig, TfewDataConfig, TfewEvalConfig};

use crate::error::{Result, bad};
use crate::scratch::ScratchGenerator;
use ragduet_data::{Columns, RecordFormat};
use ragduet_torch::Quantize;
use ragduet_train::check_dropout;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Base model: either `base` or `[model.scratch]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Base model: folder, Hugging Face id or GGUF file.
    pub base: Option<String>,
    /// New small model with random weights; its tokenizer is trained on the data.
    pub scratch: Option<ScratchGenerator>,
    /// Dropout of hidden layers during training; absent: the base model's.
    pub dropout: Option<f64>,
    /// Dropout of attention probabilities during training; absent: the base model's.
    pub attention_dropout: Option<f64>,
    /// Activation checkpointing: layer activations are recomputed in the backward pass. Less memory, about a third more
    /// time. Decoder-only models.
    pub recompute: bool,
    /// Quantization of the base model's frozen weights: `none`, `int8` or `nf4` (QLoRA). Needs `[peft]`; matrix products
    /// run in `run.precision`.
    pub quantize: Quantize,
}

impl ModelConfig {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<()> {
        if self.base.is_some() == self.scratch.is_some() {
            return Err(bad("model", "give one of `base` (a folder or hub id) and `[model.scratch]`"));
        }
        check_dropout(self.dropout, self.attention_dropout).map_err(|(key, why)| bad(key, why))
    }
}

/// Files of records (see `ragduet_data::read_records`): questions with passages, conversations, prompts with
/// completions, instructions. For preferences see `ragduet_data::read_preferences`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training set: a file, a folder of files, a pattern such as `data/*.jsonl`, or a list of them.
    #[serde(deserialize_with = "ragduet_data::path_or_list")]
    #[schemars(with = "ragduet_data::OneOrMore")]
    pub train: PathBuf,
    /// Record format; absent: detected from the columns, row by row.
    #[serde(default)]
    pub format: Option<RecordFormat>,
    /// Bad rows are moved to `bad_rows.jsonl` in the run folder and counted, instead of stopping the run.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Dev set, evaluated during training; absent: no evaluation.
    #[serde(default, deserialize_with = "ragduet_data::path_or_list_if")]
    #[schemars(with = "Option<ragduet_data::OneOrMore>")]
    pub dev: Option<PathBuf>,
    /// Columns of the data by role, for data with other names than those that are read: `query = "question"`. All data files
    /// of the run are read so.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

/// Batch size. Sequences are packed without padding; attention does not cross sequence borders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Tokens per forward pass.
    pub tokens: usize,
    /// Gradient accumulation: forward and backward passes per optimizer step. The loss is averaged over all of them.
    pub accumulate: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { tokens: 4096, accumulate: 1 }
    }
}

impl BatchConfig {
    /// Checks what types cannot.
    pub fn check(&self) -> Result<()> {
        match self.tokens == 0 || self.accumulate == 0 {
            true => Err(bad("batch", "tokens and accumulate must be 1 or more")),
            false => Ok(()),
        }
    }
}
