//! The config of `train cross-encoder`.

use crate::Result;
use crate::error::bad;
use crate::loss::RankingLossConfig;
use ragduet_metrics::Measure;
use ragduet_nn::peft::PeftConfig;
use ragduet_retriever::mining::{MiningConfig, When};
use ragduet_retriever::recipe::config::DataConfig;
use ragduet_torch::Precision;
use ragduet_train::{OptimizerConfig, SaveConfig, StopConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fine-tuning of an encoder, or a decoder-only model, to say how well a passage answers a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossEncoderConfig {
    /// Everything that is drawn comes from it.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    #[serde(default = "auto")]
    pub device: String,
    /// In what precision matrix products run.
    #[serde(default)]
    pub precision: Precision,
    /// Where the model comes from.
    pub model: ModelConfig,
    /// Trains an adapter and the head, not the model.
    #[serde(default)]
    pub peft: Option<PeftConfig>,
    /// What it learns, as for a retriever: questions, positives, negatives where the data has them.
    pub data: DataConfig,
    /// Finds negatives for training, and what is re-ranked for dev; absent: negatives of the data, else drawn passages.
    #[serde(default)]
    pub first_stage: Option<FirstStage>,
    /// What errors cost.
    #[serde(default)]
    pub loss: RankingLossConfig,
    /// Sizes of batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Length and rhythm.
    #[serde(default)]
    pub train: TrainConfig,
    /// The optimiser.
    #[serde(default)]
    pub optim: OptimizerConfig,
    /// Re-ranking of dev while training.
    #[serde(default)]
    pub eval: EvalConfig,
    /// Checkpoints.
    #[serde(default)]
    pub save: SaveConfig,
}

ragduet_train::config!(CrossEncoderConfig);

fn auto() -> String {
    "auto".into()
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder or hub id: of a bare model (a bi-encoder will do), or of a cross-encoder, whose head goes on.
    pub base: String,
    /// Longer pairs are cut to so many tokens, the longer text of the two first; absent: what the model can take.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Replaces the base's dropout in hidden layers and before the output.
    #[serde(default)]
    pub dropout: Option<f64>,
    /// Replaces the base's dropout on attention.
    #[serde(default)]
    pub attention_dropout: Option<f64>,
}

/// A bi-encoder that comes before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstStage {
    /// Folder or hub id.
    pub model: String,
    /// How training negatives are chosen of what it finds; always once, at the start.
    #[serde(default)]
    pub mining: MiningConfig,
}

/// Sizes of batches. Pairs are laid one after another without padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Questions of an optimiser step, each with its candidates.
    pub questions: usize,
    /// Tokens of a forward pass with gradients: the questions of a step are taken in as many as are needed. A loss is the
    /// mean over each pass, and passes count by their questions.
    pub tokens: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { questions: 8, tokens: 16_384 }
    }
}

/// Length and rhythm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: f64,
    /// Ends earlier, after this many optimiser steps.
    pub max_steps: Option<u64>,
    /// Negatives of a question, drawn anew each epoch from those it has.
    pub negatives_per_query: usize,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { epochs: 1.0, max_steps: None, negatives_per_query: 7, log_every: 10 }
    }
}

/// Re-ranking of dev while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Optimiser steps between evaluations; 0: at the end only.
    pub every_steps: u64,
    /// What is measured. The first decides which model is best.
    #[schemars(with = "Vec<String>")]
    pub measures: Vec<Measure>,
    /// Passages of the first stage that are re-ranked for each question.
    pub depth: usize,
    /// Questions, the first of the set; absent: all.
    pub questions: Option<usize>,
    /// Tokens per forward pass.
    pub batch_tokens: usize,
    /// When to give up.
    pub stop: Option<StopConfig>,
}

impl Default for EvalConfig {
    fn default() -> Self {
        let measures = ["ndcg@10", "mrr@10", "recall@10"].iter().filter_map(|m| m.parse().ok()).collect();
        Self { every_steps: 0, measures, depth: 50, questions: None, batch_tokens: 16_384, stop: None }
    }
}

impl CrossEncoderConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    pub fn validate(&self) -> Result<()> {
        for (key, p) in [("dropout", self.model.dropout), ("attention_dropout", self.model.attention_dropout)]
        {
            if p.is_some_and(|p| !(0.0..1.0).contains(&p)) {
                return Err(bad(&format!("model.{key}"), "must be at least 0 and below 1"));
            }
        }
        if self.train.epochs.is_nan() || self.train.epochs <= 0.0 {
            return Err(bad("train.epochs", "must be above 0"));
        }
        if self.train.negatives_per_query == 0 {
            return Err(bad(
                "train.negatives_per_query",
                "must be 1 or more: there is nothing to compare with",
            ));
        }
        if self.batch.questions == 0 || self.batch.tokens == 0 || self.eval.batch_tokens == 0 {
            return Err(bad("batch", "questions and tokens must be 1 or more"));
        }
        if self.eval.measures.is_empty() || self.eval.depth == 0 {
            return Err(bad("eval", "name at least one measure, and a depth of 1 or more"));
        }
        if self.data.dev.is_some() && self.first_stage.is_none() {
            return Err(bad("data.dev", "something has to find what is re-ranked: give first_stage.model"));
        }
        if self.eval.stop.is_some() && (self.data.dev.is_none() || self.eval.every_steps == 0) {
            return Err(bad("eval.stop", "needs `data.dev` and `eval.every_steps`"));
        }
        let loss = self.loss.build()?;
        if let Some(first) = &self.first_stage {
            if first.mining.when != When::Start {
                return Err(bad(
                    "first_stage.mining.when",
                    "a first stage does not change: it mines at the start",
                ));
            }
            if loss.needs_teacher() {
                let why = "its negatives have no teacher's scores, which this loss needs: mine them into a file \
                           (`ragduet mine`), score it, and leave first_stage out";
                return Err(bad("first_stage", why));
            }
        }
        Ok(())
    }
}
