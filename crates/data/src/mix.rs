//! Several data sets in one epoch: whose batch is next.
//!
//! Batches are planned per data set ([`crate::plan_epoch`]), so that in-batch negatives come from one domain; here
//! only the order of the data sets is decided. Like a plan, it is a pure function of its arguments.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How data sets take turns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mixing {
    /// Every batch of every data set once; each turn is drawn in proportion to the batches that are left.
    #[default]
    Proportional,
    /// One batch of each in turn, until the smallest is used up.
    RoundRobin,
    /// As many batches as there are in all, drawn by weight, one weight per data set. Small data sets begin again,
    /// large ones are not used up.
    Weights(Vec<f64>),
}

/// One turn: the data set, and which batch of it. With weights a number may exceed the data set's batches:
/// `pass` counts how often it has begun again, and is to be added to the epoch when its plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Index of the data set.
    pub set: usize,
    /// Index of the batch in its plan.
    pub batch: usize,
    /// How many times the data set was used up before.
    pub pass: u64,
}

/// Orders the batches of several data sets; `batches` holds how many each has.
pub fn mix(batches: &[usize], mixing: &Mixing, seed: u64, epoch: u64) -> Result<Vec<Turn>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let total: usize = batches.iter().sum();
    let mut used = vec![0usize; batches.len()];
    let mut turns = Vec::new();
    let mut take = |set: usize| {
        let n = used[set];
        used[set] += 1;
        Turn { set, batch: n % batches[set], pass: (n / batches[set]) as u64 }
    };
    match mixing {
        Mixing::Proportional => {
            let mut left = batches.to_vec();
            for remaining in (1..=total).rev() {
                let mut at = rng.random_range(0..remaining);
                for (set, count) in left.iter_mut().enumerate() {
                    if at < *count {
                        *count -= 1;
                        turns.push(take(set));
                        break;
                    }
                    at -= *count;
                }
            }
        }
        Mixing::RoundRobin => {
            for _ in 0..batches.iter().copied().min().unwrap_or(0) {
                turns.extend((0..batches.len()).map(&mut take));
            }
        }
        Mixing::Weights(weights) => {
            let refuse = |reason: String| Err(Error::Config { key: "weights".into(), reason });
            if weights.len() != batches.len() {
                return refuse(format!("{} weights for {} data sets", weights.len(), batches.len()));
            }
            let sum: f64 = weights.iter().sum();
            if weights.iter().any(|w| *w < 0.0 || !w.is_finite()) || sum <= 0.0 {
                return refuse("must be finite, not negative, and not all zero".into());
            }
            if let Some(set) = (0..batches.len()).find(|&i| weights[i] > 0.0 && batches[i] == 0) {
                return refuse(format!("data set {set} has a weight but no batch"));
            }
            // Rounding may leave the draw past the last weight; the last data set in use takes it.
            let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
            for _ in 0..total {
                let mut at = rng.random::<f64>() * sum;
                let found = weights.iter().position(|w| {
                    at -= w;
                    at < 0.0
                });
                turns.push(take(found.unwrap_or(last)));
            }
        }
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proportional_uses_every_batch_once() {
        let turns = mix(&[3, 0, 50], &Mixing::Proportional, 1, 0).unwrap();
        let mut all: Vec<_> = turns.iter().map(|t| (t.set, t.batch, t.pass)).collect();
        all.sort_unstable();
        let expected: Vec<_> = (0..3).map(|b| (0, b, 0)).chain((0..50).map(|b| (2, b, 0))).collect();
        assert_eq!(all, expected);
        assert_eq!(turns, mix(&[3, 0, 50], &Mixing::Proportional, 1, 0).unwrap());
        assert_ne!(turns, mix(&[3, 0, 50], &Mixing::Proportional, 1, 1).unwrap());
    }

    #[test]
    fn round_robin_ends_with_the_smallest() {
        let sets: Vec<_> = mix(&[2, 5], &Mixing::RoundRobin, 0, 0).unwrap().iter().map(|t| t.set).collect();
        assert_eq!(sets, [0, 1, 0, 1]);
    }

    #[test]
    fn weights_begin_again() {
        let turns = mix(&[10, 990], &Mixing::Weights(vec![1.0, 1.0]), 0, 0).unwrap();
        let first: Vec<_> = turns.iter().filter(|t| t.set == 0).collect();
        assert_eq!(turns.len(), 1000);
        assert!((400..600).contains(&first.len()), "{}", first.len());
        assert_eq!((first[10].batch, first[10].pass), (0, 1));
        for weights in [vec![1.0], vec![0.0, 0.0], vec![-1.0, 2.0], vec![f64::NAN, 1.0]] {
            assert!(mix(&[1, 1], &Mixing::Weights(weights), 0, 0).is_err());
        }
        assert!(mix(&[0, 1], &Mixing::Weights(vec![1.0, 1.0]), 0, 0).is_err());
    }
}
