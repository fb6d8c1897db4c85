//! What the text metrics share: the record they score, Python's white space, counting of n-grams.

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One generated text and the texts it is measured against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// What the system wrote.
    pub prediction: String,
    /// The gold texts; any of them would do.
    pub references: Vec<String>,
}

/// The reference tools are Python's, whose `str.split()` also splits at the four ASCII separators.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// How often each item occurs.
pub(crate) fn counts<T: Hash + Eq>(items: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

/// How many items two multisets share.
pub(crate) fn overlap<T: Hash + Eq>(a: &HashMap<T, usize>, b: &HashMap<T, usize>) -> usize {
    a.iter().map(|(item, &count)| count.min(b.get(item).copied().unwrap_or(0))).sum()
}

/// The harmonic mean, 0 where both are 0.
pub(crate) fn f1(precision: f64, recall: f64) -> f64 {
    if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
}

/// The mean, 0 of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// A corpus score needs a reference for each example and at least one example.
pub(crate) fn check(examples: &[Example]) -> Result<()> {
    if examples.is_empty() {
        return Err(Error::NoExamples);
    }
    match examples.iter().position(|example| example.references.is_empty()) {
        Some(example) => Err(Error::NoReference { example }),
        None => Ok(()),
    }
}
