//! The config of `train joint`.

use super::alternation::Alternation;
use crate::Result;
use crate::diagnose::AlarmConfig;
use crate::error::bad;
use crate::objective::ObjectiveConfig;
use crate::refresh::RefreshConfig;
use crate::retrieve::RetrievalConfig;
use ragduet_data::{Columns, MissingPolicy};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::decode::DecodeConfig;
use ragduet_generator::loss::{LikelihoodScope, PreferenceLossConfig};
use ragduet_generator::prepare::PromptConfig;
use ragduet_generator::recipe::config::ModelConfig as GeneratorModel;
use ragduet_nn::peft::PeftConfig;
use ragduet_retriever::recipe::config::{GradCacheConfig, ModelConfig as RetrieverModel};
use ragduet_torch::Precision;
use ragduet_train::{OptimizerConfig, RecipeConfig, StopConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

ragduet_train::recipe_config! {
    /// Joint training of a retriever and a generator.
    pub struct JointConfig {
        /// Questions, answers and the corpus.
        pub data: DataConfig,
        /// Retriever: model, optimizer, which encoders are trained.
        pub retriever: RetrieverSide,
        /// Generator: model, prompt, loss, optimizer.
        pub generator: GeneratorSide,
        /// Retrieval during training.
        #[serde(default)]
        pub retrieval: RetrievalConfig,
        /// Index refresh: when the corpus is re-encoded with the current passage encoder.
        #[serde(default)]
        pub refresh: RefreshConfig,
        /// Retriever objective: how the generator's likelihoods supervise the retriever.
        pub objective: ObjectiveConfig,
        /// Additional in-batch contrastive loss. Absent: none.
        #[serde(default)]
        pub contrastive: Option<ContrastiveConfig>,
        /// Alternation: both models in every step, or in turns.
        #[serde(default)]
        pub alternation: Alternation,
        /// Batch size.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Evaluation on the dev set during training: retrieval and generated answers. The index is refreshed for it.
        /// Where turns are measured, each turn ends with one. Early stopping, of the whole run, is by `best`.
        #[serde(default)]
        pub eval: EvalConfig,
        /// Thresholds of the diagnostic alarms.
        #[serde(default)]
        pub alarm: AlarmConfig,
    }
    epochs = 1.0
}

/// Questions, answers and the corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training questions: a BEIR folder with `answers.jsonl`, or a file of records (see
    /// `ragduet_data::read_questions`).
    pub train: PathBuf,
    /// Split of the training questions (BEIR folders only).
    #[serde(default = "train_split")]
    pub split: String,
    /// Number of training questions, the first of the split; 0: all.
    #[serde(default)]
    pub limit: usize,
    /// Answers by question id; absent: `answers.jsonl` of the folder.
    #[serde(default)]
    pub answers: Option<PathBuf>,
    /// Corpus; absent: that of the BEIR folder.
    #[serde(default, deserialize_with = "ragduet_data::path_or_list_if")]
    #[schemars(with = "Option<ragduet_data::OneOrMore>")]
    pub corpus: Option<PathBuf>,
    /// Dev questions, evaluated during training; absent: no evaluation.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Split of the dev set.
    #[serde(default = "dev_split")]
    pub dev_split: String,
    /// Bad rows are moved to `bad_rows.jsonl` in the run folder and counted, instead of stopping the run.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Columns of the data by role, for data with other names than those that are read: `query = "question"`. All files
    /// of the run are read so.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
    /// Judgements whose query has no text or whose passage the corpus lacks: `warn` leaves them out and counts them,
    /// `error` stops the run.
    #[serde(default)]
    pub missing: MissingPolicy,
}

fn train_split() -> String {
    "train".into()
}

fn dev_split() -> String {
    "dev".into()
}

/// Encoders that are trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Towers {
    /// Query encoder only (a separate copy if the base shares one encoder). The passage index never becomes stale.
    #[default]
    Query,
    /// Query and passage encoder.
    Both,
}

/// Retriever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrieverSide {
    /// Base model.
    pub model: RetrieverModel,
    /// Compute precision of the retriever; absent: `run.precision`.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Parameter-efficient fine-tuning: trains an adapter over the frozen transformer.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// Encoders that are trained: `query` or `both`.
    #[serde(default)]
    pub towers: Towers,
    /// Optimizer; its schedule counts the retriever's own steps.
    #[serde(default = "gentle")]
    pub optim: OptimizerConfig,
    /// Frozen: the retriever is not trained.
    #[serde(default)]
    pub frozen: bool,
    /// First training step of the retriever.
    #[serde(default)]
    pub start_at: u64,
    /// Gradient caching: batches larger than memory. Absent: none.
    #[serde(default)]
    pub grad_cache: Option<GradCacheConfig>,
    /// Early stopping of the retriever by dev recall after its turns; its best weights are kept. Absent: never.
    #[serde(default)]
    pub stop: Option<StopConfig>,
}

fn gentle() -> OptimizerConfig {
    OptimizerConfig { lr: 1e-5, ..OptimizerConfig::default() }
}

/// Training objective of the generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorObjective {
    /// Supervised loss of the answer given all retrieved passages in one prompt.
    #[default]
    Sft,
    /// Supervised loss of the answer given one passage per prompt: K examples per question (RA-DIT).
    SftEach,
    /// Marginal likelihood of the retriever objective, with gradients to both models; `rag_sequence` and `rag_token`
    /// only.
    Marginal,
    /// Preference loss between the generator's own answers with and without passages that contain the answer
    /// (`generator.preference`).
    Preferences,
}

/// Generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneratorSide {
    /// Base model.
    pub model: GeneratorModel,
    /// Compute precision of the generator; absent: `run.precision`.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Parameter-efficient fine-tuning: trains an adapter over the frozen model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// Prompt format and length limit.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// Selection of passages for the generator's training prompts.
    #[serde(default = "retrieved")]
    pub contexts: ContextConfig,
    /// Training objective of the generator.
    #[serde(default)]
    pub objective: GeneratorObjective,
    /// Preference loss for `objective = "preferences"` (a paired loss); absent: DPO with beta 0.1.
    #[serde(default)]
    pub preference: Option<PreferenceLossConfig>,
    /// Optimizer; its schedule counts the generator's own steps.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// Tokens per forward pass.
    #[serde(default = "tokens")]
    pub batch_tokens: usize,
    /// Frozen: the generator is not trained.
    #[serde(default)]
    pub frozen: bool,
    /// First training step of the generator.
    #[serde(default)]
    pub start_at: u64,
    /// Early stopping of the generator by dev F1 after its turns; its best weights are kept. Absent: never.
    #[serde(default)]
    pub stop: Option<StopConfig>,
}

fn retrieved() -> ContextConfig {
    ContextConfig::retrieved(5)
}

fn tokens() -> usize {
    8192
}

/// Positives of the contrastive loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positives {
    /// Gold passages of the data; questions without one are skipped.
    #[default]
    Judged,
    /// Retrieved passages, each weighted by the objective's teacher (no judged passage is used): the objective with the
    /// other questions' passages as in-batch negatives.
    Teacher,
}

/// In-batch contrastive loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveConfig {
    /// Positives: `judged` or `teacher`.
    pub positives: Positives,
    /// Weight of the contrastive loss beside the objective.
    pub weight: f64,
    /// Temperature: similarities are divided by it.
    pub temperature: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { positives: Positives::Judged, weight: 1.0, temperature: 0.05 }
    }
}

/// Batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Questions per step.
    pub size: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { size: 16 }
    }
}

ragduet_train::eval_config! {
    /// Evaluation on the dev set during training. The index is refreshed for it.
    pub struct EvalConfig {
        /// Number of dev questions, the first of the file; 0 or absent: all.
        pub limit: usize = 0,
        /// Number of these questions that are answered (exact match, F1, context gain), the first; 0 or absent: all.
        /// Recall is that of all: answers cost far more time than retrieval. Below 20 there is no alarm about ignored
        /// contexts.
        pub answered: usize = 0,
        /// Answers generated per batch.
        pub batch_size: usize = 32,
        /// Decoding.
        pub decode: DecodeConfig =
            DecodeConfig { max_new_tokens: Some(48), do_sample: Some(false), ..DecodeConfig::default() },
        /// Measure that chooses the best model: `f1`, `exact_match` or `recall`.
        pub best: Best = Best::F1,
        /// Number of sample questions whose passages and answers before and after training are saved for the report.
        pub samples: usize = 12,
    }
}

impl EvalConfig {
    /// How many of some questions are answered.
    pub(super) fn answers_of(&self, questions: usize) -> usize {
        if self.answered == 0 { questions } else { self.answered.min(questions) }
    }
}

/// Measure that chooses the best model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Best {
    /// Token F1 of the answers.
    #[default]
    F1,
    /// Exact match of the answers.
    ExactMatch,
    /// Recall@k: share of questions with a gold passage among the top k (without gold passages: a passage that contains
    /// an answer).
    Recall,
}

impl JointConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<()> {
        self.retriever.model.check()?;
        self.generator.model.check()?;
        self.generator.contexts.check()?;
        let c = &self.generator.contexts;
        for (key, set) in
            [("substitute_rate", c.substitute_rate > 0.0), ("excerpt_epochs", c.excerpt_epochs > 0)]
        {
            if set {
                let why =
                    "joint training shows passages as they stand in the corpus; `train generator` has this";
                return Err(bad(&format!("generator.contexts.{key}"), why));
            }
        }
        self.refresh.check()?;
        self.alternation.check()?;
        self.objective.validate()?;
        self.check_sizes()?;
        if self.retriever.frozen && self.generator.frozen {
            return Err(bad("retriever.frozen", "both models are frozen: nothing would learn"));
        }
        self.check_eval()?;
        match self.generator.objective {
            GeneratorObjective::Preferences => self.check_preferences(),
            _ if self.generator.preference.is_some() => {
                Err(bad("generator.preference", "is the loss of generator.objective = \"preferences\""))
            }
            GeneratorObjective::Marginal => self.check_marginal(),
            GeneratorObjective::Sft | GeneratorObjective::SftEach => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<()> {
        let r = &self.retrieval;
        let positive = [
            ("retrieval.k", r.k > 0),
            ("retrieval.batch_tokens", r.batch_tokens > 0),
            ("batch.size", self.batch.size > 0),
            ("generator.batch_tokens", self.generator.batch_tokens > 0),
            (
                "retriever.grad_cache.chunk_tokens",
                self.retriever.grad_cache.is_none_or(|g| g.chunk_tokens > 0),
            ),
            ("eval.batch_size", self.eval.batch_size > 0),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, fits)| !fits) {
            return Err(bad(key, "must be 1 or more"));
        }
        if r.overfetch < r.k {
            return Err(bad("retrieval.overfetch", "must be at least retrieval.k"));
        }
        match self.contrastive {
            Some(c) if !(c.temperature > 0.0 && c.temperature.is_finite()) => {
                Err(bad("contrastive.temperature", "must be above 0"))
            }
            Some(c) if !(c.weight >= 0.0 && c.weight.is_finite()) => {
                Err(bad("contrastive.weight", "must be at least 0"))
            }
            _ => Ok(()),
        }
    }

    /// That what is stopped by dev is measured on dev.
    fn check_eval(&self) -> Result<()> {
        let mut schedule = self.eval();
        // The end of a turn is as good as a number of steps.
        schedule.every_steps += u64::from(self.alternation.measures());
        for (key, stop) in [
            ("eval.stop", self.eval.stop),
            ("retriever.stop", self.retriever.stop),
            ("generator.stop", self.generator.stop),
        ] {
            schedule.stop = stop;
            schedule.check(self.data.dev.is_some()).map_err(|(_, why)| bad(key, why))?;
        }
        Ok(())
    }

    fn check_preferences(&self) -> Result<()> {
        let built = self.generator.preference.clone().unwrap_or_default().build()?;
        if !built.loss.paired() {
            return Err(bad("generator.preference.loss", "perturbed retrieval makes pairs: not kto"));
        }
        if built.likelihood.is_some_and(|l| l.scope == LikelihoodScope::PromptAndCompletion) {
            return Err(bad("generator.preference.loss", "passages are not learned: not orpo"));
        }
        if self.generator.model.base.is_none() {
            let why = "`preferences` needs a generator that answers: generator.model.base";
            return Err(bad("generator.objective", why));
        }
        Ok(())
    }

    fn check_marginal(&self) -> Result<()> {
        if !self.objective.trains_generator() {
            return Err(bad(
                "generator.objective",
                "`marginal` goes with objective.rag_sequence or objective.rag_token; the others teach the retriever \
                 alone",
            ));
        }
        match self.alternation {
            Alternation::Simultaneous(_) => Ok(()),
            Alternation::Alternating(_) => {
                let why = "a marginal likelihood trains both models at once: alternation.simultaneous";
                Err(bad("alternation", why))
            }
        }
    }
}
