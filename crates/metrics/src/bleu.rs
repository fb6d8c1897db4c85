//! BLEU as sacrebleu computes it: tokenizer 13a, mixed case, smoothing "exp", orders 1 to 4.
//!
//! A corpus' score (`eff:no`) is 0 where no hypothesis has four words, since an order without any n-gram ends the
//! product; [`score`] of a single text averages over the orders there are (`eff:yes`), as `sentence_bleu` does.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::text::{check, counts, is_space, words};
use crate::{Example, Result};

const ORDERS: usize = 4;

/// A BLEU score and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bleu {
    /// From 0 to 100.
    pub score: f64,
    /// Precision of each order, smoothed, from 0 to 100.
    pub precisions: [f64; ORDERS],
    /// What short hypotheses lose: 1 for none.
    pub brevity_penalty: f64,
    /// Words of the hypotheses.
    pub hypothesis_len: usize,
    /// Words of the references that are closest in length, the shorter of two equally close.
    pub reference_len: usize,
}

/// Sums from which BLEU follows.
#[derive(Debug, Clone, Copy, Default)]
struct Stats {
    correct: [usize; ORDERS],
    total: [usize; ORDERS],
    hypothesis_len: usize,
    reference_len: usize,
}

/// sacrebleu's `sentence_bleu`: effective order; 0 without references.
pub fn score(prediction: &str, references: &[impl AsRef<str>]) -> Bleu {
    stats(prediction, references).bleu(true)
}

/// sacrebleu's `corpus_bleu`. Examples may have different numbers of references.
///
/// # Errors
/// [`Error::NoExamples`](crate::Error::NoExamples), [`Error::NoReference`](crate::Error::NoReference).
pub fn corpus(examples: &[Example]) -> Result<Bleu> {
    check(examples)?;
    let sum =
        examples.par_iter().map(|e| stats(&e.prediction, &e.references)).reduce(Stats::default, Stats::add);
    Ok(sum.bleu(false))
}

fn stats(prediction: &str, references: &[impl AsRef<str>]) -> Stats {
    let hypothesis = tokenise_13a(prediction.trim_end_matches(is_space));
    let hypothesis: Vec<&str> = words(&hypothesis).collect();
    let references: Vec<String> =
        references.iter().map(|r| tokenise_13a(r.as_ref().trim_end_matches(is_space))).collect();
    let references: Vec<Vec<&str>> = references.iter().map(|r| words(r).collect()).collect();
    let closest = references.iter().map(Vec::len).min_by_key(|&len| (len.abs_diff(hypothesis.len()), len));
    let mut stats =
        Stats { hypothesis_len: hypothesis.len(), reference_len: closest.unwrap_or(0), ..Stats::default() };
    for n in 1..=ORDERS {
        let mut most: HashMap<&[&str], usize> = HashMap::new();
        for reference in &references {
            for (gram, count) in counts(reference.windows(n)) {
                let most = most.entry(gram).or_default();
                *most = count.max(*most);
            }
        }
        stats.total[n - 1] = (hypothesis.len() + 1).saturating_sub(n);
        stats.correct[n - 1] = crate::text::overlap(&counts(hypothesis.windows(n)), &most);
    }
    stats
}

impl Stats {
    fn add(mut self, other: Self) -> Self {
        for n in 0..ORDERS {
            self.correct[n] += other.correct[n];
            self.total[n] += other.total[n];
        }
        self.hypothesis_len += other.hypothesis_len;
        self.reference_len += other.reference_len;
        self
    }

    fn bleu(&self, effective_order: bool) -> Bleu {
        let (hyp, reference) = (self.hypothesis_len as f64, self.reference_len as f64);
        let brevity_penalty = match self.hypothesis_len {
            len if len >= self.reference_len => 1.0,
            0 => 0.0,
            _ => (1.0 - reference / hyp).exp(),
        };
        let mut bleu = Bleu {
            score: 0.0,
            precisions: [0.0; ORDERS],
            brevity_penalty,
            hypothesis_len: self.hypothesis_len,
            reference_len: self.reference_len,
        };
        if self.correct == [0; ORDERS] {
            return bleu;
        }
        let orders = self.total.iter().take_while(|&&total| total > 0).count();
        let mut smoothing = 1.0;
        for n in 0..orders {
            let correct = if self.correct[n] == 0 {
                smoothing *= 2.0;
                1.0 / smoothing
            } else {
                self.correct[n] as f64
            };
            bleu.precisions[n] = 100.0 * correct / self.total[n] as f64;
        }
        if orders == ORDERS || effective_order {
            let logs: f64 = bleu.precisions[..orders].iter().map(|p| p.ln()).sum();
            bleu.score = brevity_penalty * (logs / orders as f64).exp();
        }
        bleu
    }
}

/// The tokenizer of mteval-v13a: words and punctuation marks with spaces between them (the caller splits).
fn tokenise_13a(line: &str) -> String {
    let mut line = line.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if line.contains('&') {
        line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    }
    let mut spaced = vec![' '];
    for c in line.chars() {
        match c {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => spaced.extend([' ', c, ' ']),
            _ => spaced.push(c),
        }
    }
    spaced.push(' ');
    let digit = |c: char| c.is_ascii_digit();
    let mark = |c: char| matches!(c, '.' | ',');
    // Full stops and commas after something else than a digit, then those before it, then dashes after a digit.
    let spaced = pairs(&spaced, |a, b| !digit(a) && mark(b), |a, b| [a, ' ', b, ' ']);
    let spaced = pairs(&spaced, |a, b| mark(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    let spaced = pairs(&spaced, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    spaced.into_iter().collect()
}

/// Replaces pairs of neighbours from the left, none overlapping, as a regular expression does.
fn pairs(
    chars: &[char],
    fits: impl Fn(char, char) -> bool,
    with: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() * 2);
    let mut at = 0;
    while at < chars.len() {
        match chars.get(at + 1) {
            Some(&next) if fits(chars[at], next) => {
                out.extend(with(chars[at], next));
                at += 2;
            }
            _ => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}
