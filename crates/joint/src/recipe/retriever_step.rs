//! The retriever's step: how likely the answers are under each passage, what the objective makes of it, and the
//! gradient's way back into the encoders (and, of a marginal likelihood, into the generator).

use super::config::{ContrastiveConfig, JointConfig};
use super::sides::{GeneratorPart, RetrieverPart, SideState};
use crate::attend::{Looked, attention_scores};
use crate::diagnose::{divergence, entropy};
use crate::error::catch;
use crate::live_index::LiveIndex;
use crate::objective::{Evidence, Needs, ObjectiveLoss};
use crate::retrieve::{Candidates, Shared, embed_frozen};
use crate::score::{AnswerScorer, Group, Scored};
use crate::{Error, Result};
use ragduet_data::{Found, RagRecord};
use ragduet_generator::Generator;
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_nn::Mode;
use ragduet_retriever::{Side, grad_cache};
use ragduet_text::Encoding;
use ragduet_torch::{Kind, Tensor, grad};
use rayon::prelude::*;
use std::time::Instant;

/// A batch of questions with what was found for them.
#[derive(Debug)]
pub(super) struct Lesson<'a> {
    /// The questions, with their passages as contexts.
    pub records: &'a [RagRecord],
    /// Rows of the golden passages of each, where they are in the corpus.
    pub gold: &'a [Vec<u32>],
    pub found: &'a Candidates,
    pub index: &'a LiveIndex,
    /// Whether passages have to be embedded anew rather than read from the index.
    pub moved: bool,
    pub texts: &'a [String],
}

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taught {
    /// The objective's loss, and the contrastive one's.
    pub loss: f64,
    pub contrastive: Option<f64>,
    /// The gradients' norms before clipping, and the learning rates.
    pub norm: f64,
    pub lr: f64,
    pub generator: Option<(f64, f64)>,
    /// Of the distribution over passages, in nats.
    pub entropy: f64,
    /// KL from what the generator says of the passages to it.
    pub divergence: f64,
    /// Seconds of scoring, and of the rest.
    pub scoring: f64,
    pub updating: f64,
}

/// One step. `marginal`: the generator learns with it. None where no question can be scored (counted in `report`).
pub(super) fn teach(
    config: &JointConfig,
    retriever: &mut RetrieverPart,
    generator: &mut GeneratorPart,
    states: (&mut SideState, &mut SideState),
    lesson: &Lesson<'_>,
    marginal: bool,
    report: &mut PrepareReport,
) -> Result<Option<Taught>> {
    let started = Instant::now();
    let remedy = "lower generator.batch_tokens, retrieval.k or train.questions";
    let (asked, judge) = catch("scoring the answers", remedy, || {
        Judge::of(config, &generator.model, lesson.records, marginal, report)
    })?;
    if asked.is_empty() {
        return Ok(None);
    }
    let scoring = started.elapsed().as_secs_f64();

    let device = retriever.model.device;
    let found: Vec<Vec<u32>> = asked.iter().map(|&i| lesson.found.rows[i].clone()).collect();
    let gold: Vec<&[u32]> = asked.iter().map(|&i| lesson.gold[i].as_slice()).collect();
    let golden = config.contrastive.iter().flat_map(|_| gold.iter().flat_map(|g| g.iter().copied()));
    let shared = Shared::new(&found, config.retrieval.k, golden, device);
    let questions: Vec<String> = asked.iter().map(|&i| lesson.records[i].question.clone()).collect();
    let queries = retriever.model.tokenize(Side::Query, &questions)?;

    let (mut outcome, mut contrastive, mut failed) = (None, None, None);
    let loss = |q: &Tensor, p: &Tensor| -> Tensor {
        let scores = shared.scores(q, p);
        let evidence = judge.evidence(&scores, &shared.present);
        let of: ObjectiveLoss = match config.objective.loss(&evidence) {
            Ok(of) => of,
            Err(e) => {
                failed = Some(e);
                return q.sum(Kind::Float) * 0.0;
            }
        };
        let mut total = of.loss.shallow_clone();
        if let Some(c) = &config.contrastive
            && let Some(value) = info_nce(c, q, p, &gold, &shared)
        {
            total += &value * c.weight;
            contrastive = Some(value.detach());
        }
        outcome = Some(of);
        total
    };
    if let Some(l) = &mut retriever.learning {
        l.optimizer.clear_grads()?;
    }
    if let (true, Some(l)) = (marginal, &mut generator.learning) {
        l.optimizer.clear_grads()?;
    }
    let r: &RetrieverPart = retriever;
    let total =
        catch("the retriever's step", "lower train.questions, or set retriever.chunk_tokens", || {
            backward(
                r,
                &queries,
                &shared,
                lesson,
                config.retriever.chunk_tokens,
                config.retrieval.batch_tokens,
                loss,
            )
        })?;
    if let Some(e) = failed {
        return Err(e);
    }
    let of = outcome.ok_or_else(|| Error::Unusable("the objective was not computed".into()))?;
    if let (true, Judge::Answers(scorer, scored)) = (marginal, &judge) {
        catch("the generator's share of the step", remedy, || scorer.backward(scored))?;
    }
    let total = number(&total)?;
    let (retriever_state, generator_state) = states;
    let (norm, lr) = match &mut retriever.learning {
        Some(l) => l.step(total, retriever_state)?,
        None => (0.0, 0.0),
    };
    let with_it = match &mut generator.learning {
        Some(l) if marginal => Some(l.step(total, generator_state)?),
        _ => None,
    };
    Ok(Some(Taught {
        loss: number(&of.loss.detach())?,
        contrastive: contrastive.as_ref().map(number).transpose()?,
        norm,
        lr,
        generator: with_it,
        entropy: entropy(&of.student),
        divergence: divergence(&of.teacher, &of.student),
        scoring,
        updating: started.elapsed().as_secs_f64() - scoring,
    }))
}

/// What the generator says of the passages.
#[derive(Debug)]
enum Judge<'a> {
    Answers(AnswerScorer<'a>, Scored),
    Attention(Tensor),
}

impl<'a> Judge<'a> {
    /// Asks it; the questions that it can judge come first.
    fn of(
        config: &JointConfig,
        generator: &'a Generator,
        records: &[RagRecord],
        marginal: bool,
        report: &mut PrepareReport,
    ) -> Result<(Vec<usize>, Self)> {
        let (budget, k) = (config.generator.batch_tokens, config.retrieval.k);
        let needs = config.objective.needs();
        if needs == Needs::Attention {
            let (asked, all) = numbered(looked(config, generator, records, report)?);
            let mode = generator.mode(false);
            return Ok((asked, Self::Attention(attention_scores(generator, &all, k, budget, mode)?)));
        }
        let (asked, groups) = numbered(groups(config, generator, records, report)?);
        if groups.is_empty() {
            return Ok((asked, Self::Attention(Tensor::zeros([0], (Kind::Float, generator.device)))));
        }
        let scorer = AnswerScorer::new(generator, &groups, budget)?;
        let scored = scorer.score(needs, generator.mode(marginal), marginal)?;
        Ok((asked, Self::Answers(scorer, scored)))
    }

    fn evidence<'e>(&'e self, scores: &'e Tensor, present: &'e Tensor) -> Evidence<'e> {
        match self {
            Self::Answers(_, scored) => scored.evidence(scores, Some(present)),
            Self::Attention(looks) => Evidence {
                scores,
                answers: None,
                without: None,
                attention: Some(looks),
                present: Some(present),
            },
        }
    }
}

/// What there is, and where.
fn numbered<T>(all: Vec<Option<T>>) -> (Vec<usize>, Vec<T>) {
    all.into_iter().enumerate().filter_map(|(i, one)| Some((i, one?))).unzip()
}

fn number(t: &Tensor) -> Result<f64> {
    Ok(f64::try_from(&t.to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?)
}

/// Gradients of the loss in what of the retriever learns; the loss, detached.
fn backward(
    part: &RetrieverPart,
    queries: &[Encoding],
    shared: &Shared,
    lesson: &Lesson<'_>,
    chunk: Option<usize>,
    frozen_tokens: u64,
    loss: impl FnOnce(&Tensor, &Tensor) -> Tensor,
) -> Result<Tensor> {
    let m = &part.model;
    let mode = Mode::train(m.compute);
    let texts = || -> Result<Vec<Encoding>> {
        let picked: Vec<String> = shared.rows.iter().map(|&row| lesson.texts[row as usize].clone()).collect();
        Ok(m.tokenize(Side::Passage, &picked)?)
    };
    if part.moves_passages() {
        let comparable = |q: &Tensor, p: &Tensor| loss(&m.comparable(q), &m.comparable(p));
        let passages = texts()?;
        if let Some(tokens) = chunk {
            return Ok(grad_cache::backward(m, queries, &passages, tokens, mode, 1.0, comparable)?);
        }
        let q = m.embed(Side::Query, &queries.iter().collect::<Vec<_>>(), mode)?;
        let p = m.embed(Side::Passage, &passages.iter().collect::<Vec<_>>(), mode)?;
        return finish(comparable(&q, &p));
    }
    // Passages stay as they are: no graph, and no forward pass either where the index holds them.
    let p = if lesson.moved {
        embed_frozen(m, Side::Passage, &texts()?, frozen_tokens as usize)?
    } else {
        let rows = shared.rows.iter().map(|&row| lesson.index.row(row)).collect::<Result<Vec<_>>>()?;
        Tensor::from_slice(&rows.concat()).view([shared.rows.len() as i64, m.dim()]).to_device(m.device)
    };
    let learns = part.learning.is_some();
    let mode = if learns { mode } else { Mode::eval(m.compute) };
    let q = m.embed(Side::Query, &queries.iter().collect::<Vec<_>>(), mode)?;
    finish(loss(&m.comparable(&q), &p))
}

fn finish(value: Tensor) -> Result<Tensor> {
    if value.requires_grad() {
        grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
    }
    Ok(value.detach())
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
    let preparer = Preparer::new(generator, &side.prompt, shown, side.batch_tokens, config.seed)?;
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

/// The prompt of each question with all of its passages, and where they stand in it; None where question and answer alone
/// are too long.
fn looked(
    config: &JointConfig,
    generator: &Generator,
    records: &[RagRecord],
    report: &mut PrepareReport,
) -> Result<Vec<Option<Looked>>> {
    let side = &config.generator;
    let shown = ContextConfig::retrieved(config.retrieval.k);
    let preparer = Preparer::new(generator, &side.prompt, shown, side.batch_tokens, config.seed)?;
    let made: Vec<(Option<Looked>, PrepareReport)> = records
        .par_iter()
        .map(|r| {
            let mut report = PrepareReport::default();
            let one = RagRecord { gold: Vec::new(), ..r.clone() };
            let made = preparer.example_with_places(&one, 0, &mut report)?.ok().map(|(example, places)| {
                let place =
                    |f: &Found| places.iter().find(|p| p.id == f.passage.id).map(|p| p.tokens.clone());
                Looked { example, places: r.contexts.iter().map(place).collect() }
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

/// In-batch cross-entropy towards the first golden passage of each question that has one, over all passages of the
/// batch but its other golden ones.
fn info_nce(
    config: &ContrastiveConfig,
    queries: &Tensor,
    passages: &Tensor,
    gold: &[&[u32]],
    shared: &Shared,
) -> Option<Tensor> {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    let width = shared.rows.len();
    let mut hidden = Vec::new();
    for (i, of) in gold.iter().enumerate() {
        let places: Vec<usize> = of.iter().filter_map(|&row| shared.place(row)).collect();
        let Some((&first, others)) = places.split_first() else { continue };
        rows.push(i as i64);
        targets.push(first as i64);
        let mut mask = vec![0f32; width];
        others.iter().filter(|&&o| o != first).for_each(|&o| mask[o] = f32::NEG_INFINITY);
        hidden.extend(mask);
    }
    if rows.is_empty() {
        return None;
    }
    let device = queries.device();
    let queries = queries.index_select(0, &Tensor::from_slice(&rows).to_device(device));
    let mask = Tensor::from_slice(&hidden).view([rows.len() as i64, width as i64]).to_device(device);
    let logits =
        queries.to_kind(Kind::Float).matmul(&passages.to_kind(Kind::Float).transpose(0, 1)) * config.scale;
    Some((logits + mask).cross_entropy_for_logits(&Tensor::from_slice(&targets).to_device(device)))
}
