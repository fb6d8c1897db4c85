//! How a generator was prompted when it was trained: it answers best when it is asked the same way.

use crate::contexts::ContextConfig;
use crate::prepare::PromptConfig;
use crate::recipe::config::{DistilConfig, SftConfig, SftEvalConfig, TfewConfig};
use ragduet_train::{RunDir, config};
use std::path::Path;

/// The prompt settings of the run that trained a generator.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedWith {
    /// How prompts were made.
    pub prompt: PromptConfig,
    /// Passages in a prompt.
    pub contexts: usize,
    /// T-Few: the power of a choice's length by which its log-likelihood is divided.
    pub length_norm: Option<f64>,
}

impl TrainedWith {
    /// By the config in the parent folder of a model's, where the model is `best` of a run. `None` for any other model,
    /// and for runs without passages in their prompts (preference optimization).
    pub fn find(generator: &Path) -> Option<Self> {
        let path = RunDir::config_of(generator.parent()?).ok()?;
        if let Ok(c) = config::load::<TfewConfig>(&path, &[]) {
            let (contexts, length_norm) = (c.shown().count, Some(c.loss.length_norm));
            return Some(Self { prompt: c.prompt, contexts, length_norm });
        }
        if let Ok(c) = config::load::<DistilConfig>(&path, &[]) {
            return Some(Self::of(c.prompt, &c.contexts, &c.eval));
        }
        config::load::<SftConfig>(&path, &[]).ok().map(|c| Self::of(c.prompt, &c.contexts, &c.eval))
    }

    fn of(prompt: PromptConfig, trained: &ContextConfig, eval: &SftEvalConfig) -> Self {
        Self { prompt, contexts: eval.contexts.unwrap_or(trained.count), length_norm: None }
    }
}
