//! How good are the rankings of a run? The measures of trec_eval, computed as it computes them.
//!
//! With `g_i` the grade of the document at rank `i` (unjudged documents have none), `rel_i = [g_i >= level]` and
//! `R` the number of relevant documents among the judged ones:
//!
//! | measure | value |
//! |---|---|
//! | `ndcg@k` | `sum_{i<=k, g_i>0} g_i / log2(i+1)`, divided by the same sum for the best possible order |
//! | `recall@k` | `sum_{i<=k} rel_i / R` |
//! | `precision@k` | `sum_{i<=k} rel_i / k` |
//! | `hit@k` | 1 if any `rel_i` with `i <= k` |
//! | `mrr` | `1 / min{i : rel_i}` |
//! | `map` | `sum_i rel_i * precision@i / R` |
//! | `r_precision` | `sum_{i<=R} rel_i / R` |
//!
//! A query without relevant documents scores 0 everywhere and counts, as in trec_eval. Where this differs from
//! sentence-transformers' evaluator: that one uses binary gains in nDCG and breaks ties by ascending id.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::{Serialize, Serializer};

use crate::{Measure, Qrels, Run};

/// What happens to a judged query for which the run has no ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingQueries {
    /// It scores 0, so that a system cannot gain by not answering. `trec_eval -c` averages so too.
    #[default]
    CountAsZero,
    /// It is left out of the average: trec_eval's and pytrec_eval's default.
    Skip,
}

/// How [`evaluate_with`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalOptions {
    /// Judged queries that the run does not have.
    pub missing: MissingQueries,
    /// The lowest grade that counts as relevant (trec_eval's `-l`). nDCG uses the grades as they are.
    pub relevance_level: i32,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { missing: MissingQueries::default(), relevance_level: 1 }
    }
}

/// Values of measures, in the order in which the measures were asked for. Serialises as a map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores(Vec<(Measure, f64)>);

impl Scores {
    /// The value of a measure, `None` if it was not asked for.
    pub fn get(&self, measure: Measure) -> Option<f64> {
        self.0.iter().find(|(m, _)| *m == measure).map(|&(_, value)| value)
    }

    /// Measures and values.
    pub fn iter(&self) -> impl Iterator<Item = (Measure, f64)> + '_ {
        self.0.iter().copied()
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(measure, value)| (measure, value)))
    }
}

/// The outcome of [`evaluate`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Each evaluated query's values.
    pub per_query: BTreeMap<String, Scores>,
    /// The mean over `per_query`; all zeros if there is no query.
    pub mean: Scores,
    /// The mean over the queries that both the judgements and the run have: what trec_eval prints.
    pub mean_trec: Scores,
    /// Judged queries that the run does not have, whether they count as zeros or not.
    pub missing_queries: usize,
    /// Queries of the run without judgements. They are never evaluated.
    pub unjudged_queries: usize,
    /// Evaluated queries without a relevant document. They score 0.
    pub without_relevant: usize,
}

impl Evaluation {
    /// The mean of a measure, `None` if it was not asked for.
    pub fn mean(&self, measure: Measure) -> Option<f64> {
        self.mean.get(measure)
    }

    /// A measure's value for every evaluated query, by ascending query id: what a paired test takes.
    pub fn column(&self, measure: Measure) -> Option<Vec<f64>> {
        self.mean.get(measure)?;
        Some(self.per_query.values().filter_map(|scores| scores.get(measure)).collect())
    }
}

/// Scores a run against judgements. Judged queries that the run lacks count as 0; [`evaluate_with`] can skip them.
pub fn evaluate(qrels: &Qrels, run: &Run, measures: &[Measure]) -> Evaluation {
    evaluate_with(qrels, run, measures, &EvalOptions::default())
}

/// [`evaluate`] with options.
pub fn evaluate_with(qrels: &Qrels, run: &Run, measures: &[Measure], options: &EvalOptions) -> Evaluation {
    let mut measures_once: Vec<Measure> = Vec::with_capacity(measures.len());
    for &measure in measures {
        if !measures_once.contains(&measure) {
            measures_once.push(measure);
        }
    }
    let measures = measures_once.as_slice();

    let judged: Vec<(&str, &HashMap<String, i32>)> = qrels.iter().collect();
    let rows: Vec<(&str, Scores, bool, bool)> = judged
        .into_par_iter()
        .filter_map(|(query, grades)| {
            let docs = run.get(query);
            if docs.is_none() && options.missing == MissingQueries::Skip {
                return None;
            }
            let ranking = Ranking::new(grades, docs.unwrap_or_default(), options.relevance_level);
            let scores = measures.iter().map(|&m| (m, ranking.score(m))).collect();
            Some((query, Scores(scores), docs.is_some(), ranking.relevant == 0))
        })
        .collect();

    let missing_queries = qrels.iter().filter(|(query, _)| run.get(query).is_none()).count();
    Evaluation {
        mean: mean(measures, rows.iter().map(|row| &row.1)),
        mean_trec: mean(measures, rows.iter().filter(|row| row.2).map(|row| &row.1)),
        missing_queries,
        unjudged_queries: run.iter().filter(|(query, _)| qrels.get(query).is_none()).count(),
        without_relevant: rows.iter().filter(|row| row.3).count(),
        per_query: rows.into_iter().map(|(query, scores, ..)| (query.to_owned(), scores)).collect(),
    }
}

fn mean<'a>(measures: &[Measure], rows: impl Iterator<Item = &'a Scores>) -> Scores {
    let mut sums = vec![0.0; measures.len()];
    let mut count = 0usize;
    for row in rows {
        count += 1;
        for (sum, (_, value)) in sums.iter_mut().zip(&row.0) {
            *sum += value;
        }
    }
    let count = count.max(1) as f64;
    Scores(measures.iter().zip(sums).map(|(&measure, sum)| (measure, sum / count)).collect())
}

/// One query's ranking reduced to grades.
struct Ranking {
    /// Gain (a positive grade, else 0) at each rank.
    gains: Vec<f64>,
    /// Relevance at each rank.
    hits: Vec<bool>,
    /// All positive grades among the judgements, greatest first.
    ideal: Vec<f64>,
    /// Relevant documents among the judgements.
    relevant: usize,
}

impl Ranking {
    fn new(grades: &HashMap<String, i32>, docs: &[(String, f32)], level: i32) -> Self {
        let found: Vec<Option<i32>> = docs.iter().map(|(doc, _)| grades.get(doc).copied()).collect();
        let mut ideal: Vec<i32> = grades.values().copied().filter(|&grade| grade > 0).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            gains: found.iter().map(|grade| f64::from(grade.unwrap_or(0).max(0))).collect(),
            hits: found.iter().map(|grade| grade.is_some_and(|grade| grade >= level)).collect(),
            ideal: ideal.into_iter().map(f64::from).collect(),
            relevant: grades.values().filter(|&&grade| grade >= level).count(),
        }
    }

    fn score(&self, measure: Measure) -> f64 {
        let all = self.hits.len();
        match measure {
            Measure::Ndcg { k } => ratio(discounted(&self.gains, k.get()), discounted(&self.ideal, k.get())),
            Measure::Recall { k } => ratio(self.hits_at(k.get()), self.relevant as f64),
            Measure::Precision { k } => self.hits_at(k.get()) / k.get() as f64,
            Measure::Hit { k } => f64::from(u8::from(self.hits_at(k.get()) > 0.0)),
            Measure::Mrr { k } => {
                let k = k.map_or(all, |k| k.get().min(all));
                self.hits[..k].iter().position(|&hit| hit).map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
            }
            Measure::Map { k } => {
                let k = k.map_or(all, |k| k.get().min(all));
                let (mut found, mut sum) = (0usize, 0.0);
                for (rank, _) in self.hits[..k].iter().enumerate().filter(|(_, hit)| **hit) {
                    found += 1;
                    sum += found as f64 / (rank + 1) as f64;
                }
                ratio(sum, self.relevant as f64)
            }
            Measure::RPrecision => ratio(self.hits_at(self.relevant), self.relevant as f64),
        }
    }

    fn hits_at(&self, k: usize) -> f64 {
        self.hits.iter().take(k).filter(|&&hit| hit).count() as f64
    }
}

fn discounted(gains: &[f64], k: usize) -> f64 {
    gains.iter().take(k).enumerate().map(|(rank, gain)| gain / ((rank + 2) as f64).log2()).sum()
}

/// trec_eval's convention: nothing to find, nothing earned.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
