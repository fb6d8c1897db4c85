//! The config of supervised fine-tuning.

use super::{BatchConfig, DataConfig, ModelConfig};
use crate::contexts::ContextConfig;
use crate::decode::DecodeConfig;
use crate::error::{Result, bad};
use crate::loss::SftLoss;
use crate::prepare::PromptConfig;
use ragduet_nn::peft::PeftConfig;
use ragduet_train::{OptimizerConfig, RecipeConfig, recipe_config};

recipe_config! {
    /// Supervised fine-tuning of a generator on questions, retrieved passages and answers.
    pub struct SftConfig {
        /// Base model.
        pub model: ModelConfig,
        /// Parameter-efficient fine-tuning: trains an adapter over the frozen model.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Training set and dev set.
        pub data: DataConfig,
        /// Prompt format and length limit.
        #[serde(default)]
        pub prompt: PromptConfig,
        /// Selection of passages for training prompts, sampled anew each epoch.
        #[serde(default)]
        pub contexts: ContextConfig,
        /// Token loss.
        #[serde(default)]
        pub loss: SftLoss,
        /// Batch size.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
        /// Evaluation during training: generated answers for the dev set. Token F1 chooses the best model and stops early.
        #[serde(default)]
        pub eval: SftEvalConfig,
    }
    epochs = 3.0
}

impl SftConfig {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        self.model.check()?;
        self.batch.check()?;
        RecipeConfig::eval(self).check(self.data.dev.is_some()).map_err(|(key, why)| bad(key, why))?;
        if self.eval.batch_size == 0 {
            return Err(bad("eval.batch_size", "must be 1 or more"));
        }
        if self.contexts.excerpt_epochs > 0 && (self.run.max_steps.is_none() || self.run.epochs.is_some()) {
            let why =
                "epochs of excerpts have fewer steps than later ones: give run.max_steps, without run.epochs";
            return Err(bad("contexts.excerpt_epochs", why));
        }
        self.contexts.check()
    }
}

ragduet_train::eval_config! {
    /// Evaluation during training: generated answers for the dev set.
    pub struct SftEvalConfig {
        /// Decoding.
        // Greedy, so that the figure of one model is one figure.
        pub decode: DecodeConfig =
            DecodeConfig { max_new_tokens: Some(48), do_sample: Some(false), ..DecodeConfig::default() },
        /// Number of dev questions, the first of the file; 0 or absent: all.
        pub limit: usize = 0,
        /// Passages per prompt, the top retrieved ones; absent: as in training.
        pub contexts: Option<usize> = None,
        /// Answers generated per batch.
        pub batch_size: usize = 16,
    }
}
