//! The config of `train retriever`.

use crate::evaluate::default_measures;
use crate::loss::{LossConfig, RetrievalLoss};
use crate::mining::MiningConfig;
use crate::representation::{LateConfig, Pooling, Similarity, SparseConfig};
use crate::teacher::TeacherConfig;
use crate::{Error, Result, ScratchModel};
use ragduet_data::{
    BatchConfig as Plan, BatchSize, Columns, Format, LengthGrouping, MissingPolicy, PairLabels, ReadOptions,
};
use ragduet_metrics::Measure;
use ragduet_nn::peft::PeftConfig;
use ragduet_text::Prompts;
use ragduet_torch::Quantize;
use ragduet_train::{EvalSchedule, OptimizerConfig, RecipeConfig, check_dropout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

ragduet_train::recipe_config! {
    /// Training of a retriever: dense (one vector per text), late interaction (one vector per token) or sparse.
    pub struct RetrieverConfig {
        /// Base model, architecture of the retriever, length limits.
        pub model: ModelConfig,
        /// Parameter-efficient fine-tuning: trains an adapter over the frozen transformer. A new projection is always
        /// trained in full.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Training set and dev set.
        pub data: DataConfig,
        /// Training loss.
        #[serde(default)]
        pub loss: LossConfig,
        /// Temperature of the similarities in the loss.
        #[serde(default)]
        pub temperature: TemperatureConfig,
        /// Batch size and composition.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Gradient caching (GradCache): batches larger than memory.
        #[serde(default)]
        pub grad_cache: Option<GradCacheConfig>,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
        /// Hard-negative mining.
        #[serde(default)]
        pub mining: Option<MiningConfig>,
        /// Teacher model for distillation. Depending on the loss it scores the negatives, or gives embeddings.
        #[serde(default)]
        pub teacher: Option<TeacherConfig>,
        /// Evaluation on the dev set during training.
        #[serde(default)]
        pub eval: EvalConfig,
    }
    epochs = 1.0
}

/// Base model: either `base` or `[model.scratch]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Base model: folder, Hugging Face id or GGUF file.
    pub base: Option<String>,
    /// New small encoder with random weights; its tokenizer is trained on the corpus.
    pub scratch: Option<ScratchModel>,
    /// Separate encoders for queries and passages, both initialized from `base`; false: one shared encoder.
    pub separate_towers: bool,
    /// Pooling of token states to one vector: `mean`, `cls` or `last_token`; absent: as the base model says, else
    /// `last_token` of a decoder whose tokens see no later ones, and `mean` of other models.
    pub pooling: Option<Pooling>,
    /// Normalization of embeddings to unit length; absent: as the base model says, else true for cosine.
    pub normalize: Option<bool>,
    /// Similarity of two embeddings: `cosine` or `dot`; absent: as the base model says, else `cosine`.
    pub similarity: Option<Similarity>,
    /// Output dimension of a new linear projection after pooling; absent: no new projection.
    pub projection: Option<i64>,
    /// Prefix texts (prompts) of queries and passages; absent: as the base model says.
    pub prompts: Option<Prompts>,
    /// Late interaction (ColBERT): one vector per token, scored by MaxSim; absent: as the base model says.
    pub late_interaction: Option<LateConfig>,
    /// Sparse retrieval (SPLADE): one weight per vocabulary term, scored by inner product; absent: as the base model
    /// says. A base model without a masked-language-model head gets a new, random one.
    pub sparse: Option<SparseConfig>,
    /// Maximum query length in tokens; longer queries are truncated. Absent: what the base model
    /// reads; for a new one 64, with late interaction 32 (queries are padded with [MASK] to this length).
    pub max_query_tokens: Option<usize>,
    /// Maximum passage length in tokens; longer passages are truncated. Absent: what the base
    /// model reads; for a new one 256, with late interaction 180.
    pub max_passage_tokens: Option<usize>,
    /// Dropout of hidden layers during training; absent: the base model's.
    pub dropout: Option<f64>,
    /// Dropout of attention probabilities during training; absent: the base model's.
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
        check_dropout(self.dropout, self.attention_dropout).or_else(|(key, why)| bad(key, why))
    }
}

/// Training set and dev set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training set: a BEIR folder, a file of examples, a pattern such as `data/*.jsonl`, or a list of files.
    #[serde(deserialize_with = "ragduet_data::path_or_list")]
    #[schemars(with = "ragduet_data::OneOrMore")]
    pub train: PathBuf,
    /// Format of the training set; absent: detected from the name.
    #[serde(default)]
    pub format: Option<Format>,
    /// Split of the training set; absent: `train` (BEIR and MS MARCO folders only).
    #[serde(default)]
    pub split: Option<String>,
    /// Corpus file, for examples that refer to passages by id.
    #[serde(default, deserialize_with = "ragduet_data::path_or_list_if")]
    #[schemars(with = "Option<ragduet_data::OneOrMore>")]
    pub corpus: Option<PathBuf>,
    /// Query file, for examples that refer to queries by id.
    #[serde(default)]
    pub queries: Option<PathBuf>,
    /// Threshold for pairs with a score, and lists of documents with scores: from this score on a passage is relevant,
    /// below it a negative. Absent: a label must be 1 or 0, unless the loss learns from scores.
    #[serde(default)]
    pub min_score: Option<f64>,
    /// Labels of pairs are NLI classes: an entailment is a positive, a contradiction a hard negative, neutral pairs are
    /// left out and counted.
    #[serde(default)]
    pub nli: bool,
    /// Dev set, evaluated during training; absent: no evaluation.
    #[serde(default, deserialize_with = "ragduet_data::path_or_list_if")]
    #[schemars(with = "Option<ragduet_data::OneOrMore>")]
    pub dev: Option<PathBuf>,
    /// Split of the dev set.
    #[serde(default = "dev")]
    pub dev_split: String,
    /// Bad rows are moved to `bad_rows.jsonl` in the run folder and counted, instead of stopping the run.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Judgements whose query has no text or whose passage the corpus lacks: `warn` leaves them out and counts them,
    /// `error` stops the run.
    #[serde(default)]
    pub missing: MissingPolicy,
    /// Columns of the data by role, for data with other names than those that are read: `query = "question"`. All files
    /// of the run are read so.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

impl DataConfig {
    /// How the training set is read. `scores`: whether the loss learns from the scores of pairs.
    ///
    /// # Errors
    /// A threshold beside NLI classes.
    pub fn options(&self, scores: bool) -> Result<ReadOptions> {
        let (format, split) = (self.format, self.split.clone());
        let (corpus, queries) = (self.corpus.clone(), self.queries.clone());
        Ok(ReadOptions { format, split, corpus, queries, labels: self.labels(scores)? })
    }

    /// How the dev set is read.
    ///
    /// # Errors
    /// As [`DataConfig::options`].
    pub fn dev_options(&self) -> Result<ReadOptions> {
        Ok(ReadOptions {
            split: Some(self.dev_split.clone()),
            labels: self.labels(false)?,
            ..ReadOptions::default()
        })
    }

    fn labels(&self, scores: bool) -> Result<PairLabels> {
        let said = PairLabels::of(self.min_score, self.nli)
            .map_err(|why| Error::Config { key: "data".into(), why })?;
        Ok(if scores && said == PairLabels::Judgements { PairLabels::Scores } else { said })
    }
}

pub(super) fn dev() -> String {
    "dev".into()
}

/// Temperature of the similarities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TemperatureConfig {
    /// Temperature: similarities are divided by it. The initial value if it is learnable.
    pub value: f64,
    /// Whether the temperature is trained (in log space, as CLIP does).
    pub learnable: bool,
    /// Lower bound of a learnable temperature.
    pub min: f64,
}

impl Default for TemperatureConfig {
    fn default() -> Self {
        Self { value: 0.05, learnable: false, min: 0.01 }
    }
}

/// Gradient caching (Gao et al., 2021, arXiv 2101.06983).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GradCacheConfig {
    /// Tokens per chunk: the largest amount that is encoded with activations kept.
    pub chunk_tokens: usize,
}

/// Batch size and composition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Batch size, in examples or in tokens.
    pub size: BatchSize,
    /// Gradient accumulation: forward and backward passes per optimizer step. The loss is averaged over all of them.
    pub accumulate: usize,
    /// Hard negatives per query in a batch, sampled anew each epoch from those the query has.
    pub negatives_per_query: usize,
    /// Choice among several positives of a query: `first` or `sample`.
    pub positives: Positives,
    /// Grouping of examples of similar length.
    pub length_grouping: LengthGrouping,
    /// Whether a query, its known positives and its own copies occur once in a batch, as far as full batches allow.
    /// Those that meet are no negatives of one another.
    pub no_duplicates: bool,
    /// Whether an incomplete last batch of an epoch is dropped.
    pub drop_last: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        let Plan { size, length_grouping, no_duplicates, drop_last } = Plan::default();
        let positives = Positives::Sample;
        Self {
            size,
            accumulate: 1,
            negatives_per_query: 1,
            positives,
            length_grouping,
            no_duplicates,
            drop_last,
        }
    }
}

impl BatchConfig {
    /// How an epoch is planned.
    pub(super) fn plan(&self) -> Plan {
        let (size, length_grouping) = (self.size, self.length_grouping);
        Plan { size, length_grouping, no_duplicates: self.no_duplicates, drop_last: self.drop_last }
    }
}

/// Choice among several positives of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positives {
    /// The first positive.
    First,
    /// One positive, sampled anew each epoch.
    Sample,
}

ragduet_train::eval_config! {
    /// Evaluation on the dev set during training.
    pub struct EvalConfig {
        /// Measures, such as `ndcg@10`; the first one chooses the best model.
        #[schemars(with = "Vec<String>")]
        pub measures: Vec<Measure> = default_measures(),
        /// Passages ranked per query.
        pub depth: usize = 1000,
        /// Upper bound of the evaluated corpus: all judged passages and a random sample of the others; absent: the whole
        /// corpus.
        pub max_passages: Option<usize> = None,
        /// Tokens per forward pass during evaluation.
        pub batch_tokens: u64 = 8192,
    }
}

impl EvalConfig {
    /// Checks what types cannot. `dev`: whether there is something to evaluate on.
    pub(super) fn check(&self, schedule: EvalSchedule, dev: bool) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        if self.measures.is_empty() {
            return bad("eval.measures", "name at least one measure");
        }
        schedule.check(dev).or_else(|(key, why)| bad(key, why))
    }
}

impl RetrieverConfig {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        self.validate_for(&*self.loss.build()?)
    }

    /// [`RetrieverConfig::validate`] where another loss than that of `[loss]` is trained with.
    pub(super) fn validate_for(&self, loss: &dyn RetrievalLoss) -> Result<()> {
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        self.model.check()?;
        if self.batch.accumulate == 0 {
            return bad("batch.accumulate", "must be 1 or more");
        }
        let above_0 = |t: f64| t > 0.0 && t.is_finite();
        if !above_0(self.temperature.value) || !above_0(self.temperature.min) {
            return bad("temperature", "value and min must be above 0");
        }
        if self.optim.lr.is_nan() || self.optim.lr <= 0.0 {
            return bad("optim.lr", "must be above 0");
        }
        self.eval.check(self.eval(), self.data.dev.is_some())?;
        if self.grad_cache.is_some_and(|g| g.chunk_tokens == 0) {
            return bad("grad_cache.chunk_tokens", "must be 1 or more");
        }
        if loss.needs_negatives() && self.batch.negatives_per_query == 0 {
            return bad("batch.negatives_per_query", "this loss compares with negatives of the query's own");
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
        self.batch.plan().validate()?;
        Ok(())
    }
}
