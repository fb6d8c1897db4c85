//! Could the difference between two systems be chance? Paired tests over per-query scores.
//!
//! Both tests take the differences `d_i = a_i - b_i` of two systems on the same queries, and both are free of
//! assumptions about their distribution.
//!
//! - [`randomisation`] (Fisher's, with random signs): if the systems were alike, each `d_i` could as well have had
//!   the other sign. `p` is the share of sign choices whose mean is at least as far from 0. With few queries all
//!   `2^n` choices are tried and `p` is exact. The usual advice for retrieval (Smucker, Allan, Carterette 2007).
//! - [`bootstrap`] (Efron): queries are drawn anew with replacement. The interval holds the middle of the drawn
//!   means (percentile method); `p` is the share of draws, shifted to mean 0, that lie at least as far from 0.
//!
//! Results depend on the seed alone, not on the number of threads.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::{Error, Result};

/// Rounding must not decide whether a resampled mean is as extreme as the observed one.
const TIE: f64 = 1e-12;

/// How much is resampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resampling {
    /// Draws; 10 000 put the standard error of a p-value of 0.05 at 0.002.
    pub samples: usize,
    /// The same seed gives the same result.
    pub seed: u64,
    /// The share of draws that the confidence interval holds.
    pub confidence: f64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { samples: 10_000, seed: 0, confidence: 0.95 }
    }
}

/// The outcome of a paired test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairedTest {
    /// Queries compared.
    pub queries: usize,
    /// Mean of the first system.
    pub mean_a: f64,
    /// Mean of the second system.
    pub mean_b: f64,
    /// `mean_a - mean_b`.
    pub difference: f64,
    /// Two-sided.
    pub p_value: f64,
    /// The bootstrap interval around `difference`.
    pub interval: (f64, f64),
    /// Whether `p_value` comes from all possibilities rather than from a sample.
    pub exact: bool,
}

/// The paired bootstrap test.
pub fn bootstrap(a: &[f64], b: &[f64], resampling: &Resampling) -> Result<PairedTest> {
    let differences = paired(a, b, resampling)?;
    let observed = mean(&differences);
    let drawn = bootstrap_means(&differences, resampling);
    let extreme = drawn.iter().filter(|&&drawn| (drawn - observed).abs() >= observed.abs() - TIE).count();
    Ok(PairedTest {
        queries: a.len(),
        mean_a: mean(a),
        mean_b: mean(b),
        difference: observed,
        // The sample itself is one of the possible draws, hence the ones: p is never 0.
        p_value: (extreme + 1) as f64 / (resampling.samples + 1) as f64,
        interval: interval(drawn, resampling.confidence),
        exact: false,
    })
}

/// The paired randomisation test; the interval is the bootstrap's.
pub fn randomisation(a: &[f64], b: &[f64], resampling: &Resampling) -> Result<PairedTest> {
    let differences = paired(a, b, resampling)?;
    let observed = mean(&differences);
    // Queries on which both agree add nothing under either sign.
    let moving: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let threshold = differences.iter().sum::<f64>().abs() - TIE * differences.len() as f64;
    let exact = moving.len() < 63 && (1u64 << moving.len()) <= resampling.samples as u64;
    let p_value = if exact {
        let choices = 1u64 << moving.len();
        let extreme = (0..choices)
            .into_par_iter()
            .filter(|choice| signed_sum(&moving, |i| choice >> i & 1 == 1).abs() >= threshold)
            .count();
        extreme as f64 / choices as f64
    } else {
        let extreme: usize = resample(resampling, |rng| {
            let mut bits = 0u64;
            let sum = signed_sum(&moving, |i| {
                if i % 64 == 0 {
                    bits = rng.random();
                }
                bits >> (i % 64) & 1 == 1
            });
            sum.abs() >= threshold
        })
        .into_iter()
        .filter(|&extreme| extreme)
        .count();
        (extreme + 1) as f64 / (resampling.samples + 1) as f64
    };
    Ok(PairedTest {
        queries: a.len(),
        mean_a: mean(a),
        mean_b: mean(b),
        difference: observed,
        p_value,
        interval: interval(bootstrap_means(&differences, resampling), resampling.confidence),
        exact,
    })
}

fn paired(a: &[f64], b: &[f64], resampling: &Resampling) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        return Err(Error::Unpaired { a: a.len(), b: b.len() });
    }
    let bad = |setting, got, remedy| Err(Error::BadSetting { setting, got, remedy });
    if a.len() < 2 {
        return bad("the number of queries", a.len().to_string(), "a test needs at least two");
    }
    if let Some(value) = a.iter().chain(b).find(|value| !value.is_finite()) {
        return bad("a score", value.to_string(), "scores must be finite numbers");
    }
    if resampling.samples == 0 {
        return bad("samples", "0".to_owned(), "use some thousands");
    }
    if !(resampling.confidence > 0.0 && resampling.confidence < 1.0) {
        return bad("confidence", resampling.confidence.to_string(), "it lies between 0 and 1, as 0.95 does");
    }
    Ok(a.iter().zip(b).map(|(a, b)| a - b).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn signed_sum(values: &[f64], mut flip: impl FnMut(usize) -> bool) -> f64 {
    values.iter().enumerate().map(|(i, value)| if flip(i) { -value } else { *value }).sum()
}

fn bootstrap_means(differences: &[f64], resampling: &Resampling) -> Vec<f64> {
    let n = differences.len();
    resample(resampling, |rng| (0..n).map(|_| differences[rng.random_range(0..n)]).sum::<f64>() / n as f64)
}

/// Draws in blocks, each with a random stream of its own, so that threads do not change the outcome.
fn resample<T: Send>(resampling: &Resampling, draw: impl Fn(&mut ChaCha8Rng) -> T + Sync) -> Vec<T> {
    const BLOCK: usize = 256;
    let blocks = resampling.samples.div_ceil(BLOCK);
    (0..blocks)
        .into_par_iter()
        .flat_map_iter(|block| {
            let mut rng = ChaCha8Rng::seed_from_u64(resampling.seed);
            rng.set_stream(block as u64);
            let draw = &draw;
            let count = BLOCK.min(resampling.samples - block * BLOCK);
            (0..count).map(move |_| draw(&mut rng))
        })
        .collect()
}

fn interval(mut drawn: Vec<f64>, confidence: f64) -> (f64, f64) {
    drawn.sort_unstable_by(f64::total_cmp);
    let quantile = |q: f64| {
        // Linear between order statistics, as numpy does.
        let at = q * (drawn.len() - 1) as f64;
        let (low, high) = (drawn[at.floor() as usize], drawn[at.ceil() as usize]);
        low + (high - low) * at.fract()
    };
    let tail = (1.0 - confidence) / 2.0;
    (quantile(tail), quantile(1.0 - tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_randomisation_counts_sign_choices() {
        // All five differences are 1: only the two choices with equal signs reach a mean of 1. p = 2/32.
        let test = randomisation(&[1.0; 5], &[0.0; 5], &Resampling::default()).unwrap();
        assert!(test.exact);
        assert_eq!(test.p_value, 2.0 / 32.0);
        assert_eq!((test.difference, test.interval), (1.0, (1.0, 1.0)));

        // d = 3, 1, -1, sum 3: of the eight sums ±5 (two), ±3 (four), ±1 (two), six reach 3.
        let test = randomisation(&[3.0, 1.0, 0.0], &[0.0, 0.0, 1.0], &Resampling::default()).unwrap();
        assert_eq!(test.p_value, 6.0 / 8.0);
    }

    #[test]
    fn equal_systems_differ_by_nothing() {
        let scores: Vec<f64> = (0..100).map(|i| f64::from(i) / 100.0).collect();
        for test in [bootstrap, randomisation] {
            let outcome = test(&scores, &scores, &Resampling::default()).unwrap();
            assert_eq!((outcome.difference, outcome.p_value, outcome.interval), (0.0, 1.0, (0.0, 0.0)));
        }
    }

    #[test]
    fn sampled_randomisation_agrees_with_the_exact_one() {
        let a: Vec<f64> = (0..14).map(|i| f64::from(i * 7 % 5) / 5.0).collect();
        let b: Vec<f64> = (0..14).map(|i| f64::from(i * 3 % 7) / 9.0 + 0.01).collect();
        let exact = randomisation(&a, &b, &Resampling { samples: 1 << 14, ..Default::default() }).unwrap();
        let sampled = randomisation(&a, &b, &Resampling { samples: 16_000, ..Default::default() }).unwrap();
        assert!(exact.exact && !sampled.exact);
        assert!((exact.p_value - sampled.p_value).abs() < 0.015, "{} {}", exact.p_value, sampled.p_value);
    }

    #[test]
    fn bootstrap_agrees_with_the_normal_approximation() {
        // 400 differences, half 0.3 and half -0.1: mean 0.1, deviation 0.2, standard error 0.01.
        let a: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 0.3 } else { -0.1 }).collect();
        let outcome = bootstrap(&a, &vec![0.0; 400], &Resampling::default()).unwrap();
        assert!((outcome.interval.0 - (0.1 - 1.96 * 0.01)).abs() < 1.5e-3, "{outcome:?}");
        assert!((outcome.interval.1 - (0.1 + 1.96 * 0.01)).abs() < 1.5e-3, "{outcome:?}");
        assert_eq!(outcome.p_value, 1.0 / 10_001.0);

        // Mean 0.01 with standard error 0.01: two-sided p of one standard error is 0.317.
        let a: Vec<f64> = (0..400).map(|i| if i % 2 == 0 { 0.21 } else { -0.19 }).collect();
        for test in [bootstrap, randomisation] {
            let outcome = test(&a, &vec![0.0; 400], &Resampling::default()).unwrap();
            assert!((outcome.p_value - 0.317).abs() < 0.04, "{outcome:?}");
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let a: Vec<f64> = (0..60).map(|i| f64::from(i * 7 % 11)).collect();
        let b: Vec<f64> = (0..60).map(|i| f64::from(i * 5 % 13)).collect();
        let once = bootstrap(&a, &b, &Resampling { seed: 3, ..Default::default() }).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again =
            pool.install(|| bootstrap(&a, &b, &Resampling { seed: 3, ..Default::default() }).unwrap());
        assert_eq!(once, again);
        let other = bootstrap(&a, &b, &Resampling { seed: 4, ..Default::default() }).unwrap();
        assert_ne!(once.interval, other.interval);
    }

    #[test]
    fn bad_input_is_refused() {
        let few = Resampling { samples: 0, ..Default::default() };
        assert!(matches!(
            bootstrap(&[1.0], &[1.0, 2.0], &Resampling::default()),
            Err(Error::Unpaired { a: 1, b: 2 })
        ));
        for (a, resampling) in [
            (vec![1.0], Resampling::default()),
            (vec![1.0, f64::NAN], Resampling::default()),
            (vec![1.0, 2.0], few),
            (vec![1.0, 2.0], Resampling { confidence: 95.0, ..Default::default() }),
        ] {
            assert!(matches!(randomisation(&a, &a, &resampling), Err(Error::BadSetting { .. })));
        }
    }
}
