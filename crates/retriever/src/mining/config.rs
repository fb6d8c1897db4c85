//! How hard negatives are mined: when, with what, through which index, and which of the ranked passages are taken.

use ragduet_index::negatives::NegativeSelection;
use ragduet_index::{HnswBuilder, HnswConfig, LexicalConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Hard-negative mining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MiningConfig {
    /// When negatives are mined during a run.
    pub when: When,
    /// Retriever that ranks the candidates: the model being trained, another retriever, or BM25.
    pub with: Finder,
    /// Index that is searched.
    pub index: MiningIndex,
    /// Settings of the HNSW graph, if one is used.
    pub hnsw: HnswConfig,
    /// Queries on which the HNSW graph's recall against exact search is measured.
    pub audit_queries: usize,
    /// Minimum recall of the HNSW graph; below it the run stops with an error.
    pub min_recall: f64,
    /// Selection of negatives from the ranking.
    pub select: NegativeSelection,
    /// Whether negatives of the training data are kept beside the mined ones.
    pub keep_given: bool,
}

impl Default for MiningConfig {
    fn default() -> Self {
        Self {
            when: When::Start,
            with: Finder::default(),
            index: MiningIndex::Auto,
            // The same graph every time, so that a resumed run mines what the uninterrupted one did.
            hnsw: HnswConfig { builder: HnswBuilder::Native, ..HnswConfig::default() },
            audit_queries: 200,
            min_recall: 0.9,
            select: NegativeSelection::default(),
            keep_given: false,
        }
    }
}

/// When negatives are mined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Once before training, with the initial model.
    Start,
    /// Before training and again every N optimizer steps, with the current model.
    EverySteps(u64),
    /// Every N optimizer steps but not before training; until then there are in-batch negatives only.
    AfterSteps(u64),
}

impl When {
    /// Whether a round is due before the step that follows `done` finished steps.
    pub fn is_due(self, done: u64) -> bool {
        match self {
            When::Start => done == 0,
            When::EverySteps(n) => n > 0 && done.is_multiple_of(n),
            When::AfterSteps(n) => n > 0 && done > 0 && done.is_multiple_of(n),
        }
    }
}

/// Retriever that ranks the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Finder {
    /// Self-mining: the model being trained, with its current weights.
    Own(SelfMining),
    /// Another retriever, of any kind.
    Model(OtherModel),
    /// BM25.
    Lexical(LexicalConfig),
}

impl Default for Finder {
    fn default() -> Self {
        Self::Own(SelfMining {})
    }
}

/// Self-mining; no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfMining {}

/// Another retriever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtherModel {
    /// Model folder or Hugging Face id.
    pub path: String,
}

/// Index that is searched while mining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MiningIndex {
    /// Whichever of exact search and HNSW the cost model estimates to be faster.
    Auto,
    /// Exact search.
    Exact,
    /// Approximate search in an HNSW graph.
    Hnsw,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_due_when_they_should_be() {
        let due = |w: When| (0..7).filter(|&s| w.is_due(s)).collect::<Vec<u64>>();
        assert_eq!(due(When::Start), [0]);
        assert_eq!(due(When::EverySteps(3)), [0, 3, 6]);
        assert_eq!(due(When::AfterSteps(3)), [3, 6]);
        assert!(due(When::EverySteps(0)).is_empty());
    }
}
