//! What writing came to.

use serde::{Deserialize, Serialize};

use crate::RetrievalExample;

/// What was written, and what the format had no place for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCounts {
    /// Examples.
    pub examples: u64,
    /// Positives of the examples.
    pub positives: u64,
    /// Negatives of the examples.
    pub negatives: u64,
    /// Distinct passages (collections only).
    pub passages: u64,
    /// Distinct queries (collections only).
    pub queries: u64,
    /// Passages that the folder held before, and holds still (collections only).
    #[serde(default)]
    pub passages_kept: u64,
    /// Queries that the folder held before, and holds still (collections only).
    #[serde(default)]
    pub queries_kept: u64,
    /// Ids that stood for two texts; the later text got an id of its own (collections only).
    pub ids_changed: u64,
    /// Negatives whose passages are in the corpus but whose relation to the query the format cannot express.
    pub negatives_unlinked: u64,
    /// Examples whose teacher scores the format has no place for.
    pub scores_dropped: u64,
    /// Answers that the format has no place for.
    pub answers_dropped: u64,
    /// Passages whose title was put before the text, for the format has no place for it.
    pub titles_joined: u64,
}

impl std::fmt::Display for WriteCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            ("examples", self.examples),
            ("positives", self.positives),
            ("negatives", self.negatives),
            ("passages", self.passages),
            ("queries", self.queries),
            ("passages that were there", self.passages_kept),
            ("queries that were there", self.queries_kept),
            ("ids changed", self.ids_changed),
            ("negatives unlinked", self.negatives_unlinked),
            ("scores dropped", self.scores_dropped),
            ("answers dropped", self.answers_dropped),
            ("titles joined with the text", self.titles_joined),
        ];
        let told: Vec<String> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        f.write_str(&told.join(", "))
    }
}

impl WriteCounts {
    pub(crate) fn add(&mut self, example: &RetrievalExample) {
        self.examples += 1;
        self.positives += example.positives.len() as u64;
        self.negatives += example.negatives.len() as u64;
    }
}
