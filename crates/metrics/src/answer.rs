//! Short answers, as SQuAD v2's script scores them: exact match and token F1, the best over the gold answers.
//!
//! Both compare normalised texts (see [`normalise`]). Gold answers that normalise to nothing are dropped; where none
//! is left the question has no answer, and only an empty prediction is right.

use rayon::prelude::*;
use regex::Regex;
use serde::Serialize;
use std::sync::LazyLock;

use crate::text::{counts, f1, is_space, mean, overlap, words};
use crate::{Error, Example, Result};

/// A score per question and the means, all from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnswerScores {
    /// The share of questions that match exactly.
    pub exact: f64,
    /// The mean of the token F1.
    pub f1: f64,
    /// Exact match per question: 0 or 1.
    pub exact_each: Vec<f64>,
    /// Token F1 per question.
    pub f1_each: Vec<f64>,
}

/// Lower case, without ASCII punctuation, then without the words "a", "an" and "the", then single spaces. The order
/// matters: "the-end" becomes "theend".
pub fn normalise(text: &str) -> String {
    let bare: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut kept = String::with_capacity(bare.len());
    let mut rest = bare.as_str();
    // Articles end where letters and digits end, not only at spaces: "a" goes from "a\u{2013}b".
    while let Some(first) = rest.chars().next() {
        let alnum = in_word(first);
        let end = rest.find(|c: char| in_word(c) != alnum).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    let mut out = String::with_capacity(kept.len());
    for word in kept.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Python's `\w` (its underscore is punctuation here): letters and numbers, but no vowel signs and other marks, which
/// Rust holds to be alphabetic.
fn in_word(c: char) -> bool {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}]").expect("a constant expression that the tests use"));
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    c.is_alphanumeric() && WORD.is_match(c.encode_utf8(&mut [0; 4]))
}

/// Whether the normalised prediction is one of the normalised gold answers: 0 or 1.
pub fn exact_match(prediction: &str, golds: &[impl AsRef<str>]) -> f64 {
    let prediction = normalise(prediction);
    f64::from(usable(golds).contains(&prediction))
}

/// The best F1 of the prediction's words against a gold answer's, as multisets. Two empty texts score 1.
pub fn token_f1(prediction: &str, golds: &[impl AsRef<str>]) -> f64 {
    let prediction = normalise(prediction);
    usable(golds).iter().map(|gold| pair_f1(&prediction, gold)).fold(0.0, f64::max)
}

fn pair_f1(prediction: &str, gold: &str) -> f64 {
    let (p, g) = (counts(words(prediction)), counts(words(gold)));
    if p.is_empty() || g.is_empty() {
        return f64::from(p.is_empty() && g.is_empty());
    }
    let same = overlap(&p, &g) as f64;
    let len = |c: &std::collections::HashMap<&str, usize>| c.values().sum::<usize>() as f64;
    f1(same / len(&p), same / len(&g))
}

fn usable(golds: &[impl AsRef<str>]) -> Vec<String> {
    let mut golds: Vec<String> =
        golds.iter().map(|gold| normalise(gold.as_ref())).filter(|gold| !gold.is_empty()).collect();
    if golds.is_empty() {
        golds.push(String::new());
    }
    golds
}

/// Both measures for all questions. A question without references has no answer.
///
/// # Errors
/// [`Error::NoExamples`].
pub fn corpus(examples: &[Example]) -> Result<AnswerScores> {
    if examples.is_empty() {
        return Err(Error::NoExamples);
    }
    let (exact_each, f1_each): (Vec<f64>, Vec<f64>) = examples
        .par_iter()
        .map(|e| (exact_match(&e.prediction, &e.references), token_f1(&e.prediction, &e.references)))
        .unzip();
    Ok(AnswerScores { exact: mean(&exact_each), f1: mean(&f1_each), exact_each, f1_each })
}
