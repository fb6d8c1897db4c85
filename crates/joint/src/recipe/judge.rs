//! The generator's evidence about the passages of a batch: the answers' likelihoods, or its attention.

use super::config::JointConfig;
use super::kept_scores::KeptScores;
use crate::Result;
use crate::attend::{AttentionExample, attention_scores};
use crate::objective::{Evidence, Needs};
use crate::score::{AnswerScorer, Group, Scored};
use ragduet_data::{Found, RagRecord};
use ragduet_generator::Generator;
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_torch::{Device, Kind, Tensor};
use rayon::prelude::*;

/// The generator's evidence about the passages.
#[derive(Debug)]
pub(super) enum Judge<'a> {
    /// The answers' likelihoods, and how to get their gradient into the generator.
    Answers(AnswerScorer<'a>, Scored),
    /// Its attention to each passage.
    Attention(Tensor),
}

/// What is scored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged<'a> {
    /// Questions, with their passages as contexts.
    pub records: &'a [RagRecord],
    /// Their places among all questions.
    pub questions: &'a [usize],
    /// The rows of their passages.
    pub rows: &'a [Vec<u32>],
    /// Whether the generator learns by its likelihoods.
    pub marginal: bool,
}

impl<'a> Judge<'a> {
    /// Scores the passages; first the places of the questions for which it can. `kept`: what a frozen generator said
    /// before.
    pub fn of(
        config: &JointConfig,
        generator: &'a Generator,
        judged: Judged<'_>,
        kept: &mut KeptScores,
        report: &mut PrepareReport,
    ) -> Result<(Vec<usize>, Self)> {
        let Judged { records, marginal, .. } = judged;
        let budget = config.generator.batch_tokens;
        let needs = config.objective.needs();
        if needs == Needs::Attention {
            let (asked, all) = numbered(attention_examples(config, generator, records, report)?);
            let k = all.iter().map(|e| e.places.len()).max().unwrap_or(config.retrieval.k);
            let mode = generator.mode(false);
            return Ok((asked, Self::Attention(attention_scores(generator, &all, k, budget, mode)?)));
        }
        let (asked, groups) = numbered(groups(config, generator, records, report)?);
        if groups.is_empty() {
            return Ok((asked, Self::Attention(Tensor::zeros([0], (Kind::Float, generator.device)))));
        }
        let keeps = config.generator.frozen && needs == Needs::Alone;
        let pairs = |i: usize| judged.rows[i].iter().map(move |&row| (judged.questions[i], row));
        let known: Vec<Vec<Option<Vec<f32>>>> = asked
            .iter()
            .filter(|_| keeps)
            .map(|&i| pairs(i).map(|(question, row)| kept.get(question, row)).collect())
            .collect();
        let scorer = AnswerScorer::beside(generator, &groups, &known, budget)?;
        let scored = scorer.score(needs, generator.mode(marginal), marginal)?;
        if !keeps {
            return Ok((asked, Self::Answers(scorer, scored)));
        }
        let values = scored.answers().values.to_device(Device::Cpu);
        let size = values.size();
        let flat = Vec::<f32>::try_from(values.contiguous().view(-1)).map_err(ragduet_torch::Error::from)?;
        for (b, ((&i, group), known)) in asked.iter().zip(&groups).zip(&known).enumerate() {
            let tokens = group.answer()?.len();
            for (at, (question, row)) in pairs(i).enumerate().filter(|(at, _)| known[*at].is_none()) {
                let from = (b * size[1] as usize + at) * size[2] as usize;
                kept.keep(question, row, flat[from..from + tokens].to_vec());
            }
        }
        Ok((asked, Self::Answers(scorer, scored)))
    }

    pub fn evidence<'e>(&'e self, scores: &'e Tensor, present: &'e Tensor) -> Evidence<'e> {
        match self {
            Self::Answers(_, scored) => scored.evidence(scores, Some(present)),
            Self::Attention(attention) => Evidence {
                scores,
                answers: None,
                without: None,
                attention: Some(attention),
                present: Some(present),
            },
        }
    }
}

/// What there is, and where.
fn numbered<T>(all: Vec<Option<T>>) -> (Vec<usize>, Vec<T>) {
    all.into_iter().enumerate().filter_map(|(i, one)| Some((i, one?))).unzip()
}

/// The prompts of each question: with each of its passages alone, or with all but one; None where question and answer
/// alone are too long, or the answer is other tokens behind another passage.
fn groups(
    config: &JointConfig,
    generator: &Generator,
    records: &[RagRecord],
    report: &mut PrepareReport,
) -> Result<Vec<Option<Group>>> {
    let side = &config.generator;
    let leave_out = config.objective.needs() == Needs::LeaveOneOut;
    let count = if leave_out { config.retrieval.k } else { 1 };
    let shown = ContextConfig::retrieved(count);
    let preparer = Preparer::new(generator, &side.prompt, shown, side.batch_tokens, config.run.seed)?;
    let contexts = |r: &RagRecord, k: usize| -> Vec<Found> {
        let which = r.contexts.iter().enumerate().filter(|(i, _)| (*i == k) != leave_out);
        which.map(|(_, f)| f.clone()).collect()
    };
    let made: Vec<(Option<Group>, PrepareReport)> = records
        .par_iter()
        .map(|r| {
            let mut report = PrepareReport::default();
            let mut examples = Vec::with_capacity(r.contexts.len());
            for k in 0..r.contexts.len() {
                let one = RagRecord { contexts: contexts(r, k), gold: Vec::new(), ..r.clone() };
                match preparer.example(&one, 0, &mut report)? {
                    Ok(example) => examples.push(example),
                    Err(_) => return Ok((None, report)),
                }
            }
            let group = Group { name: r.id.clone(), examples };
            if group.answer().is_err() {
                let why = "its answer is other tokens behind another passage".to_string();
                *report.left_out.entry(why).or_default() += 1;
                return Ok((None, report));
            }
            Ok((Some(group), report))
        })
        .collect::<Result<_>>()?;
    Ok(counted(made, report))
}

/// The prompt of each question with all of its passages, and their places in it; None where question and answer alone are
/// too long.
fn attention_examples(
    config: &JointConfig,
    generator: &Generator,
    records: &[RagRecord],
    report: &mut PrepareReport,
) -> Result<Vec<Option<AttentionExample>>> {
    let side = &config.generator;
    let shown = ContextConfig::retrieved(config.retrieval.k);
    let preparer = Preparer::new(generator, &side.prompt, shown, side.batch_tokens, config.run.seed)?;
    let made: Vec<(Option<AttentionExample>, PrepareReport)> = records
        .par_iter()
        .map(|r| {
            let mut report = PrepareReport::default();
            let one = RagRecord { gold: Vec::new(), ..r.clone() };
            let made = preparer.example_with_places(&one, 0, &mut report)?.ok().map(|(example, places)| {
                let place =
                    |f: &Found| places.iter().find(|p| p.id == f.passage.id).map(|p| p.tokens.clone());
                AttentionExample { example, places: r.contexts.iter().map(place).collect() }
            });
            Ok((made, report))
        })
        .collect::<Result<_>>()?;
    Ok(counted(made, report))
}

/// What was made. Passages of prompts that are only scored are not counted among those that are learned from.
fn counted<T>(made: Vec<(Option<T>, PrepareReport)>, report: &mut PrepareReport) -> Vec<Option<T>> {
    let take = |(one, own): (Option<T>, PrepareReport)| {
        for (why, n) in own.left_out {
            *report.left_out.entry(why).or_default() += n;
        }
        one
    };
    made.into_iter().map(take).collect()
}
