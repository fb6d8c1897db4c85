//! The config of `train contriever`.

use crate::recipe::config::{EvalConfig, GradCacheConfig, ModelConfig, dev};
use crate::{Error, Result};
use ragduet_data::{Columns, Format};
use ragduet_train::{OptimizerConfig, RecipeConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

ragduet_train::recipe_config! {
    /// Unsupervised training of a dense retriever from plain text (Contriever: Izacard et al., 2021, arXiv 2112.09118).
    pub struct ContrieverConfig {
        /// Base model: one shared encoder, trained in full.
        pub model: ModelConfig,
        /// Corpus.
        pub data: CorpusConfig,
        /// Chunking of the corpus.
        #[serde(default)]
        pub chunks: ChunkConfig,
        /// Random cropping of a chunk into a query and its positive.
        #[serde(default)]
        pub crops: CropConfig,
        /// Source of negatives: a queue with a momentum encoder (MoCo), or the batch.
        #[serde(default)]
        pub form: FormConfig,
        /// Training loss.
        #[serde(default)]
        pub loss: ContrastConfig,
        /// Batch size.
        #[serde(default)]
        pub batch: ChunkBatchConfig,
        /// Gradient caching (GradCache): batches larger than memory.
        #[serde(default)]
        pub grad_cache: Option<GradCacheConfig>,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
        /// Evaluation on the dev set during training.
        #[serde(default)]
        pub eval: EvalConfig,
    }
    epochs = 10.0
}

/// Corpus. Only the texts are read; queries and relevance judgements are not used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// Files or folders of passages, concatenated to one corpus: BEIR, JSON Lines, Parquet, TSV, plain text.
    pub train: Vec<PathBuf>,
    /// Format of the corpus; absent: detected from the name. Use `paragraphs` for plain text with blank lines between
    /// passages.
    #[serde(default)]
    pub format: Option<Format>,
    /// Bad rows are moved to `bad_rows.jsonl` in the run folder and counted, instead of stopping the run.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Split of the dev set.
    #[serde(default = "dev")]
    pub dev_split: String,
    /// Dev set, evaluated during training to choose the best model; absent: no evaluation.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Columns of the data by role, for data with other names than those that are read: `query = "question"`. All files
    /// of the run are read so.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

/// Chunking of the corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkConfig {
    /// Maximum tokens of a chunk. Longer texts are split into chunks of about equal length.
    pub tokens: usize,
    /// Minimum tokens of a chunk; shorter chunks are dropped and counted.
    pub min_tokens: usize,
    /// Whether texts are concatenated before chunking, as in the authors' code. The two crops of a chunk may then come
    /// from different texts; meant for texts much longer than a chunk.
    pub across_texts: bool,
}

impl Default for ChunkConfig {
    fn default() -> Self {
        Self { tokens: 256, min_tokens: 8, across_texts: false }
    }
}

/// Random crops. A token of a crop is deleted, replaced, masked or kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CropConfig {
    /// Lower bound of a crop's length as a share of its chunk (uniform distribution).
    pub ratio_min: f64,
    /// Upper bound of a crop's length as a share of its chunk.
    pub ratio_max: f64,
    /// Probability that a token is deleted.
    pub delete: f64,
    /// Probability that a token is replaced by a random one of the vocabulary.
    pub replace: f64,
    /// Probability that a token is replaced by the mask token.
    pub mask: f64,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self { ratio_min: 0.05, ratio_max: 0.5, delete: 0.1, replace: 0.0, mask: 0.0 }
    }
}

/// Source of the negatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormConfig {
    /// Momentum contrast: a queue of keys from past batches, computed by a momentum encoder.
    Moco(MocoConfig),
    /// In-batch negatives; both crops receive gradients.
    InBatch(InBatchConfig),
}

impl Default for FormConfig {
    fn default() -> Self {
        Self::Moco(MocoConfig::default())
    }
}

/// Momentum contrast (MoCo: He et al., 2019, arXiv 1911.05722).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MocoConfig {
    /// Keys in the queue. On a small corpus it should be below the number of chunks.
    pub queue_size: usize,
    /// Momentum of the key encoder: keys = momentum * keys + (1 - momentum) * queries, per step.
    pub momentum: f64,
    /// Whether the key encoder uses dropout, as in the authors' code.
    pub key_dropout: bool,
}

impl Default for MocoConfig {
    fn default() -> Self {
        Self { queue_size: 131_072, momentum: 0.9995, key_dropout: true }
    }
}

/// In-batch negatives; no settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InBatchConfig {}

/// Contrastive loss (InfoNCE).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastConfig {
    /// Temperature: similarities are divided by it.
    pub temperature: f64,
    /// Label smoothing: share of the target distribution spread evenly over the candidates.
    pub label_smoothing: f64,
}

impl Default for ContrastConfig {
    fn default() -> Self {
        Self { temperature: 0.05, label_smoothing: 0.0 }
    }
}

/// Batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkBatchConfig {
    /// Chunks per optimizer step, each with two crops.
    pub size: usize,
}

impl Default for ChunkBatchConfig {
    fn default() -> Self {
        Self { size: 64 }
    }
}

impl ContrieverConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        self.model.check()?;
        if self.model.separate_towers {
            return bad("model.separate_towers", "queries and keys are crops alike: one encoder is trained");
        }
        if self.model.quantize.bits().is_some() {
            return bad("model.quantize", "the encoder trains whole: quantised weights do not learn");
        }
        if self.data.train.is_empty() {
            return bad("data.train", "name at least one file or folder");
        }
        if self.chunks.tokens == 0 || self.chunks.min_tokens == 0 {
            return bad("chunks", "tokens and min_tokens must be 1 or more");
        }
        if self.chunks.min_tokens > self.chunks.tokens {
            return bad("chunks.min_tokens", "no chunk has more than chunks.tokens");
        }
        let c = &self.crops;
        // Written so that NaN fails.
        if !(c.ratio_min > 0.0 && c.ratio_min <= c.ratio_max && c.ratio_max <= 1.0) {
            return bad("crops", "0 < ratio_min <= ratio_max <= 1 is needed");
        }
        let fates = [c.delete, c.replace, c.mask];
        if !fates.iter().all(|p| (0.0..1.0).contains(p)) || fates.iter().sum::<f64>() >= 1.0 {
            return bad("crops", "delete, replace and mask must be at least 0, and less than 1 together");
        }
        if let FormConfig::Moco(m) = &self.form {
            if m.queue_size < self.batch.size {
                return bad(
                    "form.moco.queue_size",
                    "it must hold the keys of one batch (batch.size) at least",
                );
            }
            if !(0.0..=1.0).contains(&m.momentum) {
                return bad("form.moco.momentum", "must be from 0 to 1");
            }
        } else if self.batch.size < 2 {
            return bad("batch.size", "negatives from the batch need 2 or more");
        }
        if !(self.loss.temperature > 0.0 && self.loss.temperature.is_finite()) {
            return bad("loss.temperature", "must be above 0");
        }
        if !(0.0..1.0).contains(&self.loss.label_smoothing) {
            return bad("loss.label_smoothing", "must be at least 0 and below 1");
        }
        if self.batch.size == 0 {
            return bad("batch.size", "must be 1 or more");
        }
        if self.grad_cache.is_some_and(|g| g.chunk_tokens == 0) {
            return bad("grad_cache.chunk_tokens", "must be 1 or more");
        }
        self.eval.check(self.eval(), self.data.dev.is_some())
    }
}
