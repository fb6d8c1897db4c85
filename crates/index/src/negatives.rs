//! Which of the rows a search returned are good negatives? Hard ones teach most, but the hardest are often positives
//! that nobody labelled.
//!
//! A pure function of hits and scores: what a row is, and how hits were found, is the caller's business. A candidate
//! is taken if it passes all of these, in this order:
//!
//! 1. it is not excluded by the caller (a known positive, the query itself, a text equal to a positive's);
//! 2. its rank among the candidates that are left lies in the window `rank_min..rank_max`;
//! 3. `min_score <= score <= max_score`;
//! 4. `score <= pos - absolute_margin` (NV-Retriever's TopK-MarginPos, arXiv 2407.15831);
//! 5. `score <= pos - |pos| * relative_margin` (TopK-PercPos: 0.05 asks for at most 95 % of the positive's score; with
//!    the absolute value it also tightens the bound where the positive's score is negative).
//!
//! Of those that pass, `count` are drawn. There may be fewer, or none: a query gets the negatives it has.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Hit, Result};

/// Selection of negatives from a ranking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NegativeSelection {
    /// First rank (from 0) that is eligible. Skipping the top ranks avoids unlabelled positives.
    pub rank_min: usize,
    /// End of the rank window, exclusive; absent: all candidates.
    pub rank_max: Option<usize>,
    /// Maximum similarity of a negative; absent: no limit.
    pub max_score: Option<f32>,
    /// Minimum similarity of a negative; absent: no limit.
    pub min_score: Option<f32>,
    /// Absolute margin: a negative's similarity is at most the positive's minus this; absent: none.
    pub absolute_margin: Option<f32>,
    /// Relative margin: a negative's similarity is below the positive's by at least this share of it; absent: none.
    pub relative_margin: Option<f32>,
    /// Positive that the margins refer to, if a query has several.
    pub positive: PositiveScore,
    /// Maximum number of negatives per query.
    pub count: usize,
    /// Sampling from the eligible candidates.
    pub sampling: Sampling,
    /// Random seed, combined with the query id.
    pub seed: u64,
}

impl Default for NegativeSelection {
    fn default() -> Self {
        Self {
            rank_min: 0,
            rank_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            positive: PositiveScore::Min,
            count: 3,
            sampling: Sampling::Top,
            seed: 0,
        }
    }
}

/// Positive that the margins refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositiveScore {
    /// The lowest-scoring positive, as in sentence-transformers: negatives are below every positive.
    #[default]
    Min,
    /// The highest-scoring positive: a positive that the model does not recognize yet does not exclude all negatives.
    Max,
}

/// Sampling from the eligible candidates.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Top-ranked candidates.
    #[default]
    Top,
    /// Uniform sampling.
    Uniform,
    /// Softmax sampling by similarity.
    Softmax(SoftmaxSampling),
}

/// Sampling without replacement, probability proportional to `exp(score / temperature)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SoftmaxSampling {
    /// Temperature: low values approach `top`, high values `uniform`.
    pub temperature: f32,
}

impl Default for SoftmaxSampling {
    fn default() -> Self {
        Self { temperature: 0.05 }
    }
}

/// Why candidates were not taken, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Dropped {
    /// By the caller: positives, duplicates, the query itself.
    pub excluded: usize,
    /// Ranked before or after the window.
    pub outside_window: usize,
    /// Score above `max_score`.
    pub above_max_score: usize,
    /// Score below `min_score`.
    pub below_min_score: usize,
    /// Too near to the positive by `absolute_margin`.
    pub absolute_margin: usize,
    /// Too near to the positive by `relative_margin`.
    pub relative_margin: usize,
    /// Passed, but were not drawn.
    pub not_drawn: usize,
}

impl std::ops::AddAssign for Dropped {
    fn add_assign(&mut self, other: Self) {
        self.excluded += other.excluded;
        self.outside_window += other.outside_window;
        self.above_max_score += other.above_max_score;
        self.below_min_score += other.below_min_score;
        self.absolute_margin += other.absolute_margin;
        self.relative_margin += other.relative_margin;
        self.not_drawn += other.not_drawn;
    }
}

/// The negatives of one query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chosen {
    /// In the order of the candidates.
    pub negatives: Vec<Hit>,
    /// What became of the other candidates.
    pub dropped: Dropped,
}

impl NegativeSelection {
    /// Checks that the settings can select anything.
    pub fn validate(&self) -> Result<()> {
        let bad = |key, got: String, remedy| Err(Error::BadConfig { key, got, remedy });
        if let Some(rank_max) = self.rank_max.filter(|rank_max| *rank_max <= self.rank_min) {
            return bad(
                "rank_max",
                rank_max.to_string(),
                "it lies above `rank_min`, which it does not include",
            );
        }
        let margins = [("absolute_margin", self.absolute_margin), ("relative_margin", self.relative_margin)];
        for (key, margin) in margins {
            if let Some(margin) = margin.filter(|margin| !(margin.is_finite() && *margin >= 0.0)) {
                return bad(key, margin.to_string(), "it is 0 or more; 0.05 is usual");
            }
        }
        for (key, score) in [("max_score", self.max_score), ("min_score", self.min_score)] {
            if score.is_some_and(f32::is_nan) {
                return bad(key, "nan".to_owned(), "it is a number");
            }
        }
        if let (Some(min), Some(max)) = (self.min_score, self.max_score)
            && min > max
        {
            return bad("min_score", min.to_string(), "it is at most `max_score`");
        }
        if let Sampling::Softmax(SoftmaxSampling { temperature }) = self.sampling
            && !(temperature.is_finite() && temperature > 0.0)
        {
            return bad("sampling.softmax.temperature", temperature.to_string(), "it is above 0");
        }
        Ok(())
    }

    /// How many hits to search for, so that the window can be filled for a query of which `excluded` rows may have
    /// to be left out.
    pub fn candidates_needed(&self, excluded: usize) -> usize {
        // Without an end of the window: room for what the margins will take away.
        self.rank_max.unwrap_or(self.rank_min + (4 * self.count).max(self.count + 50)) + excluded
    }

    /// Chooses a query's negatives.
    ///
    /// `candidates` are in order of rank; `positives` are the scores of the query's positives by the same scorer, and
    /// are only needed if there is a margin. `exclude` says which rows can be no negatives. The outcome depends on
    /// the seed and `query`, not on what was chosen for other queries before.
    pub fn choose(
        &self,
        query: &str,
        candidates: &[Hit],
        positives: &[f32],
        exclude: impl Fn(u32) -> bool,
    ) -> Result<Chosen> {
        self.validate()?;
        let nan = |what| Error::NanScore { query: query.to_owned(), what };
        if positives.iter().any(|score| score.is_nan()) {
            return Err(nan("a positive"));
        }
        if candidates.iter().any(|hit| hit.score.is_nan()) {
            return Err(nan("a candidate"));
        }
        let positive = match self.positive {
            PositiveScore::Min => positives.iter().copied().reduce(f32::min),
            PositiveScore::Max => positives.iter().copied().reduce(f32::max),
        };
        let bound = |margin: Option<f32>, below: fn(f32, f32) -> f32| match (margin, positive) {
            (None, _) => Ok(f32::INFINITY),
            (Some(margin), Some(positive)) => Ok(below(positive, margin)),
            (Some(_), None) => Err(Error::NoPositive { query: query.to_owned() }),
        };
        let absolute = bound(self.absolute_margin, |positive, margin| positive - margin)?;
        let relative = bound(self.relative_margin, |positive, margin| positive - positive.abs() * margin)?;

        let mut dropped = Dropped::default();
        let mut passed = Vec::new();
        let window = self.rank_min..self.rank_max.unwrap_or(usize::MAX);
        let mut rank = 0;
        for hit in candidates {
            if exclude(hit.id) {
                dropped.excluded += 1;
                continue;
            }
            let here = rank;
            rank += 1;
            if !window.contains(&here) {
                dropped.outside_window += 1;
            } else if self.max_score.is_some_and(|max| hit.score > max) {
                dropped.above_max_score += 1;
            } else if self.min_score.is_some_and(|min| hit.score < min) {
                dropped.below_min_score += 1;
            } else if hit.score > absolute {
                dropped.absolute_margin += 1;
            } else if hit.score > relative {
                dropped.relative_margin += 1;
            } else {
                passed.push(*hit);
            }
        }
        let count = self.count.min(passed.len());
        dropped.not_drawn = passed.len() - count;
        let negatives = self.draw(query, passed, count);
        Ok(Chosen { negatives, dropped })
    }

    fn draw(&self, query: &str, mut passed: Vec<Hit>, count: usize) -> Vec<Hit> {
        let temperature = match self.sampling {
            Sampling::Top => {
                passed.truncate(count);
                return passed;
            }
            Sampling::Uniform => f32::INFINITY,
            Sampling::Softmax(SoftmaxSampling { temperature }) => temperature,
        };
        if count == passed.len() {
            return passed;
        }
        // The greatest of score / T + Gumbel noise is a draw from the softmax, the greatest few are a draw without
        // replacement (Vieira 2014); with T infinite every score counts as equal.
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ fnv1a(query));
        let mut keyed: Vec<(f64, usize)> = passed
            .iter()
            .enumerate()
            .map(|(at, hit)| {
                let uniform = 1.0 - rng.random::<f64>();
                let noise = -(-uniform.ln()).max(f64::MIN_POSITIVE).ln();
                let weight =
                    if temperature.is_finite() { f64::from(hit.score) / f64::from(temperature) } else { 0.0 };
                (weight + noise, at)
            })
            .collect();
        keyed.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut drawn: Vec<usize> = keyed[..count].iter().map(|&(_, at)| at).collect();
        drawn.sort_unstable();
        drawn.into_iter().map(|at| passed[at]).collect()
    }
}

/// FNV-1a: the standard library's hash may change between releases of the compiler, and with it every draw.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(scores: &[f32]) -> Vec<Hit> {
        scores.iter().enumerate().map(|(id, &score)| Hit { id: id as u32, score }).collect()
    }

    fn ids(chosen: &Chosen) -> Vec<u32> {
        chosen.negatives.iter().map(|hit| hit.id).collect()
    }

    #[test]
    fn every_reason_is_counted() {
        let selection = NegativeSelection {
            rank_min: 1,
            rank_max: Some(8),
            max_score: Some(0.85),
            min_score: Some(0.2),
            absolute_margin: Some(0.1),
            relative_margin: Some(0.25),
            count: 2,
            ..Default::default()
        };
        // Positives at 0.9 and 0.8: bounds 0.7 and 0.6. Row 1 is a positive and takes no rank.
        let candidates = hits(&[0.95, 0.9, 0.88, 0.75, 0.65, 0.6, 0.5, 0.4, 0.1, 0.05]);
        let chosen = selection.choose("q", &candidates, &[0.9, 0.8], |id| id == 1).unwrap();
        assert_eq!(ids(&chosen), [5, 6]);
        let expected = Dropped {
            excluded: 1,
            outside_window: 2,
            above_max_score: 1,
            below_min_score: 1,
            absolute_margin: 1,
            relative_margin: 1,
            not_drawn: 1,
        };
        assert_eq!(chosen.dropped, expected);

        let widest = NegativeSelection { positive: PositiveScore::Max, ..selection };
        // From 0.9: bounds 0.8 and 0.675.
        assert_eq!(ids(&widest.choose("q", &candidates, &[0.9, 0.8], |id| id == 1).unwrap()), [4, 5]);
    }

    #[test]
    fn a_relative_margin_tightens_for_negative_positives() {
        let selection =
            NegativeSelection { relative_margin: Some(0.1), count: 9, ..NegativeSelection::default() };
        let chosen = selection.choose("q", &hits(&[-0.9, -1.0, -1.05, -1.2]), &[-1.0], |_| false).unwrap();
        assert_eq!(ids(&chosen), [3]);
        assert_eq!(chosen.dropped.relative_margin, 3);
    }

    #[test]
    fn draws_depend_on_seed_and_query_alone() {
        let candidates = hits(&[0.5; 100]);
        for sampling in [Sampling::Uniform, Sampling::Softmax(SoftmaxSampling::default())] {
            let selection = NegativeSelection { sampling, count: 10, ..Default::default() };
            let draw = |seed, query: &str| {
                ids(&NegativeSelection { seed, ..selection.clone() }
                    .choose(query, &candidates, &[], |_| false)
                    .unwrap())
            };
            assert_eq!(draw(1, "a"), draw(1, "a"));
            assert_ne!(draw(1, "a"), draw(1, "b"));
            assert_ne!(draw(1, "a"), draw(2, "a"));
            assert!(draw(1, "a").is_sorted());
            assert_eq!(draw(1, "a").len(), 10);
        }
    }

    #[test]
    fn chances_are_as_promised() {
        // Scores a temperature apart: chances in proportion 1 : e.
        let candidates = hits(&[0.1, 0.0]);
        let softmax = Sampling::Softmax(SoftmaxSampling { temperature: 0.1 });
        for (sampling, expected) in [(Sampling::Uniform, 0.5), (softmax, 1.0 / (1.0 + (-1.0f64).exp()))] {
            let selection = NegativeSelection { sampling, count: 1, ..Default::default() };
            let first = (0..4000)
                .filter(|i| {
                    let chosen = selection.choose(&i.to_string(), &candidates, &[], |_| false).unwrap();
                    ids(&chosen) == [0]
                })
                .count();
            assert!((first as f64 / 4000.0 - expected).abs() < 0.03, "{sampling:?} {first}");
        }
    }

    #[test]
    fn queries_get_the_negatives_they_have() {
        let selection = NegativeSelection { count: 5, sampling: Sampling::Uniform, ..Default::default() };
        assert_eq!(ids(&selection.choose("q", &hits(&[0.3, 0.2]), &[], |_| false).unwrap()), [0, 1]);
        assert!(selection.choose("q", &[], &[], |_| false).unwrap().negatives.is_empty());
        let none = NegativeSelection { count: 0, ..selection };
        assert_eq!(none.choose("q", &hits(&[0.3]), &[], |_| false).unwrap().dropped.not_drawn, 1);
    }

    #[test]
    fn bad_settings_and_scores_are_refused() {
        let with_margin = NegativeSelection { absolute_margin: Some(0.1), ..Default::default() };
        assert!(matches!(
            with_margin.choose("q7", &hits(&[0.5]), &[], |_| false),
            Err(Error::NoPositive { query }) if query == "q7"
        ));
        assert!(matches!(
            with_margin.choose("q", &hits(&[f32::NAN]), &[1.0], |_| false),
            Err(Error::NanScore { .. })
        ));
        let base = NegativeSelection::default;
        for bad in [
            NegativeSelection { rank_min: 5, rank_max: Some(5), ..base() },
            NegativeSelection { absolute_margin: Some(-0.1), ..base() },
            NegativeSelection { relative_margin: Some(f32::NAN), ..base() },
            NegativeSelection { min_score: Some(0.5), max_score: Some(0.4), ..base() },
            NegativeSelection { sampling: Sampling::Softmax(SoftmaxSampling { temperature: 0.0 }), ..base() },
        ] {
            assert!(matches!(bad.validate(), Err(Error::BadConfig { .. })), "{bad:?}");
        }
        assert!(serde_json::from_str::<NegativeSelection>(r#"{"rank_mni": 3}"#).is_err());
        let parsed: NegativeSelection =
            serde_json::from_str(r#"{"sampling": {"softmax": {"temperature": 1.0}}, "positive": "max"}"#)
                .unwrap();
        assert_eq!(parsed.positive, PositiveScore::Max);
    }
}
