//! The config of preference optimization.

use super::{BatchConfig, DataConfig, ModelConfig};
use crate::error::{Result, bad};
use crate::loss::PreferenceLossConfig;
use ragduet_nn::peft::PeftConfig;
use ragduet_train::{OptimizerConfig, RecipeConfig, recipe_config};

recipe_config! {
    /// Preference optimization of a generator: pairs of a chosen and a rejected answer, or (KTO) single answers labelled
    /// as desirable or not.
    pub struct PreferenceConfig {
        /// Files of preferences (see `ragduet_data::read_preferences`), or for KTO of labelled completions
        /// (`ragduet_data::read_judged`).
        pub data: DataConfig,
        /// Base model: initial policy and frozen reference.
        pub model: ModelConfig,
        /// Parameter-efficient fine-tuning: trains an adapter over the frozen model.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Preference loss.
        #[serde(default)]
        pub preference: PreferenceLossConfig,
        /// Whether prompts use the tokenizer's chat template; absent: if it has one.
        #[serde(default)]
        pub chat: Option<bool>,
        /// Puts the system message before the first question, for chat templates without a system role.
        #[serde(default)]
        pub fold_system: bool,
        /// Maximum tokens of prompt and answer; longer rows are dropped and counted. Absent: the model's maximum.
        #[serde(default)]
        pub max_tokens: Option<usize>,
        /// Batch size; a pair stays in one forward pass, and so do a labelled completion and its mismatched one.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Optimizer and learning-rate schedule.
        #[serde(default = "gentle")]
        pub optim: OptimizerConfig,
        /// Evaluation during training: loss and rewards on the dev set. The loss chooses the best model and stops early.
        #[serde(default)]
        pub eval: PreferenceEvalConfig,
    }
    epochs = 3.0
}

/// Preference losses want small steps.
fn gentle() -> OptimizerConfig {
    OptimizerConfig { lr: 1e-6, ..OptimizerConfig::default() }
}

ragduet_train::eval_config! {
    /// Evaluation during training: loss and rewards on the dev set.
    pub struct PreferenceEvalConfig {}
}

impl PreferenceConfig {
    /// Checks what types cannot.
    pub fn validate(&self) -> Result<()> {
        if self.model.base.is_none() || self.model.scratch.is_some() {
            let why = "preferences are learned by a model that can answer: give its folder or hub id";
            return Err(bad("model.base", why));
        }
        if self.data.format.is_some() {
            return Err(bad(
                "data.format",
                "the loss says what is read: pairs, or judged completions for kto",
            ));
        }
        let built = self.preference.build()?;
        if !built.loss.paired() && self.preference.sft_weight > 0.0 {
            let why = "kto has no pairs, and no chosen answer to each prompt";
            return Err(bad("preference.sft_weight", why));
        }
        RecipeConfig::eval(self).check(self.data.dev.is_some()).map_err(|(key, why)| bad(key, why))?;
        self.batch.check()
    }
}
