//! How much a generator's answers owe to its contexts: the same questions answered with their contexts, without any, with
//! another question's, and with their own in another order. A generator that reads loses with the second and the third
//! and hardly changes with the fourth; one that recites does not care.
//!
//! The text measures themselves are `ragduet_metrics`'; here is what is asked and how it is compared.

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
}
