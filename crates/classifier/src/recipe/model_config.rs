//! `[model]` of the methods that train a head over an encoder or a decoder-only model.

use crate::error::{Result, bad};
use crate::labels::LabelSet;
use crate::model::Classifier;
use ragduet_nn::hub;
use ragduet_nn::peft::PeftConfig;
use ragduet_torch::{ParamStore, Quantize};
use ragduet_train::{Learner, OptimizerConfig, Place, RunContext, check_dropout, of_base};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Base model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Base model: folder, Hugging Face id or GGUF file of an encoder, a decoder-only model, or a model of the same kind as the one
    /// to train, whose head is trained further where it fits.
    pub base: String,
    /// Maximum length in tokens; longer texts are truncated and counted. Absent: the model's maximum.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Dropout of hidden layers during training; absent: the base model's.
    #[serde(default)]
    pub dropout: Option<f64>,
    /// Dropout of attention probabilities during training; absent: the base model's.
    #[serde(default)]
    pub attention_dropout: Option<f64>,
    /// Activation checkpointing: layer activations are recomputed in the backward pass. Less memory, about a third more
    /// time. Decoder-only models.
    #[serde(default)]
    pub recompute: bool,
    /// Quantization of the base model's frozen weights: `none`, `int8` or `nf4` (QLoRA). Needs `[peft]`.
    #[serde(default)]
    pub quantize: Quantize,
}

impl ModelConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    pub fn check(&self) -> Result<()> {
        check_dropout(self.dropout, self.attention_dropout).map_err(|(key, why)| bad(key, why))
    }

    /// The base with these labels and, where asked for, a new adapter over it. New heads and adapters are drawn from the
    /// global generators.
    ///
    /// # Errors
    /// A base that does not load; settings that do not fit it.
    pub fn build(
        &self,
        labels: LabelSet,
        peft: Option<&PeftConfig>,
        context: &RunContext,
    ) -> Result<Classifier> {
        if self.quantize.bits().is_some() && peft.is_none() {
            return Err(bad("model.quantize", "quantized weights are frozen: give [peft]"));
        }
        let dir = hub::resolve(&self.base)?;
        let bits = peft.and_then(|peft| peft.kept_as(self.quantize, context.compute));
        let mut c =
            Classifier::with_labels_quantised(&dir, context.device, context.compute, Some(labels), bits)?;
        if let Some(most) = self.max_tokens {
            if most > c.model.max_tokens() {
                let why = format!("the model takes {} tokens at most", c.model.max_tokens());
                return Err(bad("model.max_tokens", why));
            }
            c.max_tokens = most;
        }
        c.model.set_dropout(self.dropout, self.attention_dropout);
        if !c.model.set_recompute(self.recompute) {
            return Err(bad("model.recompute", "is for decoder-only models"));
        }
        match peft {
            Some(peft) => c.adapt(peft)?,
            None => c.model.params.set_trainable(|_| true),
        }
        Ok(c)
    }
}

impl Classifier {
    /// The optimizer over what trains: the model, or an adapter and a new head.
    ///
    /// # Errors
    /// Patterns of `optim.freeze` that name nothing or leave nothing; settings out of range.
    pub fn learner(&self, config: &OptimizerConfig) -> Result<Learner> {
        let training = self.stores().flat_map(ParamStore::trainable).collect();
        Ok(Learner::new(config, training, self.model.layers(), |name| Place {
            depth: self.model.depth_of(of_base(name)),
            lr_scale: self.adapter.as_ref().map_or(1.0, |a| a.config.lr_scale(name)),
        })?)
    }

    /// "n of m parameters train", with precision and device.
    pub fn parameters_line(&self) -> String {
        let (all, training) = self.count();
        let share = 100.0 * training as f64 / all as f64;
        format!("{training} of {all} parameters train ({share:.1} %); {} on {:?}", self.compute, self.device)
    }
}
