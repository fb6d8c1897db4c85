//! METEOR as nltk computes it: words aligned by equality, then by stem, then by WordNet's synonyms; the weighted
//! harmonic mean of precision and recall, less a penalty for alignments in many pieces.
//!
//! The last stage needs a [`WordNet`] folder. Without one it is left out, which lowers scores: results say whether it
//! ran. Like nltk, it looks up the *stems* of the words that are left, so it finds less than one would think.

use std::collections::HashMap;
use std::sync::LazyLock;

use rayon::prelude::*;
use regex::Regex;
use serde::Serialize;

use crate::text::{check, mean};
use crate::wordnet::WordNet;
use crate::{Example, Result, porter};

/// Weight of precision in the harmonic mean's denominator.
const ALPHA: f64 = 0.9;
/// How steeply the penalty grows with fragmentation.
const BETA: f64 = 3.0;
/// The greatest penalty.
const GAMMA: f64 = 0.5;

/// METEOR of a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeteorScores {
    /// The mean, from 0 to 1.
    pub mean: f64,
    /// Per example.
    pub each: Vec<f64>,
    /// Whether the synonym stage ran. Figures with and without it do not compare.
    pub synonyms: bool,
}

/// Cuts a text as nltk's `wordpunct_tokenize`: runs of letters, marks, digits and underscores, and runs of the rest.
pub fn wordpunct(text: &str) -> Vec<&str> {
    // Both classes are Unicode's (UTS 18), in nltk and in `regex`: a superscript two is no word.
    static TOKEN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\w+|[^\w\s]+").expect("a constant expression that the tests use"));
    TOKEN.find_iter(text).map(|found| found.as_str()).collect()
}

/// Scores one tokenised hypothesis, from 0 to 1, against its best reference; 0 without references or matches.
pub fn score(
    hypothesis: &[impl AsRef<str>],
    references: &[Vec<impl AsRef<str>>],
    wordnet: Option<&WordNet>,
) -> f64 {
    references.iter().map(|reference| single(hypothesis, reference, wordnet)).fold(0.0, f64::max)
}

/// Scores a corpus of texts, cut by [`wordpunct`].
///
/// # Errors
/// [`Error::NoExamples`](crate::Error::NoExamples), [`Error::NoReference`](crate::Error::NoReference).
pub fn corpus(examples: &[Example], wordnet: Option<&WordNet>) -> Result<MeteorScores> {
    check(examples)?;
    let one = |example: &Example| {
        let references: Vec<Vec<&str>> = example.references.iter().map(|r| wordpunct(r)).collect();
        score(&wordpunct(&example.prediction), &references, wordnet)
    };
    let each: Vec<f64> = examples.par_iter().map(one).collect();
    Ok(MeteorScores { mean: mean(&each), each, synonyms: wordnet.is_some() })
}

fn single(hypothesis: &[impl AsRef<str>], reference: &[impl AsRef<str>], wordnet: Option<&WordNet>) -> f64 {
    let matches = align(hypothesis, reference, wordnet);
    if matches.is_empty() {
        return 0.0;
    }
    let count = matches.len() as f64;
    let (precision, recall) = (count / hypothesis.len() as f64, count / reference.len() as f64);
    let f = precision * recall / (ALPHA * precision + (1.0 - ALPHA) * recall);
    let joined = matches.windows(2).filter(|m| m[1] == (m[0].0 + 1, m[0].1 + 1)).count();
    let fragmentation = (matches.len() - joined) as f64 / count;
    (1.0 - GAMMA * fragmentation.powf(BETA)) * f
}

/// A word and its position.
type Placed = (usize, String);

/// Pairs of positions in hypothesis and reference, in the order of the hypothesis.
fn align(
    hypothesis: &[impl AsRef<str>],
    reference: &[impl AsRef<str>],
    wordnet: Option<&WordNet>,
) -> Vec<(usize, usize)> {
    fn lower(words: &[impl AsRef<str>]) -> Vec<Placed> {
        words.iter().map(|word| word.as_ref().to_lowercase()).enumerate().collect()
    }
    let stem = |words: &mut Vec<Placed>| words.iter_mut().for_each(|(_, word)| *word = porter::stem(word));
    let (mut hypothesis, mut reference) = (lower(hypothesis), lower(reference));
    let mut matches = Vec::new();
    take_matches(&mut hypothesis, &mut reference, &mut matches, |_| Vec::new());
    stem(&mut hypothesis);
    stem(&mut reference);
    take_matches(&mut hypothesis, &mut reference, &mut matches, |_| Vec::new());
    if let Some(wordnet) = wordnet {
        take_matches(&mut hypothesis, &mut reference, &mut matches, |word| {
            wordnet.synonyms(word).into_iter().map(str::to_owned).collect()
        });
    }
    matches.sort_unstable();
    matches
}

/// Moves what matches out of both: from the last hypothesis word on, each takes the last free reference word that
/// equals it or one of its `others`.
fn take_matches(
    hypothesis: &mut Vec<Placed>,
    reference: &mut Vec<Placed>,
    matches: &mut Vec<(usize, usize)>,
    others: impl Fn(&str) -> Vec<String>,
) {
    let mut free: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, word) in reference.iter() {
        free.entry(word).or_default().push(*at);
    }
    let mut used = std::collections::HashSet::new();
    for at in (0..hypothesis.len()).rev() {
        let mut words = others(&hypothesis[at].1);
        words.push(hypothesis[at].1.clone());
        let last = |word: &String| Some((*free.get(word.as_str())?.last()?, word.clone()));
        if let Some((target, word)) = words.iter().filter_map(last).max() {
            if let Some(positions) = free.get_mut(word.as_str()) {
                positions.pop();
            }
            matches.push((hypothesis[at].0, target));
            used.insert(target);
            hypothesis.remove(at);
        }
    }
    reference.retain(|(at, _)| !used.contains(at));
}
