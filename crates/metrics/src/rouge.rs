//! ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, equal to Google's `rouge-score`.
//!
//! Texts are lower-cased and cut into runs of `a-z0-9`; with a stemmer, words of more than three letters are stemmed.
//! With several references each measure takes the one with its best F1. Corpus figures are plain means; rouge-score's
//! own `BootstrapAggregator` draws without a seed and scatters around them.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::text::{check, counts, f1, overlap};
use crate::{Example, Result, porter};

/// Precision, recall and their harmonic mean, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Prf {
    /// The share of the prediction that is in the reference.
    pub precision: f64,
    /// The share of the reference that is in the prediction.
    pub recall: f64,
    /// Their harmonic mean (of each example; a corpus' is the mean of those).
    pub f1: f64,
}

impl Prf {
    fn of(hits: usize, prediction: usize, reference: usize) -> Self {
        let precision = hits as f64 / prediction.max(1) as f64;
        let recall = hits as f64 / reference.max(1) as f64;
        Self { precision, recall, f1: f1(precision, recall) }
    }

    /// The mean of each field, zeros of nothing.
    pub fn mean(scores: &[Self]) -> Self {
        let n = scores.len().max(1) as f64;
        let mean = |field: fn(&Self) -> f64| scores.iter().map(field).sum::<f64>() / n;
        Self { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1) }
    }
}

/// The four measures.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rouge {
    /// Single words.
    pub rouge1: Prf,
    /// Pairs of neighbouring words.
    pub rouge2: Prf,
    /// The longest common subsequence of the whole texts.
    pub rouge_l: Prf,
    /// The union of longest common subsequences, sentence by sentence; a sentence is a line.
    pub rouge_lsum: Prf,
}

/// Scores of a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RougeScores {
    /// The mean of each field.
    pub mean: Rouge,
    /// Per example.
    pub each: Vec<Rouge>,
}

/// Scores one prediction; zeros without references.
pub fn score(prediction: &str, references: &[impl AsRef<str>], stemmer: bool) -> Rouge {
    let mut ids = Ids { stemmer, ..Ids::default() };
    let (tokens, lines) = (ids.tokens(prediction), ids.lines(prediction));
    let mut best: Option<Rouge> = None;
    for reference in references {
        let (ref_tokens, ref_lines) = (ids.tokens(reference.as_ref()), ids.lines(reference.as_ref()));
        let new = Rouge {
            rouge1: ngrams(&tokens, &ref_tokens, 1),
            rouge2: ngrams(&tokens, &ref_tokens, 2),
            rouge_l: longest(&tokens, &ref_tokens),
            rouge_lsum: summary(&lines, &ref_lines),
        };
        // The first of equals, as numpy's argmax takes it: they may differ in precision and recall.
        let better = |old: Prf, new: Prf| if new.f1 > old.f1 { new } else { old };
        best = Some(best.map_or(new, |old| Rouge {
            rouge1: better(old.rouge1, new.rouge1),
            rouge2: better(old.rouge2, new.rouge2),
            rouge_l: better(old.rouge_l, new.rouge_l),
            rouge_lsum: better(old.rouge_lsum, new.rouge_lsum),
        }));
    }
    best.unwrap_or_default()
}

/// Scores a corpus.
///
/// # Errors
/// [`Error::NoExamples`](crate::Error::NoExamples), [`Error::NoReference`](crate::Error::NoReference).
pub fn corpus(examples: &[Example], stemmer: bool) -> Result<RougeScores> {
    check(examples)?;
    let each: Vec<Rouge> =
        examples.par_iter().map(|e| score(&e.prediction, &e.references, stemmer)).collect();
    let mean = |field: fn(&Rouge) -> Prf| Prf::mean(&each.iter().map(field).collect::<Vec<_>>());
    let mean = Rouge {
        rouge1: mean(|r| r.rouge1),
        rouge2: mean(|r| r.rouge2),
        rouge_l: mean(|r| r.rouge_l),
        rouge_lsum: mean(|r| r.rouge_lsum),
    };
    Ok(RougeScores { mean, each })
}

/// Numbers words, so that subsequences compare integers.
#[derive(Default)]
struct Ids {
    stemmer: bool,
    known: HashMap<String, u32>,
}

impl Ids {
    fn tokens(&mut self, text: &str) -> Vec<u32> {
        let lower = text.to_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
        words
            .filter(|word| !word.is_empty())
            .map(|word| {
                let word = if self.stemmer && word.len() > 3 { porter::stem(word) } else { word.to_owned() };
                let next = self.known.len() as u32;
                *self.known.entry(word).or_insert(next)
            })
            .collect()
    }

    fn lines(&mut self, text: &str) -> Vec<Vec<u32>> {
        text.split('\n').filter(|line| !line.is_empty()).map(|line| self.tokens(line)).collect()
    }
}

fn ngrams(prediction: &[u32], reference: &[u32], n: usize) -> Prf {
    let hits = overlap(&counts(prediction.windows(n)), &counts(reference.windows(n)));
    let total = |tokens: &[u32]| (tokens.len() + 1).saturating_sub(n);
    Prf::of(hits, total(prediction), total(reference))
}

fn longest(prediction: &[u32], reference: &[u32]) -> Prf {
    let mut row = vec![0usize; prediction.len() + 1];
    for r in reference {
        let mut diagonal = 0;
        for (j, p) in prediction.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if r == p { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    Prf::of(row[prediction.len()], prediction.len(), reference.len())
}

fn summary(prediction: &[Vec<u32>], reference: &[Vec<u32>]) -> Prf {
    // A word is a hit at most as often as it occurs on either side.
    let mut left_p = counts(prediction.iter().flatten().copied());
    let mut left_r = counts(reference.iter().flatten().copied());
    let mut hits = 0;
    for sentence in reference {
        let mut common = vec![false; sentence.len()];
        for other in prediction {
            mark_common(sentence, other, &mut common);
        }
        for (&word, _) in sentence.iter().zip(&common).filter(|(_, common)| **common) {
            if let (Some(p @ 1..), Some(r @ 1..)) = (left_p.get_mut(&word), left_r.get_mut(&word)) {
                *p -= 1;
                *r -= 1;
                hits += 1;
            }
        }
    }
    let len = |lines: &[Vec<u32>]| lines.iter().map(Vec::len).sum();
    Prf::of(hits, len(prediction), len(reference))
}

/// Marks the words of `reference` in one longest common subsequence. Which of several decides the union, so ties go
/// as in rouge-score: back through the prediction only where that is strictly longer.
fn mark_common(reference: &[u32], prediction: &[u32], common: &mut [bool]) {
    let width = prediction.len() + 1;
    let mut table = vec![0u32; (reference.len() + 1) * width];
    for (i, r) in reference.iter().enumerate() {
        for (j, p) in prediction.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if r == p {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (reference.len(), prediction.len());
    while i > 0 && j > 0 {
        if reference[i - 1] == prediction[j - 1] {
            common[i - 1] = true;
            i -= 1;
            j -= 1;
        } else if table[i * width + j - 1] > table[(i - 1) * width + j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}
