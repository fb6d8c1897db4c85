//! Everything that is said of a set of answers: right or not, near in words, true to their passages.

use crate::answers::{AnswerScores, Answered};
use crate::bertscore::BertScorer;
use crate::entailment::{Entailed, EntailmentScores, Judge};
use crate::error::{Error, Result};
use ragduet_metrics::faithfulness::{self, FaithfulnessScores, Grounded, Passage};
use ragduet_metrics::rouge::Prf;
use ragduet_metrics::wordnet::WordNet;
use ragduet_metrics::{Example, bleu, chrf, meteor, rouge};
use serde::Serialize;

/// How near answers are to right ones, in words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextScores {
    /// F1 of single words (rouge-score, without a stemmer).
    pub rouge1: f64,
    /// F1 of pairs of words.
    pub rouge2: f64,
    /// F1 of the longest common subsequence.
    pub rouge_l: f64,
    /// Corpus BLEU as sacrebleu computes it, 0 to 100.
    pub bleu: f64,
    /// Corpus chrF2, 0 to 100.
    pub chrf: f64,
    /// METEOR as nltk computes it.
    pub meteor: f64,
    /// Whether METEOR knew synonyms; figures with and without do not compare.
    pub meteor_synonyms: bool,
    /// Mean BERTScore, where an encoder was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bertscore: Option<Prf>,
}

/// Folders that measures need and not everybody has.
#[derive(Debug, Default)]
pub struct Judges {
    /// Synonyms for METEOR.
    pub wordnet: Option<WordNet>,
    /// The encoder of BERTScore.
    pub bertscore: Option<BertScorer>,
    /// The model that judges entailment.
    pub entailment: Option<Judge>,
}

/// What judges said of each answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Judged {
    /// BERTScore's F1; absent without an encoder, or a right answer to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bertscore: Option<f64>,
    /// Its sentences and what passages entail; absent without a judge, or passages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entailment: Option<Entailed>,
}

/// All figures of a set of answers.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Right or not.
    pub answer: AnswerScores,
    /// Near in words; absent where no question has a right answer to compare with.
    pub text: Option<TextScores>,
    /// True to the passages shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Means>,
    /// Entailed by the passages shown, where a judge was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entailment: Option<EntailmentScores>,
}

/// Means of [`FaithfulnessScores`]; absent where no answer has the figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Means {
    /// Share of content words found in a passage shown.
    pub support: Option<f64>,
    /// Share of answers that stand whole in a passage shown.
    pub present: Option<f64>,
    /// Share of sentences that cite.
    pub cited_sentences: Option<f64>,
    /// Share of the cited passages that are golden.
    pub citation_precision: Option<f64>,
    /// Share of the golden passages that are cited.
    pub citation_recall: Option<f64>,
}

impl From<&FaithfulnessScores> for Means {
    fn from(s: &FaithfulnessScores) -> Self {
        // An answer that never cites has no citations to be right about.
        let cites = s.cited_sentences.mean.is_some_and(|m| m > 0.0);
        let cited = |m: Option<f64>| m.filter(|_| cites);
        Self {
            support: s.support.mean,
            present: s.present.mean,
            cited_sentences: cited(s.cited_sentences.mean),
            citation_precision: cited(s.citation_precision.mean),
            citation_recall: cited(s.citation_recall.mean),
        }
    }
}

/// A line of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// What kind of figure it is.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `None` where it says nothing.
    pub value: Option<f64>,
}

impl Report {
    /// Of answers, with what the judges that are at hand say of each.
    ///
    /// # Errors
    /// No answers.
    pub fn of(answers: &[Answered], judges: &Judges) -> Result<(Self, Vec<Judged>)> {
        if answers.is_empty() {
            return Err(Error::Unusable("no answers to measure".into()));
        }
        let mut judged = vec![Judged::default(); answers.len()];
        let known: Vec<usize> = (0..answers.len()).filter(|&i| !answers[i].golds.is_empty()).collect();
        let examples: Vec<Example> = known
            .iter()
            .map(|&i| Example { prediction: answers[i].answer.clone(), references: answers[i].golds.clone() })
            .collect();
        let mut text =
            if examples.is_empty() { None } else { Some(text(&examples, judges.wordnet.as_ref())?) };
        if let (Some(scorer), Some(text)) = (&judges.bertscore, &mut text) {
            let scores = scorer.score(&examples, false)?;
            known.iter().zip(&scores).for_each(|(&i, s)| judged[i].bertscore = Some(s.f1));
            text.bertscore = Some(Prf::mean(&scores));
        }
        let grounded: Vec<Grounded> = answers.iter().map(grounded).collect();
        let shown = grounded.iter().any(|g| !g.contexts.is_empty());
        let faithfulness = if shown { Some(Means::from(&faithfulness::corpus(&grounded)?)) } else { None };
        let mut entailment = None;
        if let Some(judge) = &judges.entailment {
            let found = judge.judge(answers)?;
            entailment = EntailmentScores::of(&found);
            found.into_iter().zip(&mut judged).for_each(|(e, j)| j.entailment = e);
        }
        Ok((Self { answer: AnswerScores::of(answers), text, faithfulness, entailment }, judged))
    }

    /// The figures that say something, in order; the same names for every report.
    pub fn rows(&self) -> Vec<Row> {
        let row = |section, name, value| Row { section, name, value };
        let mut out: Vec<Row> = self
            .answer
            .named()
            .into_iter()
            .map(|(n, v)| row("answer", n, Some(v).filter(|v| !v.is_nan())))
            .collect();
        let t = |f: fn(&TextScores) -> f64| self.text.as_ref().map(f);
        out.extend([
            row("text", "rouge-1", t(|t| t.rouge1)),
            row("text", "rouge-2", t(|t| t.rouge2)),
            row("text", "rouge-l", t(|t| t.rouge_l)),
            row("text", "bleu", t(|t| t.bleu)),
            row("text", "chrf", t(|t| t.chrf)),
            row("text", "meteor", t(|t| t.meteor)),
            row("text", "bertscore", self.text.as_ref().and_then(|t| t.bertscore).map(|b| b.f1)),
        ]);
        let f = |f: fn(&Means) -> Option<f64>| self.faithfulness.as_ref().and_then(f);
        out.extend([
            row("faithfulness", "support", f(|m| m.support)),
            row("faithfulness", "answer_in_passage", f(|m| m.present)),
            row("faithfulness", "cited_sentences", f(|m| m.cited_sentences)),
            row("faithfulness", "citation_precision", f(|m| m.citation_precision)),
            row("faithfulness", "citation_recall", f(|m| m.citation_recall)),
            row("faithfulness", "entailed", self.entailment.map(|e| e.entailed)),
            row("faithfulness", "contradicted", self.entailment.map(|e| e.contradicted)),
        ]);
        out
    }
}

fn grounded(a: &Answered) -> Grounded {
    let contexts = a.contexts.iter().map(|c| Passage { id: c.id.clone(), text: c.text.clone() }).collect();
    Grounded { answer: a.answer.clone(), contexts, gold_ids: a.gold_ids.clone() }
}

fn text(examples: &[Example], wordnet: Option<&WordNet>) -> Result<TextScores> {
    let r = rouge::corpus_any_script(examples, false)?.mean;
    let m = meteor::corpus(examples, wordnet)?;
    Ok(TextScores {
        rouge1: r.rouge1.f1,
        rouge2: r.rouge2.f1,
        rouge_l: r.rouge_l.f1,
        bleu: bleu::corpus(examples)?.score,
        chrf: chrf::corpus(examples)?,
        meteor: m.mean,
        meteor_synonyms: m.synonyms,
        bertscore: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::measured;
    use ragduet_data::{Passage as Text, RagRecord};
    use ragduet_text::Context;

    fn answered(answer: &str, gold: &str, passage: &str) -> Answered {
        let passage = Text { id: "p".into(), title: None, text: passage.into() };
        let record = RagRecord {
            id: "1".into(),
            question: "q".into(),
            answers: vec![gold.into()],
            gold: vec![passage.clone()],
            ..RagRecord::default()
        };
        measured(&record, &[Context::new(passage.id, None, passage.text)], answer.into())
    }

    #[test]
    fn figures_are_those_of_the_measures() {
        let all = [
            answered("black pine", "black pine", "Her hull is of black pine."),
            answered("grey stone", "grey slate", "The roof is of grey slate."),
        ];
        let (r, _) = Report::of(&all, &Judges::default()).unwrap();
        let value = |name: &str| r.rows().iter().find(|r| r.name == name).unwrap().value;
        assert_eq!(value("exact_match"), Some(0.5));
        assert_eq!(value("rouge-1"), Some(0.75));
        // Three of four content words stand in a passage, and one answer of two as a whole.
        assert_eq!((value("support"), value("answer_in_passage")), (Some(0.75), Some(0.5)));
        assert_eq!(value("citation_precision"), None);
        assert!(Report::of(&[], &Judges::default()).is_err());
    }
}
