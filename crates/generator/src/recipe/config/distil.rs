//! The config of distillation.

use super::config::{BatchConfig, DataConfig, EvalConfig, ModelConfig, SftConfig, TrainConfig, auto};
use crate::contexts::ContextConfig;
use crate::decode::DecodeConfig;
use crate::error::{Result, bad};
use crate::loss::{DistilLoss, SftLoss};
use crate::prepare::PromptConfig;
use ragduet_nn::peft::PeftConfig;
use ragduet_torch::{Precision, Quantize};
use ragduet_train::{OptimizerConfig, SaveConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A generator learns from a larger one: from its distribution over the next token, or from its answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistilConfig {
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// In what precision the student's matrix products run.
    #[serde(default)]
    pub precision: Precision,
    /// Who teaches.
    pub teacher: TeacherConfig,
    /// What the student learns of the teacher.
    #[serde(default)]
    pub objective: Objective,
    /// The student. A new one (`[model.scratch]`) that learns from the teacher's distribution gets its tokenizer.
    pub model: ModelConfig,
    /// Trains an adapter over the student, not the student.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What it learns.
    pub data: DataConfig,
    /// How prompts are made.
    #[serde(default)]
    pub prompt: PromptConfig,
    /// Which passages stand in training prompts; drawn anew each epoch, but where the teacher's distribution is kept.
    #[serde(default)]
    pub contexts: ContextConfig,
    /// Sizes of batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Length and rhythm.
    #[serde(default)]
    pub train: TrainConfig,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// Answers while training.
    #[serde(default)]
    pub eval: EvalConfig,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(DistilConfig);

/// Who teaches. The teacher does not learn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// A model's or an adapter's folder, or a hub id.
    pub base: String,
    /// In what precision its matrix products run; absent: as the student's.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Keeps the weights of its layers in 8 or 4 bits.
    #[serde(default)]
    pub quantize: Quantize,
    /// What is kept on disk of its distribution, so that it is asked once, before training, and is not in memory with the
    /// student. All epochs then show the examples of the first, in another order. Absent: it is asked in every step.
    #[serde(default)]
    pub cache: Option<TeacherCache>,
    /// Where what it says is kept, also for other runs, which take what they need from there; absent: in the run folder.
    #[serde(default)]
    pub store: Option<PathBuf>,
}

/// What is kept of a distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeacherCache {
    /// The likeliest tokens; the others count as one.
    TopK(TopKConfig),
}

/// How many tokens are kept of a distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopKConfig {
    /// Tokens; 8 bytes each, for each token of each answer.
    pub k: usize,
}

impl Default for TopKConfig {
    fn default() -> Self {
        Self { k: 64 }
    }
}

/// What the student learns of the teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Its distribution over each token of the data's answers. Both need the same vocabulary; the teacher reads the
    /// student's prompts.
    Logits(DistilLoss),
    /// Its answers, in place of those of the data (Kim and Rush, 2016, arXiv 1606.07947). Vocabularies may differ, and each
    /// reads prompts in its own form.
    Sequence(Box<SequenceConfig>),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Logits(DistilLoss::default())
    }
}

/// How the teacher answers the training records, each once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceConfig {
    /// How answers are generated: greedily, by beams (`num_beams`, as in the paper) or by sampling.
    pub decode: DecodeConfig,
    /// Answers at a time.
    pub batch: usize,
    /// How its prompts are made; absent: as the student's.
    pub prompt: Option<PromptConfig>,
}

impl Default for SequenceConfig {
    fn default() -> Self {
        Self { decode: EvalConfig::default().decode, batch: 64, prompt: None }
    }
}

impl DistilConfig {
    /// How the student would learn without a teacher.
    pub fn student(&self) -> SftConfig {
        SftConfig {
            seed: self.seed,
            device: self.device.clone(),
            precision: self.precision,
            model: self.model.clone(),
            peft: self.peft.clone(),
            data: self.data.clone(),
            prompt: self.prompt.clone(),
            contexts: self.contexts.clone(),
            loss: SftLoss::default(),
            batch: self.batch.clone(),
            train: self.train.clone(),
            optim: self.optim.clone(),
            eval: self.eval.clone(),
            save: self.save.clone(),
        }
    }

    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        self.student().validate()?;
        if let Some(TeacherCache::TopK(TopKConfig { k: 0 })) = self.teacher.cache {
            return Err(bad("teacher.cache.top_k.k", "must be 1 or more"));
        }
        let c = match &self.objective {
            Objective::Logits(loss) => return loss.check("objective.logits"),
            Objective::Sequence(c) => c,
        };
        if self.teacher.cache.is_some() {
            return Err(bad("teacher.cache", "of a teacher's answers nothing but the answers is kept"));
        }
        if c.batch == 0 {
            return Err(bad("objective.sequence.batch", "must be 1 or more"));
        }
        if c.decode.num_return_sequences.is_some_and(|n| n > 1) {
            let why = "the student learns one answer to a record";
            return Err(bad("objective.sequence.decode.num_return_sequences", why));
        }
        if self.prompt.template.cite || c.prompt.as_ref().is_some_and(|p| p.template.cite) {
            let why = "the numbers in a teacher's answer are those of its own prompt";
            return Err(bad("prompt.template.cite", why));
        }
        Ok(())
    }
}
