//! The config of `train joint`.

use super::turns::Turns;
use crate::Result;
use crate::diagnose::AlarmConfig;
use crate::error::bad;
use crate::objective::ObjectiveConfig;
use crate::refresh::RefreshConfig;
use crate::retrieve::RetrievalConfig;
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::decode::DecodeConfig;
use ragduet_generator::loss::{LikelihoodScope, PreferenceConfig};
use ragduet_generator::prepare::PromptConfig;
use ragduet_generator::recipe::config::ModelConfig as GeneratorModel;
use ragduet_nn::peft::PeftConfig;
use ragduet_retriever::recipe::config::ModelConfig as RetrieverModel;
use ragduet_torch::Precision;
use ragduet_train::{OptimizerConfig, SaveConfig, StopConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A retriever and a generator that teach each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JointConfig {
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// Questions, answers, and the passages that are searched.
    pub data: DataConfig,
    /// What finds.
    pub retriever: RetrieverSide,
    /// What answers.
    pub generator: GeneratorSide,
    /// How passages are found while training.
    #[serde(default)]
    pub retrieval: RetrievalConfig,
    /// When the index follows the passage encoder.
    #[serde(default)]
    pub refresh: RefreshConfig,
    /// What the retriever learns from the generator.
    pub objective: ObjectiveConfig,
    /// Contrastive learning beside it, from golden passages; questions without one take no part.
    #[serde(default)]
    pub contrastive: Option<ContrastiveConfig>,
    /// Whose turn it is when.
    #[serde(default)]
    pub turns: Turns,
    /// Length and rhythm.
    #[serde(default)]
    pub train: TrainConfig,
    /// Answers while training.
    #[serde(default)]
    pub eval: EvalConfig,
    /// When to raise an alarm.
    #[serde(default)]
    pub alarm: AlarmConfig,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(JointConfig);

fn auto() -> String {
    "auto".into()
}

/// Questions with answers, and the corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A BEIR folder with answers, or a file of records (see `ragduet_data::read_questions`).
    pub train: PathBuf,
    /// Its split.
    #[serde(default = "train_split")]
    pub split: String,
    /// Answers by question; absent: answers.jsonl of the folder.
    #[serde(default)]
    pub answers: Option<PathBuf>,
    /// The passages; absent: those of the BEIR folder.
    #[serde(default)]
    pub corpus: Option<PathBuf>,
    /// What is answered while training; absent: nothing.
    #[serde(default)]
    pub dev: Option<PathBuf>,
    /// Its split.
    #[serde(default = "dev_split")]
    pub dev_split: String,
    /// Move bad rows to `bad_rows.jsonl` in the run folder instead of stopping.
    #[serde(default)]
    pub skip_bad_rows: bool,
}

fn train_split() -> String {
    "train".into()
}

fn dev_split() -> String {
    "dev".into()
}

/// What of the retriever learns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Towers {
    /// The query encoder alone, a copy of its own where the base has one encoder for both: the index never goes stale.
    #[default]
    Query,
    /// Both sides.
    Both,
}

/// The retriever's side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrieverSide {
    /// Where it comes from.
    pub model: RetrieverModel,
    /// In what precision its products run.
    #[serde(default)]
    pub precision: Precision,
    /// Trains an adapter over the transformer.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What of it learns.
    #[serde(default)]
    pub towers: Towers,
    /// The optimiser; its schedule runs over this side's own steps.
    #[serde(default = "gentle")]
    pub optim: OptimizerConfig,
    /// Stays as it is.
    #[serde(default)]
    pub frozen: bool,
    /// Learns from this step of the run on.
    #[serde(default)]
    pub start_at: u64,
    /// Embeds with a graph at most so many tokens at a time (gradient caching).
    #[serde(default)]
    pub chunk_tokens: Option<usize>,
    /// Ends this side's learning where its turns no longer raise dev recall; its best state is kept.
    #[serde(default)]
    pub stop: Option<StopConfig>,
}

fn gentle() -> OptimizerConfig {
    OptimizerConfig { lr: 1e-5, ..OptimizerConfig::default() }
}

/// What the generator's steps lower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Learns {
    /// The loss of the answer behind the retrieved contexts, all in one prompt.
    #[default]
    Sft,
    /// The same with one context in each prompt: as many examples of a question (RA-DIT).
    SftEach,
    /// The objective's marginal likelihood, together with the retriever; rag_sequence and rag_token alone.
    Marginal,
    /// Preferences between what it says itself when it is shown passages that hold the answer and when it is shown
    /// passages that do not (`generator.preference`).
    Preferences,
}

/// The generator's side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneratorSide {
    /// Where it comes from.
    pub model: GeneratorModel,
    /// In what precision its products run.
    #[serde(default)]
    pub precision: Precision,
    /// Trains an adapter over the model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// How prompts are made, with one passage (scoring) as with more.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// Which of the retrieved passages, and of the golden ones where they are known, stand in prompts.
    #[serde(default = "retrieved")]
    pub contexts: ContextConfig,
    /// What it learns.
    #[serde(default)]
    pub learns: Learns,
    /// The loss of `learns = "preferences"`, a paired one; absent: DPO with a beta of 0.1.
    #[serde(default)]
    pub preference: Option<PreferenceConfig>,
    /// The optimiser; its schedule runs over this side's own steps.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// Tokens of a forward pass.
    #[serde(default = "tokens")]
    pub batch_tokens: usize,
    /// Stays as it is.
    #[serde(default)]
    pub frozen: bool,
    /// Learns from this step of the run on.
    #[serde(default)]
    pub start_at: u64,
    /// Ends this side's learning where its turns no longer raise dev F1; its best state is kept.
    #[serde(default)]
    pub stop: Option<StopConfig>,
}

fn retrieved() -> ContextConfig {
    ContextConfig::retrieved(5)
}

fn tokens() -> usize {
    8192
}

/// In-batch contrastive learning towards golden passages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveConfig {
    /// Its factor beside the objective's.
    pub weight: f64,
    /// 1 / temperature.
    pub scale: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { weight: 1.0, scale: 20.0 }
    }
}

/// Length and rhythm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Questions of a step.
    pub questions: usize,
    /// Passes over the questions.
    pub epochs: f64,
    /// Ends earlier, after this many steps.
    pub max_steps: Option<u64>,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { questions: 16, epochs: 1.0, max_steps: None, log_every: 10 }
    }
}

/// Finding and answering for the dev set while training; the index is made anew for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Steps between evaluations; 0: at the end of turns and of the run only.
    pub every_steps: u64,
    /// Questions, the first of the file; 0 for all.
    pub questions: usize,
    /// Answers generated at a time.
    pub batch: usize,
    /// How answers are generated.
    pub decode: DecodeConfig,
    /// What the best state of the run is chosen by.
    pub best: Best,
    /// Questions of which the passages and answers before and after training are kept.
    pub samples: usize,
}

/// What the best state is chosen by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Best {
    /// Token F1 of the answers.
    #[default]
    F1,
    /// Exact match of the answers.
    ExactMatch,
    /// Share of questions with a golden passage (where none is known, a passage that holds an answer) among the `k`.
    Recall,
}

impl Default for EvalConfig {
    fn default() -> Self {
        let decode =
            DecodeConfig { max_new_tokens: Some(48), do_sample: Some(false), ..DecodeConfig::default() };
        Self { every_steps: 0, questions: 200, batch: 32, decode, best: Best::F1, samples: 12 }
    }
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
        self.refresh.check()?;
        self.turns.check()?;
        self.objective.validate()?;
        if self.retrieval.k == 0 || self.retrieval.batch_tokens == 0 {
            return Err(bad("retrieval", "k and batch_tokens must be 1 or more"));
        }
        if self.retrieval.overfetch < self.retrieval.k {
            return Err(bad("retrieval.overfetch", "must be at least retrieval.k"));
        }
        if self.train.questions == 0 || self.train.epochs.is_nan() || self.train.epochs <= 0.0 {
            return Err(bad("train", "questions must be 1 or more and epochs above 0"));
        }
        if self.generator.batch_tokens == 0 || self.retriever.chunk_tokens == Some(0) {
            return Err(bad("generator.batch_tokens", "token budgets must be 1 or more"));
        }
        if self.eval.batch == 0 {
            return Err(bad("eval.batch", "must be 1 or more"));
        }
        if self.retriever.frozen && self.generator.frozen {
            return Err(bad("retriever.frozen", "both sides are frozen: nothing would learn"));
        }
        for (key, stop) in [("retriever.stop", self.retriever.stop), ("generator.stop", self.generator.stop)]
        {
            if stop.is_some() && self.data.dev.is_none() {
                return Err(bad(key, "needs `data.dev`"));
            }
        }
        if self.generator.preference.is_some() && self.generator.learns != Learns::Preferences {
            return Err(bad("generator.preference", "is the loss of generator.learns = \"preferences\""));
        }
        if self.generator.learns == Learns::Preferences {
            let built = self.generator.preference.clone().unwrap_or_default().build()?;
            if !built.loss.paired() {
                return Err(bad("generator.preference.loss", "perturbed retrieval makes pairs: not kto"));
            }
            if built.likelihood.is_some_and(|l| l.scope == LikelihoodScope::PromptAndCompletion) {
                return Err(bad("generator.preference.loss", "passages are not learned: not orpo"));
            }
            if self.generator.model.base.is_none() {
                return Err(bad(
                    "generator.learns",
                    "`preferences` needs a generator that answers: generator.model.base",
                ));
            }
        }
        if self.generator.learns == Learns::Marginal {
            if !self.objective.trains_generator() {
                return Err(bad(
                    "generator.learns",
                    "`marginal` goes with objective.rag_sequence or objective.rag_token; the others teach the \
                     retriever alone",
                ));
            }
            if matches!(self.turns, Turns::Alternating(_)) {
                return Err(bad(
                    "turns",
                    "a marginal likelihood trains both sides at once: turns.simultaneous",
                ));
            }
        }
        Ok(())
    }
}
