//! How much a generator's answers owe to its contexts: the same questions answered with their contexts, without any, with
//! another question's, and with their own in another order. A generator that reads loses with the second and the third
//! and hardly changes with the fourth; one that recites does not care.
//!
//! The text measures themselves are `ragduet_metrics`'; here is what is asked and how it is compared.

use crate::Result;
use crate::error::Error;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What stands in the prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Each question's own contexts.
    With,
    /// None.
    Without,
    /// Another question's contexts.
    Mismatched,
    /// Its own, in another order.
    Shuffled,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::With, Self::Without, Self::Mismatched, Self::Shuffled];

    /// Every question's contexts under this condition. Deterministic. With a single question there are no other
    /// question's contexts: `Mismatched` is then empty.
    pub fn contexts<T: Clone>(self, own: &[Vec<T>], seed: u64) -> Vec<Vec<T>> {
        match self {
            Self::With => own.to_vec(),
            Self::Without => vec![Vec::new(); own.len()],
            Self::Mismatched if own.len() < 2 => vec![Vec::new(); own.len()],
            Self::Mismatched => others(own.len(), seed).into_iter().map(|i| own[i].clone()).collect(),
            Self::Shuffled => {
                let shuffled = own.iter().enumerate().map(|(i, contexts)| {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed);
                    rng.set_stream(i as u64);
                    another_order(contexts, &mut rng)
                });
                shuffled.collect()
            }
        }
    }
}

/// For each of `n` (2 or more) another one, each once: along a random cycle through all, so none is its own.
fn others(n: usize, seed: u64) -> Vec<usize> {
    let mut cycle: Vec<usize> = (0..n).collect();
    cycle.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut of = vec![0; n];
    for (at, &i) in cycle.iter().enumerate() {
        of[i] = cycle[(at + 1) % n];
    }
    of
}

/// The same contexts in an order that is not the same, where there are two or more.
fn another_order<T: Clone>(contexts: &[T], rng: &mut ChaCha8Rng) -> Vec<T> {
    let mut order: Vec<usize> = (0..contexts.len()).collect();
    order.shuffle(rng);
    if contexts.len() > 1 && order.is_sorted() {
        order.rotate_left(rng.random_range(1..contexts.len()));
    }
    order.into_iter().map(|i| contexts[i].clone()).collect()
}

/// Scores under one condition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConditionScores {
    /// Which.
    pub condition: Condition,
    /// A score per question.
    pub scores: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// The mean with the own contexts less this one: what the condition costs.
    pub loss: f64,
    /// The share of questions whose score is lower than with the own contexts.
    pub worse: f64,
}

/// Answers every question under the conditions and compares with [`Condition::With`], which always comes first.
///
/// `own`: each question's contexts. `score`: given a condition and each question's contexts under it, answers all of
/// them and gives a score each, greater is better (exact match, F1, log-probability of the answer).
///
/// # Errors
/// Those of `score`; [`Error::Unusable`] where it does not give a score per question, or there are no questions.
pub fn compare<T: Clone>(
    own: &[Vec<T>],
    conditions: &[Condition],
    seed: u64,
    mut score: impl FnMut(Condition, &[Vec<T>]) -> Result<Vec<f64>>,
) -> Result<Vec<ConditionScores>> {
    if own.is_empty() {
        return Err(Error::Unusable("no questions to compare conditions on".into()));
    }
    let mut run = |condition: Condition| {
        let scores = score(condition, &condition.contexts(own, seed))?;
        if scores.len() != own.len() {
            let why = format!("{} scores of {} questions ({condition:?})", scores.len(), own.len());
            return Err(Error::Unusable(why));
        }
        Ok(scores)
    };
    let base = run(Condition::With)?;
    let n = own.len() as f64;
    let mean = |s: &[f64]| s.iter().sum::<f64>() / n;
    let with = mean(&base);
    let mut out = vec![ConditionScores {
        condition: Condition::With,
        scores: base.clone(),
        mean: with,
        loss: 0.0,
        worse: 0.0,
    }];
    for &condition in conditions.iter().filter(|c| **c != Condition::With) {
        let scores = run(condition)?;
        let mean = mean(&scores);
        let worse = scores.iter().zip(&base).filter(|(s, b)| s < b).count() as f64 / n;
        out.push(ConditionScores { condition, mean, loss: with - mean, worse, scores });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<Vec<u32>> {
        (0..9).map(|q| (0..=q).map(|i| q * 10 + i).collect()).collect()
    }

    #[test]
    fn conditions_are_what_they_say() {
        let own = own();
        assert_eq!(Condition::With.contexts(&own, 1), own);
        assert!(Condition::Without.contexts(&own, 1).iter().all(Vec::is_empty));
        for seed in 0..50 {
            let mut mismatched = Condition::Mismatched.contexts(&own, seed);
            assert!(mismatched.iter().zip(&own).all(|(a, b)| a != b), "none keeps its own");
            mismatched.sort();
            assert_eq!(mismatched, own, "every question's are used once");
            for (a, b) in Condition::Shuffled.contexts(&own, seed).iter_mut().zip(&own) {
                assert_eq!(a == b, b.len() < 2);
                a.sort_unstable();
                assert_eq!(a, b);
            }
        }
        assert_eq!(Condition::Shuffled.contexts(&own, 4), Condition::Shuffled.contexts(&own, 4));
        assert_ne!(Condition::Mismatched.contexts(&own, 4), Condition::Mismatched.contexts(&own, 5));
        assert_eq!(Condition::Mismatched.contexts(&[vec![1]], 0), [Vec::<i32>::new()]);
    }

    #[test]
    fn a_reader_loses_without_its_contexts_and_a_reciter_does_not() {
        let own = own();
        // Answers right if its own first passage is anywhere in the prompt.
        let reader = |_: Condition, shown: &[Vec<u32>]| {
            Ok(shown.iter().enumerate().map(|(q, c)| f64::from(c.contains(&(q as u32 * 10)))).collect())
        };
        let r = compare(&own, &Condition::ALL, 7, reader).unwrap();
        assert_eq!(r.iter().map(|c| c.condition).collect::<Vec<_>>(), Condition::ALL);
        assert_eq!(r.iter().map(|c| c.loss).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(r.iter().map(|c| c.worse).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 0.0]);
        let reciter = |_: Condition, shown: &[Vec<u32>]| Ok(vec![0.4; shown.len()]);
        let r = compare(&own, &[Condition::Without], 7, reciter).unwrap();
        assert!(r.len() == 2 && r.iter().all(|c| c.loss == 0.0 && (c.mean - 0.4).abs() < 1e-12));
        assert!(compare(&own, &[], 0, |_, _: &[Vec<u32>]| Ok(vec![])).is_err());
        assert!(compare(&[] as &[Vec<u32>], &[], 0, |_, _| Ok(vec![])).is_err());
    }
}
