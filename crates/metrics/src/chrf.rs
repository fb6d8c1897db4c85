//! chrF2 as sacrebleu computes it: character n-grams of orders 1 to 6 without white space, recall weighted twice as
//! much as precision, averaged over the orders that both texts have.

use rayon::prelude::*;

use crate::text::{check, counts, overlap, words};
use crate::{Example, Result};

const ORDERS: usize = 6;
const BETA_SQUARED: f64 = 4.0;

/// Per order: n-grams of the hypothesis, of the reference, and in both.
type Stats = [[usize; 3]; ORDERS];

/// One prediction's score, from 0 to 100, against its best reference; 0 without references.
pub fn score(prediction: &str, references: &[impl AsRef<str>]) -> f64 {
    f_score(&stats(prediction, references))
}

/// A corpus' score, from 0 to 100, from the summed counts of each example and its best reference.
///
/// # Errors
/// [`Error::NoExamples`](crate::Error::NoExamples), [`Error::NoReference`](crate::Error::NoReference).
pub fn corpus(examples: &[Example]) -> Result<f64> {
    check(examples)?;
    let add = |mut a: Stats, b: Stats| {
        a.as_flattened_mut().iter_mut().zip(b.as_flattened()).for_each(|(a, b)| *a += b);
        a
    };
    let sum = examples.par_iter().map(|e| stats(&e.prediction, &e.references)).reduce(Stats::default, add);
    Ok(f_score(&sum))
}

fn stats(prediction: &str, references: &[impl AsRef<str>]) -> Stats {
    let letters = |text: &str| words(text).flat_map(str::chars).collect::<Vec<char>>();
    let hypothesis = letters(prediction);
    let grams: Vec<_> = (1..=ORDERS).map(|n| counts(hypothesis.windows(n))).collect();
    let mut best = Stats::default();
    let mut best_score = -1.0;
    for reference in references {
        let reference = letters(reference.as_ref());
        let mut stats = Stats::default();
        for n in 1..=ORDERS {
            let total = |len: usize| (len + 1).saturating_sub(n);
            let in_reference = total(reference.len());
            stats[n - 1] = [
                // An order the reference does not have counts for nothing.
                if in_reference > 0 { total(hypothesis.len()) } else { 0 },
                in_reference,
                overlap(&grams[n - 1], &counts(reference.windows(n))),
            ];
        }
        let score = f_score(&stats);
        if score > best_score {
            (best, best_score) = (stats, score);
        }
    }
    best
}

fn f_score(stats: &Stats) -> f64 {
    let usable: Vec<_> = stats.iter().filter(|[hyp, reference, _]| *hyp > 0 && *reference > 0).collect();
    let orders = usable.len().max(1) as f64;
    let precision = usable.iter().map(|[hyp, _, both]| *both as f64 / *hyp as f64).sum::<f64>() / orders;
    let recall =
        usable.iter().map(|[_, reference, both]| *both as f64 / *reference as f64).sum::<f64>() / orders;
    if precision + recall == 0.0 {
        return 0.0;
    }
    100.0 * (1.0 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
}
