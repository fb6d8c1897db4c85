//! The config of `train cross-encoder`.

use crate::Result;
use crate::error::bad;
use crate::loss::RankingLossConfig;
use ragduet_classifier::recipe::ModelConfig;
use ragduet_metrics::Measure;
use ragduet_nn::peft::PeftConfig;
use ragduet_retriever::mining::{MiningConfig, When};
use ragduet_retriever::recipe::config::DataConfig;
use ragduet_train::{OptimizerConfig, RecipeConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

ragduet_train::recipe_config! {
    /// Training of a cross-encoder (re-ranker): an encoder or a decoder-only model that scores a query and a passage
    /// together.
    pub struct CrossEncoderConfig {
        /// Base model; a bi-encoder will do.
        pub model: ModelConfig,
        /// Parameter-efficient fine-tuning: trains an adapter and the head over the frozen model.
        #[serde(default)]
        pub peft: Option<PeftConfig>,
        /// Training set, as for a retriever (queries, positives, negatives where the data has them), and dev set.
        pub data: DataConfig,
        /// First-stage retriever: source of hard negatives, and of the candidates that are re-ranked on the dev set.
        /// Absent: negatives of the data, else random passages.
        #[serde(default)]
        pub first_stage: Option<FirstStage>,
        /// Ranking loss.
        #[serde(default)]
        pub loss: RankingLossConfig,
        /// Batch size and composition.
        #[serde(default)]
        pub batch: BatchConfig,
        /// Optimizer and learning-rate schedule.
        #[serde(default)]
        pub optim: OptimizerConfig,
        /// Evaluation on the dev set during training: nDCG and others of the re-ranked candidates.
        #[serde(default)]
        pub eval: EvalConfig,
    }
    epochs = 1.0
}

/// First-stage retriever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstStage {
    /// Bi-encoder: folder or Hugging Face id.
    pub model: String,
    /// Hard-negative mining among what it finds, once, at the start.
    #[serde(default)]
    pub mining: MiningConfig,
}

/// Batch size and composition. Pairs are packed without padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Queries per optimizer step, each with its candidates.
    pub size: usize,
    /// Tokens per forward pass: the queries of a step are split into as many passes as needed.
    pub tokens: usize,
    /// Hard negatives per query, sampled anew each epoch from those the query has.
    pub negatives_per_query: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { size: 8, tokens: 16_384, negatives_per_query: 7 }
    }
}

ragduet_train::eval_config! {
    /// Evaluation on the dev set during training.
    pub struct EvalConfig {
        /// Measures, such as `ndcg@10`; the first one chooses the best model.
        #[schemars(with = "Vec<String>")]
        pub measures: Vec<Measure> =
            ["ndcg@10", "mrr@10", "recall@10"].iter().filter_map(|m| m.parse().ok()).collect(),
        /// Candidates of the first stage that are re-ranked per query.
        pub depth: usize = 50,
        /// Number of dev queries, the first of the set; 0: all.
        pub limit: usize = 0,
        /// Tokens per forward pass during evaluation.
        pub batch_tokens: usize = 16_384,
    }
}

impl CrossEncoderConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The setting and what to do.
    pub fn validate(&self) -> Result<()> {
        self.model.check()?;
        if self.batch.negatives_per_query == 0 {
            return Err(bad(
                "batch.negatives_per_query",
                "must be 1 or more: there is nothing to compare with",
            ));
        }
        if self.batch.size == 0 || self.batch.tokens == 0 || self.eval.batch_tokens == 0 {
            return Err(bad("batch", "size, tokens and eval.batch_tokens must be 1 or more"));
        }
        if self.eval.measures.is_empty() || self.eval.depth == 0 {
            return Err(bad("eval", "name at least one measure, and a depth of 1 or more"));
        }
        if self.data.dev.is_some() && self.first_stage.is_none() {
            return Err(bad("data.dev", "something has to find what is re-ranked: give first_stage.model"));
        }
        self.eval().check(self.data.dev.is_some()).map_err(|(key, why)| bad(key, why))?;
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
