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

/// Whether a letter is of a script that writes no spaces between words: Chinese, Japanese, Thai, Lao, Burmese, Khmer and
/// others. Such texts are compared character by character.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c,
        // Thai and Lao; Burmese; Khmer; scripts of Southeast Asia.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1950}'..='\u{19df}'
        | '\u{1a20}'..='\u{1aaf}' | '\u{1b00}'..='\u{1b7f}' | '\u{a980}'..='\u{a9df}'
        // Han, with its radicals, signs and extensions; kana.
        | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}')
}

/// A text with its typography as ASCII has it: quotes, apostrophes and dashes, the full-width forms of Chinese and
/// Japanese fonts, no soft hyphens.
pub(crate) fn fold(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'))
        .map(|c| match c {
            '\u{2018}'..='\u{201b}'
            | '\u{2032}'
            | '\u{2b9}'
            | '\u{2bc}'
            | '\u{b4}'
            | '\u{2039}'
            | '\u{203a}' => '\'',
            '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ab}' | '\u{bb}' => '"',
            '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
            '\u{2026}' => '.',
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
            // Punctuation of Chinese and Japanese; the middle dot of names.
            '\u{3000}'..='\u{3004}'
            | '\u{3008}'..='\u{3020}'
            | '\u{3030}'
            | '\u{30fb}'
            | '\u{ff61}'..='\u{ff65}' => ' ',
            c => c,
        })
        .collect()
}

/// A text with the characters of scripts without spaces apart, so that they are words. Others stay as they are.
pub fn spaced(text: &str) -> String {
    if !text.chars().any(is_unspaced) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(2 * text.len());
    for c in fold(text).chars() {
        if is_unspaced(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    out
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
