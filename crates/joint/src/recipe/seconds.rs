//! Where the time of a run went.

use serde::Serialize;

/// Where the time of a run went, in seconds; of this process alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Retrieval.
    pub retrieval: f64,
    /// The answers' likelihoods given each passage.
    pub scoring: f64,
    /// The retriever's passes with gradient.
    pub retriever: f64,
    /// The generator's.
    pub generator: f64,
    /// Refreshing the index, or waiting for a refresh.
    pub refresh: f64,
    /// Dev.
    pub evaluation: f64,
}

impl Seconds {
    fn all(&self) -> [(&'static str, f64); 6] {
        [
            ("retrieval", self.retrieval),
            ("scoring", self.scoring),
            ("retriever", self.retriever),
            ("generator", self.generator),
            ("refresh", self.refresh),
            ("evaluation", self.evaluation),
        ]
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.all().iter().map(|(_, s)| s).sum::<f64>().max(1e-9);
        let shares: Vec<String> =
            self.all().iter().map(|(name, s)| format!("{name} {:.0} %", 100.0 * s / total)).collect();
        write!(f, "{} of {total:.0} s", shares.join(", "))
    }
}
