//! The config of `train retriever`.

use crate::evaluate::default_measures;
use crate::loss::LossConfig;
use crate::mining::MiningConfig;
use crate::representation::{LateConfig, Pooling, Similarity, SparseConfig};
use crate::teacher::TeacherConfig;
use crate::{Error, Result, ScratchModel};
use ragduet_data::{BatchConfig, Format};
use ragduet_metrics::Measure;
use ragduet_nn::peft::PeftConfig;
use ragduet_text::Prompts;
use ragduet_torch::{Precision, Quantize};
use ragduet_train::{OptimizerConfig, SaveConfig, StopConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that determines a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrieverConfig {
    /// Seeds weights, order, dropout and draws.
    #[serde(default)]
    pub seed: u64,
    /// auto, cpu, cuda or cuda:N.
    #[serde(default = "auto")]
    pub device: String,
    /// Compute precision.
    #[serde(default)]
    pub precision: Precision,
    /// The model to start from.
    pub model: ModelConfig,
    /// Trains an adapter over the transformer, not the transformer (a projection trains as it is).
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What to train on.
    pub data: DataConfig,
    /// What to minimise.
    #[serde(default)]
    pub loss: LossConfig,
    /// The factor of similarities in the loss.
    #[serde(default)]
    pub scale: ScaleConfig,
    /// How examples form batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Batches larger than memory.
    #[serde(default)]
    pub grad_cache: Option<GradCacheConfig>,
    /// Length and rhythm of training.
    #[serde(default)]
    pub train: TrainConfig,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// Hard negatives.
    #[serde(default)]
    pub mining: Option<MiningConfig>,
    /// Whom it learns from (distillation): scores the negatives that are mined or given, or gives vectors, as the loss asks.
    #[serde(default)]
    pub teacher: Option<TeacherConfig>,
    /// Evaluation while training.
    #[serde(default)]
    pub eval: EvalConfig,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(RetrieverConfig);

pub(super) fn auto() -> String {
    "auto".into()
}

/// The model to start from: `base`, or `scratch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Folder or hub id.
    pub base: Option<String>,
    /// A new small encoder, with its tokenizer trained on the corpus.
    pub scratch: Option<ScratchModel>,
    /// Whether queries and passages have towers of their own (both start from `base`).
    pub separate_towers: bool,
    /// Token states to vector; as the base says, else mean.
    pub pooling: Option<Pooling>,
    /// Unit length; as the base says, else for cosine.
    pub normalize: Option<bool>,
    /// How embeddings are compared; as the base says, else cosine.
    pub similarity: Option<Similarity>,
    /// A new projection to this many dimensions.
    pub projection: Option<i64>,
    /// Texts in front of queries and passages; as the base says.
    pub prompts: Option<Prompts>,
    /// A vector for each token, compared by MaxSim (ColBERT); as the base says.
    pub late_interaction: Option<LateConfig>,
    /// A weight for every word of the vocabulary, compared by inner product (SPLADE); as the base says. A base without a
    /// masked language model's head gets a new one.
    pub sparse: Option<SparseConfig>,
    /// Longest query in tokens; absent: 64, or what a late-interaction base says, or 32 for a new one (the length to which
    /// its queries are filled up).
    pub max_query_tokens: Option<usize>,
    /// Longest passage in tokens; absent: 256, or what a late-interaction base says, or 180 for a new one.
    pub max_passage_tokens: Option<usize>,
    /// Dropout in the hidden layers while training, instead of the base's.
    pub dropout: Option<f64>,
    /// Dropout on attention probabilities while training, instead of the base's.
    pub attention_dropout: Option<f64>,
    /// Keeps the weights of the base's layers in 8 or 4 bits (QLoRA); they are computed with in `precision`. With [peft].
    pub quantize: Quantize,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            base: None,
            scratch: None,
            separate_towers: false,
            pooling: None,
            normalize: None,
            similarity: None,
            projection: None,
            prompts: None,
            late_interaction: None,
            sparse: None,
            max_query_tokens: None,
            max_passage_tokens: None,
            dropout: None,
            attention_dropout: None,
            quantize: Quantize::None,
        }
    }
}

impl ModelConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// Not one of base and scratch; a dropout out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        if self.base.is_some() == self.scratch.is_some() {
            return bad("model", "give one of `base` (a folder or hub id) and `[model.scratch]`");
        }
        if self.late_interaction.is_some() && self.sparse.is_some() {
            return bad("model", "give one of [model.late_interaction] and [model.sparse]");
        }
        let why = match (&self.late_interaction, &self.sparse) {
            (Some(_), _) => {
                "late interaction has a vector for each token, projected to model.late_interaction.dim"
            }
            (_, Some(_)) => "a sparse model has a weight for each word, compared by inner product",
            (None, None) => "",
        };
        for (key, given) in [
            ("model.pooling", self.pooling.is_some()),
            ("model.normalize", self.normalize.is_some()),
            ("model.similarity", self.similarity.is_some()),
            ("model.projection", self.projection.is_some()),
        ] {
            if given && !why.is_empty() {
                return bad(key, why);
            }
        }
        for (key, p) in [("model.dropout", self.dropout), ("model.attention_dropout", self.attention_dropout)]
        {
            if p.is_some_and(|p| !(0.0..1.0).contains(&p)) {
                return bad(key, "must be at least 0 and below 1");
            }
        }
        Ok(())
    }
}

/// What to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A BEIR directory or a file of examples.
    pub train: PathBuf,
    /// Its format, where the name does not show it.
    #[serde(default)]
    pub format: Option<Format>,
    /// Its split.
    #[serde(default)]
    pub split: Option<String>,
    /// Corpus that ids in the examples point to.
    #[serde(default)]
    pub corpus: Option<PathBuf>,
    /// Queries that ids in the examples point to.
    #[serde(default)]
    pub queries: Option<PathBuf>,
    /// What to evaluate on while training; absent: nothing.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Its split.
    #[serde(default = "dev")]
    pub dev_split: String,
    /// Move bad rows to `bad_rows.jsonl` in the run folder instead of stopping.
    #[serde(default)]
    pub skip_bad_rows: bool,
}

pub(super) fn dev() -> String {
    "dev".into()
}

/// 1 / temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScaleConfig {
    /// The factor, or where it starts.
    pub value: f64,
    /// Whether its logarithm is trained.
    pub learnable: bool,
    /// A learnable factor is kept at most this large, as CLIP does.
    pub max: f64,
}

impl Default for ScaleConfig {
    fn default() -> Self {
        Self { value: 20.0, learnable: false, max: 100.0 }
    }
}

/// Gradient caching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GradCacheConfig {
    /// Tokens that are embedded with a graph at a time.
    pub chunk_tokens: usize,
}

/// Length and rhythm of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: f64,
    /// Ends earlier, after this many optimiser steps.
    pub max_steps: Option<u64>,
    /// Batches per optimiser step.
    pub accumulate: u64,
    /// Negatives of its own that a query brings into a batch, drawn anew each epoch from those it has.
    pub negatives_per_query: usize,
    /// Which of a query's positives is used.
    pub positives: Positives,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            max_steps: None,
            accumulate: 1,
            negatives_per_query: 1,
            positives: Positives::First,
            log_every: 10,
        }
    }
}

/// Which of a query's positives is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positives {
    /// The first.
    First,
    /// One drawn anew each epoch.
    Sample,
}

/// Evaluation while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Optimiser steps between evaluations; 0: at the end only.
    pub every_steps: u64,
    /// What is measured. The first decides which model is best.
    #[schemars(with = "Vec<String>")]
    pub measures: Vec<Measure>,
    /// Passages ranked per query.
    pub depth: usize,
    /// Judge on the judged passages and a sample of the others, up to this many.
    pub max_passages: Option<usize>,
    /// Tokens per forward pass.
    pub batch_tokens: u64,
    /// Whether the model is measured before training, too.
    pub at_start: bool,
    /// When to give up.
    pub stop: Option<StopConfig>,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every_steps: 0,
            measures: default_measures(),
            depth: 1000,
            max_passages: None,
            batch_tokens: 8192,
            at_start: true,
            stop: None,
        }
    }
}

impl EvalConfig {
    /// Checks what types cannot. `dev`: whether there is something to evaluate on.
    pub(super) fn check(&self, dev: bool) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        if self.measures.is_empty() {
            return bad("eval.measures", "name at least one measure");
        }
        if self.stop.is_some() && (!dev || self.every_steps == 0) {
            return bad("eval.stop", "needs `data.dev` and `eval.every_steps`");
        }
        Ok(())
    }
}

impl RetrieverConfig {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        self.model.check()?;
        if self.train.epochs.is_nan() || self.train.epochs <= 0.0 {
            return bad("train.epochs", "must be above 0");
        }
        if self.train.accumulate == 0 {
            return bad("train.accumulate", "must be 1 or more");
        }
        if self.scale.value.is_nan() || self.scale.value <= 0.0 {
            return bad("scale.value", "must be above 0");
        }
        if self.optim.lr.is_nan() || self.optim.lr <= 0.0 {
            return bad("optim.lr", "must be above 0");
        }
        self.eval.check(self.data.dev.is_some())?;
        if self.grad_cache.is_some_and(|g| g.chunk_tokens == 0) {
            return bad("grad_cache.chunk_tokens", "must be 1 or more");
        }
        let loss = self.loss.build()?;
        if loss.needs_negatives() && self.train.negatives_per_query == 0 {
            return bad("train.negatives_per_query", "this loss compares with negatives of the query's own");
        }
        if loss.needs_teacher() && self.mining.is_some() && self.teacher.is_none() {
            return bad(
                "mining",
                "mined negatives have no teacher scores, which this loss needs: give a [teacher]",
            );
        }
        match &self.teacher {
            None if loss.needs_teacher_vectors() => {
                return bad("teacher.retriever", "this loss compares with a larger model's vectors");
            }
            Some(TeacherConfig::CrossEncoder(_)) if loss.needs_teacher_vectors() => {
                return bad("teacher", "a cross-encoder has no vectors, which this loss compares with");
            }
            Some(_) if !(loss.needs_teacher() || loss.needs_teacher_vectors()) => {
                let learn = LossConfig::names(|l| l.needs_teacher() || l.needs_teacher_vectors());
                return bad("teacher", &format!("this loss learns from no teacher; {learn} do"));
            }
            _ => {}
        }
        self.batch.validate()?;
        Ok(())
    }
}
