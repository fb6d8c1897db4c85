//! The config of distillation.

use super::{BatchConfig, DataConfig, ModelConfig, SftConfig, SftEvalConfig};
use crate::contexts::ContextConfig;
use crate::decode::DecodeConfig;
use crate::error::{Result, bad};
use crate::loss::{DistilLoss, SftLoss};
use crate::prepare::PromptConfig;
use ragduet_nn::peft::PeftConfig;
use ragduet_torch::{Precision, Quantize};
use ragduet_train::{OptimizerConfig, recipe_config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

recipe_config! {
    /// Knowledge distillation from a larger generator: from its next-token distribution or from its answers.
    pub struct DistilConfig {
        /// Teacher model.
        pub teacher: TeacherConfig,
        /// Distillation objective.
        #[serde(default)]
        pub objective: Objective,
        /// Student model. A new one (`[model.scratch]`) gets the teacher's tokenizer if it learns from the teacher's
        /// distribution.
        pub model: ModelConfig,
        /// Training set and dev set.
        pub data: DataConfig,
        /// Parameter-efficient fine-tuning: trains an adapter over the frozen student.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
        /// Prompt format and length limit.
        #[serde(default)]
        pub prompt: PromptConfig,
        /// Batch size.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Selection of passages for training prompts, sampled anew each epoch (with a teacher cache: once).
        #[serde(default)]
        pub contexts: ContextConfig,
        /// Evaluation during training: generated answers for the dev set. Token F1 chooses the best model and stops early.
        #[serde(default)]
        pub eval: SftEvalConfig,
    }
    epochs = 3.0
}

/// Teacher model; frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Teacher: folder of a model or adapter, or Hugging Face id.
    pub base: String,
    /// Compute precision of the teacher; absent: as the student's.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Keeps the weights of its layers in 8 or 4 bits.
    #[serde(default)]
    pub quantize: Quantize,
    /// Teacher cache: the teacher's distributions are computed once before training and kept on disk, so that teacher
    /// and student are not in memory together. All epochs then use the examples of the first, reshuffled. Absent: the
    /// teacher runs in every step.
    #[serde(default)]
    pub cache: Option<TeacherCache>,
    /// Folder of the teacher cache or answers, which other runs may share; absent: in the run folder.
    #[serde(default)]
    pub store: Option<PathBuf>,
}

/// Content of the teacher cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeacherCache {
    /// Top-k probabilities; the remaining probability mass is one bucket.
    TopK(TopKConfig),
}

/// Top-k teacher cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopKConfig {
    /// Number of tokens kept per position, 8 bytes each.
    pub k: usize,
}

impl Default for TopKConfig {
    fn default() -> Self {
        Self { k: 64 }
    }
}

/// Distillation objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Token-level: the teacher's next-token distribution over the data's answers. Teacher and student need the same
    /// vocabulary.
    Logits(DistilLoss),
    /// Sequence-level: the teacher's answers replace the data's (Kim and Rush, 2016, arXiv 1606.07947). Vocabularies
    /// may differ.
    Sequence(Box<SequenceConfig>),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Logits(DistilLoss::default())
    }
}

/// Generation of the teacher's answers, once per training record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceConfig {
    /// Decoding: greedy, beam search (`num_beams`, as in the paper) or sampling.
    pub decode: DecodeConfig,
    /// Answers at a time.
    pub batch_size: usize,
    /// Prompt format of the teacher; absent: as the student's.
    pub prompt: Option<PromptConfig>,
}

impl Default for SequenceConfig {
    fn default() -> Self {
        Self { decode: SftEvalConfig::default().decode, batch_size: 64, prompt: None }
    }
}

impl DistilConfig {
    /// How the student would learn without a teacher.
    pub fn student(&self) -> SftConfig {
        SftConfig {
            run: self.run.clone(),
            model: self.model.clone(),
            peft: self.peft.clone(),
            data: self.data.clone(),
            prompt: self.prompt.clone(),
            contexts: self.contexts.clone(),
            loss: SftLoss::default(),
            batch: self.batch.clone(),
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
        if c.batch_size == 0 {
            return Err(bad("objective.sequence.batch_size", "must be 1 or more"));
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
