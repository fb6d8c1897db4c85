//! ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, equal to Google's `rouge-score`.
//!
//! Texts are lower-cased and cut into runs of `a-z0-9`; with a stemmer, words of more than three letters are stemmed.
//! Texts of other scripts have no words by that rule and score 0. The functions of `any_script` have more: runs of letters
//! of other scripts than the Latin one are words, and of scripts without spaces (Chinese, Japanese, Thai ...) each character
//! is. For texts in Latin script they are the same.
//! With several references each measure takes the one with its best F1. Corpus figures are plain means; rouge-score's
//! own `BootstrapAggregator` draws without a seed and scatters around them.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::text::{check, counts, f1, fold, is_unspaced, overlap};
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
    score_with(prediction, references, Ids { stemmer, ..Ids::default() })
}

/// [`score`] for texts of any script.
pub fn score_any_script(prediction: &str, references: &[impl AsRef<str>], stemmer: bool) -> Rouge {
    score_with(prediction, references, Ids { stemmer, any_script: true, ..Ids::default() })
}

fn score_with(prediction: &str, references: &[impl AsRef<str>], mut ids: Ids) -> Rouge {
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
    corpus_with(examples, |e| score(&e.prediction, &e.references, stemmer))
}

/// [`corpus`] for texts of any script.
///
/// # Errors
/// As there.
pub fn corpus_any_script(examples: &[Example], stemmer: bool) -> Result<RougeScores> {
    corpus_with(examples, |e| score_any_script(&e.prediction, &e.references, stemmer))
}

fn corpus_with(examples: &[Example], score: impl Fn(&Example) -> Rouge + Sync + Send) -> Result<RougeScores> {
    check(examples)?;
    let each: Vec<Rouge> = examples.par_iter().map(score).collect();
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
    any_script: bool,
    known: HashMap<String, u32>,
}

/// What a character is to a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A letter or digit of ASCII.
    Ascii,
    /// One of another script than the Latin one.
    Other,
    /// A word of its own.
    Alone,
    /// None: here words end.
    Between,
}

fn class(c: char, any_script: bool) -> Class {
    // Latin letters with accents are no letters to rouge-score.
    const LATIN: u32 = 0x2af;
    match c {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => Class::Ascii,
        _ if !any_script => Class::Between,
        c if is_unspaced(c) && c.is_alphanumeric() => Class::Alone,
        c if u32::from(c) > LATIN && !('\u{1e00}'..='\u{1eff}').contains(&c) && c.is_alphanumeric() => {
            Class::Other
        }
        _ => Class::Between,
    }
}

impl Ids {
    fn tokens(&mut self, text: &str) -> Vec<u32> {
        let text = text.to_lowercase();
        let lower = if self.any_script { fold(&text) } else { text };
        let classes: Vec<(usize, Class)> =
            lower.char_indices().map(|(at, c)| (at, class(c, self.any_script))).collect();
        let mut words = Vec::new();
        for run in classes.chunk_by(|a, b| a.1 == b.1 && a.1 != Class::Alone) {
            let [(start, class), ..] = run else { continue };
            if *class != Class::Between {
                let end = run
                    .last()
                    .map_or(*start, |(at, _)| at + lower[*at..].chars().next().map_or(0, char::len_utf8));
                words.push(&lower[*start..end]);
            }
        }
        words
            .into_iter()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_scripts_have_words() {
        let of = |prediction: &str, reference: &str| score_any_script(prediction, &[reference], false);
        // Characters: 北 京 市 against 北 京.
        let r = of("北京市", "北京");
        assert_eq!((r.rouge1.precision, r.rouge1.recall), (2.0 / 3.0, 1.0));
        assert_eq!((r.rouge2.precision, r.rouge2.recall), (0.5, 1.0));
        assert_eq!(of("東京タワー", "東京タワー").rouge_l.f1, 1.0);
        assert_eq!(of("กรุงเทพ", "กรุงเทพ").rouge1.f1, 1.0);
        // Words: two of three.
        assert_eq!(of("красная площадь здесь", "красная площадь тут").rouge1.f1, 2.0 / 3.0);
        assert_eq!(of("上海", "北京").rouge1.f1, 0.0);
        for (a, b) in
            [("the café, it\u{2019}s 5-", "it's the cafe 5"), ("naïve", "na ve"), ("a b c", "c b a")]
        {
            assert_eq!(of(a, b), score(a, &[b], false), "{a}");
        }
        assert_eq!(score("北京", &["北京"], false).rouge1.f1, 0.0);
    }
}
