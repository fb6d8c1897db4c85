//! Whether a cross-encoder trained on natural language inference holds each sentence of an answer to follow from a
//! passage that was shown. As SummaC (Laban et al., 2022, arXiv 2111.09525) does without training: a sentence counts by the
//! passage that supports it best. Citation marks are taken out first.
//!
//! Answers here are often a few words, which state nothing by themselves: a short answer that is no sentence is
//! judged together with its question.

use crate::answers::Answered;
use crate::error::{Error, Result};
use ragduet_classifier::{Classifier, Text};
use ragduet_metrics::sentences::{sentences, without_citations};
use ragduet_torch::{Compute, Device};
use serde::Serialize;
use std::path::Path;

/// A local model for natural language inference: pairs of premise and hypothesis, three classes or two.
#[derive(Debug)]
pub struct Judge {
    model: Classifier,
    entails: usize,
    contradicts: Option<usize>,
}

/// What was found of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Entailed {
    /// Its sentences.
    pub sentences: usize,
    /// Those that a passage entails: entailment is the likeliest class.
    pub entailed: usize,
    /// Those that a passage contradicts and none entails.
    pub contradicted: usize,
    /// The probability of entailment by the best passage, averaged over sentences.
    pub probability: f64,
}

/// Means over answers that say something and were shown something.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EntailmentScores {
    /// Share of sentences entailed, averaged over answers.
    pub entailed: f64,
    /// Share of sentences contradicted, averaged over answers.
    pub contradicted: f64,
    /// Probability of entailment, averaged over answers.
    pub probability: f64,
}

impl EntailmentScores {
    /// Of answers; `None` where none of them has a figure.
    pub fn of(answers: &[Option<Entailed>]) -> Option<Self> {
        let all: Vec<&Entailed> = answers.iter().flatten().collect();
        let mean = |f: &dyn Fn(&Entailed) -> f64| all.iter().map(|e| f(e)).sum::<f64>() / all.len() as f64;
        (!all.is_empty()).then(|| Self {
            entailed: mean(&|e| e.entailed as f64 / e.sentences as f64),
            contradicted: mean(&|e| e.contradicted as f64 / e.sentences as f64),
            probability: mean(&|e| e.probability),
        })
    }
}

/// At most this many words, without a full stop: an answer that is judged together with its question.
const SHORT: usize = 8;

/// Tokens of a forward pass.
const BATCH: usize = 8192;

impl Judge {
    /// Loads a classifier's folder. Its label `entailment` (in any case) is what is looked for, and `contradiction`
    /// where there is one.
    ///
    /// # Errors
    /// A folder that does not load, or whose labels do not say which is entailment.
    pub fn load(dir: &Path, device: Device, compute: Compute) -> Result<Self> {
        let model = Classifier::load(dir, device, compute)?;
        let place = |what: &str| model.labels.names.iter().position(|n| n.to_lowercase() == what);
        let entails = place("entailment").ok_or_else(|| {
            Error::Unusable(format!(
                "{}: no label `entailment` among {:?}; name the labels in config.json (id2label)",
                dir.display(),
                model.labels.names
            ))
        })?;
        let contradicts = place("contradiction");
        Ok(Self { model, entails, contradicts })
    }

    /// Judges answers; `None` for those that say nothing or were shown nothing.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn judge(&self, answers: &[Answered]) -> Result<Vec<Option<Entailed>>> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        // Per answer: per sentence, its pairs.
        let mut places: Vec<Vec<std::ops::Range<usize>>> = Vec::new();
        for a in answers {
            let mut of_answer = Vec::new();
            if !a.contexts.is_empty() {
                for statement in statements(a) {
                    let start = pairs.len();
                    for c in &a.contexts {
                        let whole = match &c.title {
                            Some(t) if !t.is_empty() => format!("{t}\n{}", c.text),
                            _ => c.text.clone(),
                        };
                        for premise in self.pieces(&whole, &statement)? {
                            pairs.push((premise, statement.clone()));
                        }
                    }
                    of_answer.push(start..pairs.len());
                }
            }
            places.push(of_answer);
        }
        let texts: Vec<Text<'_>> = pairs.iter().map(|(p, h)| (p.as_str(), Some(h.as_str()))).collect();
        let logits = self.model.score(&texts, BATCH, &mut |_| ())?;
        Ok(places.into_iter().map(|of_answer| self.sum_up(&of_answer, &logits)).collect())
    }

    fn sum_up(&self, sentences: &[std::ops::Range<usize>], logits: &[Vec<f64>]) -> Option<Entailed> {
        if sentences.is_empty() {
            return None;
        }
        let mut out = Entailed { sentences: sentences.len(), entailed: 0, contradicted: 0, probability: 0.0 };
        for range in sentences {
            let rows = &logits[range.clone()];
            let says = |row: &Vec<f64>, class: usize| row.iter().all(|x| *x <= row[class]);
            if rows.iter().any(|r| says(r, self.entails)) {
                out.entailed += 1;
            } else if self.contradicts.is_some_and(|c| rows.iter().any(|r| says(r, c))) {
                out.contradicted += 1;
            }
            let best = rows.iter().map(|r| softmax(r, self.entails)).fold(0.0, f64::max);
            out.probability += best / sentences.len() as f64;
        }
        Some(out)
    }

    /// A passage in pieces that fit beside the statement.
    fn pieces(&self, passage: &str, statement: &str) -> Result<Vec<String>> {
        let t = &self.model.tokenizer;
        let room = self.model.max_tokens.saturating_sub(t.special_count(true) + t.count(statement)?);
        split(passage, room.max(1), |text| Ok(t.count(text)?))
    }
}

/// A text in pieces of whole sentences with at most `room` tokens; a sentence with more is a piece of its own.
fn split(text: &str, room: usize, count: impl Fn(&str) -> Result<usize>) -> Result<Vec<String>> {
    if count(text)? <= room {
        return Ok(vec![text.to_string()]);
    }
    let mut out: Vec<(String, usize)> = Vec::new();
    for sentence in sentences(text) {
        let n = count(sentence)?;
        match out.last_mut() {
            Some((piece, size)) if *size + n <= room => {
                piece.push(' ');
                piece.push_str(sentence);
                *size += n;
            }
            _ => out.push((sentence.to_string(), n)),
        }
    }
    Ok(out.into_iter().map(|(piece, _)| piece).collect())
}

fn softmax(row: &[f64], class: usize) -> f64 {
    1.0 / row.iter().map(|x| (x - row[class]).exp()).sum::<f64>()
}

/// What an answer states.
fn statements(a: &Answered) -> Vec<String> {
    // A mark before a full stop leaves a gap there.
    let plain =
        [".", "!", "?", ","].iter().fold(without_citations(&a.answer), |s, p| s.replace(&format!(" {p}"), p));
    let plain = plain.trim();
    let words = plain.split_whitespace().count();
    if words == 0 {
        return Vec::new();
    }
    if words <= SHORT && !plain.ends_with(['.', '!', '?']) {
        return vec![format!("{} {plain}", a.question.trim())];
    }
    let spoken = |s: &&str| s.chars().any(char::is_alphanumeric);
    sentences(plain).into_iter().filter(spoken).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_data::RagRecord;

    fn answered(answer: &str) -> Answered {
        let record = RagRecord { question: "How tall is it?".into(), ..RagRecord::default() };
        crate::answers::measured(&record, &[], answer.into())
    }

    #[test]
    fn short_answers_are_judged_with_their_question() {
        let of = |answer: &str| statements(&answered(answer));
        assert_eq!(of("32 metres [1]"), ["How tall is it? 32 metres"]);
        assert_eq!(
            of("It is 32 metres tall [1]. It stands on a cliff."),
            ["It is 32 metres tall.", "It stands on a cliff."]
        );
        assert!(of(" [1] ").is_empty());
    }

    #[test]
    fn long_passages_are_split_between_sentences() {
        let words = |room| {
            split("One two. Three four five. Six. Seven eight.", room, |t| Ok(t.split(' ').count())).unwrap()
        };
        assert_eq!(words(8), ["One two. Three four five. Six. Seven eight."]);
        assert_eq!(words(5), ["One two. Three four five.", "Six. Seven eight."]);
        assert_eq!(words(2), ["One two.", "Three four five.", "Six.", "Seven eight."]);
    }

    #[test]
    fn means_leave_out_answers_without_a_figure() {
        let e = |entailed, contradicted, probability| {
            Some(Entailed { sentences: 2, entailed, contradicted, probability })
        };
        let s = EntailmentScores::of(&[e(2, 0, 0.9), None, e(0, 1, 0.1)]).unwrap();
        assert_eq!((s.entailed, s.contradicted), (0.5, 0.25));
        assert!((s.probability - 0.5).abs() < 1e-12);
        assert_eq!(EntailmentScores::of(&[None]), None);
    }
}
