//! How hard negatives are mined: when, with what, through which index, and which of the ranked passages are taken.

use ragduet_index::negatives::NegativeSelection;
use ragduet_index::{HnswBuilder, HnswConfig, LexicalConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How negatives are mined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MiningConfig {
    /// When, within a training run.
    pub when: When,
    /// What finds them.
    pub with: Finder,
    /// Through which index.
    pub index: MiningIndex,
    /// Settings of the graph, where one is used.
    pub hnsw: HnswConfig,
    /// Queries on which a graph's recall is measured against the scan.
    pub audit_queries: usize,
    /// A graph whose recall on them is lower stops the run.
    pub min_recall: f64,
    /// Which of the ranked passages become negatives.
    pub select: NegativeSelection,
    /// Whether negatives that the data came with are kept beside the mined ones.
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

/// When a run mines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Once, with the model that training starts from.
    Start,
    /// At the start and again every so many optimiser steps, with the model as it then is.
    EverySteps(u64),
    /// Every so many steps, but not at the start: the first steps see in-batch negatives only.
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

/// What finds negatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Finder {
    /// The model that is trained, as it then is.
    Own(SelfMining),
    /// Another retriever, of any kind.
    Model(OtherModel),
    /// Words: BM25.
    Lexical(LexicalConfig),
}

impl Default for Finder {
    fn default() -> Self {
        Self::Own(SelfMining {})
    }
}

/// Mining with the model that is trained has no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfMining {}

/// Another retriever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtherModel {
    /// Folder or hub id.
    pub path: String,
}

/// Which index a round searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MiningIndex {
    /// The cheaper one.
    Auto,
    /// The exact scan.
    Exact,
    /// The graph.
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
