//! Classification and regression figures, equal to scikit-learn's and scipy's.

use rayon::prelude::*;
use serde::Serialize;

use crate::{Error, Result};

/// Precision, recall and F1 with the number of examples they rest on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassScores {
    /// Of the examples given this class, the share that has it.
    pub precision: f64,
    /// Of the examples that have it, the share given it.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Examples that have it.
    pub support: usize,
}

impl ClassScores {
    /// From counts: `right` of the `given`, where `support` have it.
    fn of(right: usize, given: usize, support: usize, zero_division: f64) -> Self {
        let divide = |a: usize, b: usize| if b == 0 { zero_division } else { a as f64 / b as f64 };
        Self {
            precision: divide(right, given),
            recall: divide(right, support),
            // 2 right / (given + support): 0, not `zero_division`, where only one of precision and recall is undefined.
            f1: divide(2 * right, given + support),
            support,
        }
    }

    /// The mean over classes; the plain one where nothing weighs, as scikit-learn has it.
    fn average(each: &[Self], weights: &[f64]) -> Self {
        let weighs = weights.iter().any(|w| *w > 0.0);
        let weight = |i: usize| if weighs { weights[i] } else { 1.0 };
        let total: f64 = (0..each.len()).map(weight).sum();
        let mean = |field: fn(&Self) -> f64| {
            each.iter().enumerate().map(|(i, scores)| field(scores) * weight(i)).sum::<f64>() / total
        };
        Self {
            precision: mean(|s| s.precision),
            recall: mean(|s| s.recall),
            f1: mean(|s| s.f1),
            support: each.iter().map(|s| s.support).sum(),
        }
    }
}

/// The figures of a classifier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classification {
    /// The share of right answers.
    pub accuracy: f64,
    /// Per class, from 0.
    pub classes: Vec<ClassScores>,
    /// The plain mean over the classes that occur (as gold or as prediction), as scikit-learn's default labels.
    pub macro_average: ClassScores,
    /// From the counts of all classes together; with one label per example all three equal the accuracy.
    pub micro_average: ClassScores,
    /// The mean over classes weighted by support.
    pub weighted_average: ClassScores,
    /// `confusion[gold][predicted]`: examples.
    pub confusion: Vec<Vec<usize>>,
}

/// Scores predicted classes. `zero_division` stands for a quotient by zero, as scikit-learn's setting: the precision
/// of a class never predicted, the recall of one that never occurs, the F1 of one that does neither. 0 is
/// scikit-learn's default (with a warning).
///
/// # Errors
/// [`Error::Lengths`], [`Error::NoExamples`]; [`Error::BadSetting`] for a class from `classes` up.
pub fn classification(
    gold: &[usize],
    predicted: &[usize],
    classes: usize,
    zero_division: f64,
) -> Result<Classification> {
    same_length("gold and predicted classes", gold.len(), predicted.len())?;
    if let Some(class) = gold.iter().chain(predicted).find(|class| **class >= classes) {
        let remedy = "classes are counted from 0 and lie below the number of classes";
        return Err(Error::BadSetting { setting: "a class", got: class.to_string(), remedy });
    }
    let mut confusion = vec![vec![0; classes]; classes];
    for (&gold, &predicted) in gold.iter().zip(predicted) {
        confusion[gold][predicted] += 1;
    }
    let scores = |right, given, support| ClassScores::of(right, given, support, zero_division);
    let given = |class: usize| confusion.iter().map(|row| row[class]).sum::<usize>();
    let each: Vec<ClassScores> =
        (0..classes).map(|c| scores(confusion[c][c], given(c), confusion[c].iter().sum())).collect();
    let right: usize = (0..classes).map(|c| confusion[c][c]).sum();
    let n = gold.len();
    let occurs: Vec<f64> =
        each.iter().enumerate().map(|(c, s)| f64::from(s.support > 0 || given(c) > 0)).collect();
    let weights: Vec<f64> = each.iter().map(|s| s.support as f64).collect();
    Ok(Classification {
        accuracy: right as f64 / n as f64,
        macro_average: ClassScores::average(&each, &occurs),
        micro_average: scores(right, n, n),
        weighted_average: ClassScores::average(&each, &weights),
        classes: each,
        confusion,
    })
}

/// The figures of a classifier that gives any number of classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MultiLabel {
    /// The share of examples whose classes are all right.
    pub subset_accuracy: f64,
    /// Per class, from 0.
    pub classes: Vec<ClassScores>,
    /// The plain mean over classes.
    pub macro_average: ClassScores,
    /// From the counts of all classes together.
    pub micro_average: ClassScores,
    /// The mean over classes weighted by support.
    pub weighted_average: ClassScores,
}

/// Scores sets of classes, a flag per class; `zero_division` as in [`classification`].
///
/// # Errors
/// [`Error::Lengths`] (also of the flags of an example), [`Error::NoExamples`].
pub fn multi_label(gold: &[Vec<bool>], predicted: &[Vec<bool>], zero_division: f64) -> Result<MultiLabel> {
    same_length("gold and predicted classes", gold.len(), predicted.len())?;
    let classes = gold.first().map_or(0, Vec::len);
    for flags in gold.iter().chain(predicted) {
        if flags.len() != classes {
            return Err(Error::Lengths { what: "flags of examples", a: classes, b: flags.len() });
        }
    }
    // right, given, support
    let mut counts = vec![(0, 0, 0); classes];
    for (gold, predicted) in gold.iter().zip(predicted) {
        for ((count, g), p) in counts.iter_mut().zip(gold).zip(predicted) {
            count.0 += usize::from(*g && *p);
            count.1 += usize::from(*p);
            count.2 += usize::from(*g);
        }
    }
    let each: Vec<ClassScores> = counts
        .iter()
        .map(|&(right, given, support)| ClassScores::of(right, given, support, zero_division))
        .collect();
    let all = counts.iter().fold((0, 0, 0), |a, c| (a.0 + c.0, a.1 + c.1, a.2 + c.2));
    let weights: Vec<f64> = each.iter().map(|s| s.support as f64).collect();
    let right = gold.iter().zip(predicted).filter(|(g, p)| g == p).count();
    Ok(MultiLabel {
        subset_accuracy: right as f64 / gold.len() as f64,
        macro_average: ClassScores::average(&each, &vec![1.0; classes]),
        micro_average: ClassScores::of(all.0, all.1, all.2, zero_division),
        weighted_average: ClassScores::average(&each, &weights),
        classes: each,
    })
}

/// The figures of a regression.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Regression {
    /// Mean squared error.
    pub mse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Pearson's correlation; `None` with fewer than two examples or where one side is constant.
    pub pearson: Option<f64>,
    /// Spearman's, the Pearson correlation of ranks, ties taking their mean rank; `None` as above.
    pub spearman: Option<f64>,
}

/// Scores predicted numbers.
///
/// # Errors
/// [`Error::Lengths`], [`Error::NoExamples`]; [`Error::BadSetting`] for a number that is not finite.
pub fn regression(gold: &[f64], predicted: &[f64]) -> Result<Regression> {
    same_length("gold and predicted numbers", gold.len(), predicted.len())?;
    if let Some(value) = gold.iter().chain(predicted).find(|value| !value.is_finite()) {
        let remedy = "values must be finite numbers";
        return Err(Error::BadSetting { setting: "a value", got: value.to_string(), remedy });
    }
    let n = gold.len() as f64;
    let mean = |f: fn(f64) -> f64| gold.iter().zip(predicted).map(|(g, p)| f(g - p)).sum::<f64>() / n;
    Ok(Regression {
        mse: mean(|d| d * d),
        mae: mean(f64::abs),
        pearson: pearson(gold, predicted),
        spearman: pearson(&ranks(gold), &ranks(predicted)),
    })
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    if a.len() < 2 || constant(a) || constant(b) {
        return None;
    }
    // Scaled to about 1 before anything is added, and to unit length before the product: nothing overflows or vanishes.
    let unit = |values: &[f64]| -> Vec<f64> {
        let size = values.iter().fold(0.0f64, |max, v| max.max(v.abs()));
        let values: Vec<f64> =
            if size > 1e100 { values.iter().map(|v| v / size).collect() } else { values.into() };
        let mean = crate::text::mean(&values);
        let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
        let largest = centred.iter().fold(0.0f64, |max, d| max.max(d.abs()));
        let norm = centred.iter().map(|d| (d / largest).powi(2)).sum::<f64>().sqrt();
        centred.iter().map(|d| d / largest / norm).collect()
    };
    Some(unit(a).iter().zip(unit(b)).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0))
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.par_sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    // Compared as numbers: 0 and -0 tie.
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let rank = start as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        start += tied.len();
    }
    ranks
}

fn same_length(what: &'static str, a: usize, b: usize) -> Result<()> {
    match (a, b) {
        (0, 0) => Err(Error::NoExamples),
        _ if a != b => Err(Error::Lengths { what, a, b }),
        _ => Ok(()),
    }
}
