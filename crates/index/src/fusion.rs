//! Fusion: one ranking out of those of several systems, as of a lexical and a dense search.
//!
//! A document's fused score is the weighted sum of what each system gives it:
//!
//! | method | a document found | one not found |
//! |---|---|---|
//! | `rrf` | 1 / (k + rank), ranks from 1 | 0 |
//! | `min_max` | (s − min) / (max − min) | 0, what the worst one found gets |
//! | `z_score` | (s − mean) / deviation | what the worst one found gets |
//!
//! `rrf` is reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009; k = 60): it needs no comparable scores.
//! The others are ranx' `min-max` and `zmuv` with `wsum`, min, max, mean and (population) deviation being those of the
//! system's hits for the query, but for two things. Where all scores of a system are equal, `min_max` gives 1 (ranx: 0,
//! as for a document not found). And to ranx a document not found is worth 0 under `zmuv` as well, which is the mean:
//! more than half of what was found.
//!
//! Hits need not be sorted: ranks are by score, equal scores in ascending order of keys. A document that a system lists
//! twice counts once, where it is best. Sums do not depend on the order of the systems.

mod learn;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use learn::{Learned, learn_weights};

use crate::{Error, Hit, Result};

/// Fusion of several rankings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FusionConfig {
    /// Reciprocal rank fusion: no score calibration needed.
    Rrf(RrfConfig),
    /// Weighted sum of min-max normalized scores.
    MinMax(ScoresConfig),
    /// Weighted sum of z-scores.
    ZScore(ScoresConfig),
}

/// Settings of reciprocal rank fusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RrfConfig {
    /// RRF constant k: larger values flatten the difference between ranks.
    pub k: f64,
    /// Weight of each system, in order; empty: 1 each, as published.
    pub weights: Vec<f64>,
}

/// Score-based fusion.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScoresConfig {
    /// Weight of each system, in order; empty: 1 each.
    pub weights: Vec<f64>,
}

impl Default for RrfConfig {
    fn default() -> Self {
        Self { k: 60.0, weights: Vec::new() }
    }
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self::Rrf(RrfConfig::default())
    }
}

impl FusionConfig {
    /// What each system counts; none: all the same.
    pub fn weights(&self) -> &[f64] {
        match self {
            Self::Rrf(RrfConfig { weights, .. })
            | Self::MinMax(ScoresConfig { weights })
            | Self::ZScore(ScoresConfig { weights }) => weights,
        }
    }

    /// The same method with other weights.
    pub fn with_weights(&self, weights: Vec<f64>) -> Self {
        match self {
            Self::Rrf(RrfConfig { k, .. }) => Self::Rrf(RrfConfig { k: *k, weights }),
            Self::MinMax(_) => Self::MinMax(ScoresConfig { weights }),
            Self::ZScore(_) => Self::ZScore(ScoresConfig { weights }),
        }
    }

    fn validate(&self, systems: usize) -> Result<()> {
        let bad = |key, got, remedy| Err(Error::BadConfig { key, got, remedy });
        let weights = self.weights();
        if !weights.is_empty() && weights.len() != systems {
            return Err(Error::RowCount { what: "`weights`", got: weights.len(), expected: systems });
        }
        if weights.iter().any(|weight| !(*weight >= 0.0 && weight.is_finite())) {
            return bad("weights", format!("{weights:?}"), "weights are 0 or greater");
        }
        match self {
            Self::Rrf(RrfConfig { k, .. }) if !(*k >= 0.0 && k.is_finite()) => {
                bad("k", k.to_string(), "it is 0 or greater; 60 is usual")
            }
            _ => Ok(()),
        }
    }
}

/// The best `k` documents for one query of all that any of the `systems` found, best first; equal scores are in
/// ascending order of keys. A key is whatever names a document to all systems: a row, where their rows are the same, or
/// an external id.
pub fn fuse<K: Ord + Clone>(
    config: &FusionConfig,
    systems: &[impl AsRef<[(K, f32)]>],
    k: usize,
) -> Result<Vec<(K, f32)>> {
    config.validate(systems.len())?;
    let weight = |system: usize| config.weights().get(system).copied().unwrap_or(1.0);
    let mut parts: BTreeMap<&K, Vec<f64>> = BTreeMap::new();
    let mut absent = Vec::with_capacity(systems.len());
    for (system, hits) in systems.iter().enumerate() {
        let hits = ranked(system, hits.as_ref())?;
        let scale = Scale::of(config, &hits);
        absent.push(weight(system) * scale.absent());
        for (at, (key, score)) in hits.into_iter().enumerate() {
            // What a document gets from a system, less what it would get without being found.
            let gain = weight(system) * (scale.of_hit(at, score) - scale.absent());
            parts.entry(key).or_default().push(gain);
        }
    }
    let absent = sum(absent);
    let mut fused: Vec<(K, f32)> =
        parts.into_iter().map(|(key, gains)| (key.clone(), (absent + sum(gains)) as f32)).collect();
    // Stable: keys are in ascending order.
    fused.sort_by(|a, b| b.1.total_cmp(&a.1));
    fused.truncate(k);
    Ok(fused)
}

/// [`fuse`] for systems whose rows are the same.
pub fn fuse_hits(config: &FusionConfig, systems: &[impl AsRef<[Hit]>], k: usize) -> Result<Vec<Hit>> {
    let pairs = |hits: &[Hit]| hits.iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>();
    let systems: Vec<Vec<(u32, f32)>> = systems.iter().map(|hits| pairs(hits.as_ref())).collect();
    Ok(fuse(config, &systems, k)?.into_iter().map(|(id, score)| Hit { id, score }).collect())
}

/// Hits in the order of their ranks, each document once.
fn ranked<K: Ord>(system: usize, hits: &[(K, f32)]) -> Result<Vec<(&K, f64)>> {
    if let Some(rank) = hits.iter().position(|(_, score)| !score.is_finite()) {
        return Err(Error::UnusableScore { system, rank, score: hits[rank].1 });
    }
    let mut best: BTreeMap<&K, f64> = BTreeMap::new();
    for (key, score) in hits {
        let score = f64::from(*score);
        best.entry(key).and_modify(|best| *best = best.max(score)).or_insert(score);
    }
    let mut ranked: Vec<(&K, f64)> = best.into_iter().collect();
    // Stable: keys are in ascending order.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(ranked)
}

/// What makes one system's hits for one query comparable with another's.
enum Scale {
    Rank { k: f64 },
    MinMax { min: f64, max: f64 },
    ZScore { mean: f64, deviation: f64, min: f64 },
}

impl Scale {
    fn of<K>(config: &FusionConfig, ranked: &[(K, f64)]) -> Self {
        let count = ranked.len().max(1) as f64;
        let max = ranked.first().map_or(0.0, |hit| hit.1);
        let min = ranked.last().map_or(0.0, |hit| hit.1);
        match config {
            FusionConfig::Rrf(RrfConfig { k, .. }) => Self::Rank { k: *k },
            FusionConfig::MinMax(_) => Self::MinMax { min, max },
            FusionConfig::ZScore(_) => {
                let mean = ranked.iter().map(|hit| hit.1).sum::<f64>() / count;
                let variance = ranked.iter().map(|hit| (hit.1 - mean).powi(2)).sum::<f64>() / count;
                Self::ZScore { mean, deviation: variance.sqrt().max(1e-9), min }
            }
        }
    }

    fn of_hit(&self, at: usize, score: f64) -> f64 {
        match self {
            Self::Rank { k } => 1.0 / (k + at as f64 + 1.0),
            Self::MinMax { min, max } if max > min => (score - min) / (max - min),
            Self::MinMax { .. } => 1.0,
            Self::ZScore { mean, deviation, .. } => (score - mean) / deviation,
        }
    }

    fn absent(&self) -> f64 {
        match self {
            Self::Rank { .. } | Self::MinMax { .. } => 0.0,
            Self::ZScore { mean, deviation, min } => (min - mean) / deviation,
        }
    }
}

/// A sum that does not depend on the order.
fn sum(mut parts: Vec<f64>) -> f64 {
    parts.sort_by(f64::total_cmp);
    parts.into_iter().sum()
}
