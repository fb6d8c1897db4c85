//! The retriever's step: the answers' likelihoods given each passage, the objective's loss, and its gradient in the encoders
//! (and, of a marginal likelihood, in the generator).
//!
//! Every score that an objective sees is computed in the step with the current encoders; the index only chooses
//! candidates. Training the query encoder alone means a second copy of it, so the index never becomes stale and
//! passages are read from it.

use super::alternation::Trained;
use super::config::{ContrastiveConfig, JointConfig, Positives};
use super::judge::{Judge, Judged};
use super::kept_scores::KeptScores;
use super::sides::{GeneratorPart, RetrieverPart, Sides};
use crate::diagnose::{divergence, entropy};
use crate::error::catch;
use crate::objective::ObjectiveLoss;
use crate::refreshed_index::RefreshedIndex;
use crate::retrieve::{Candidates, Shared, embed_frozen};
use crate::{Error, Result};
use ragduet_data::RagRecord;
use ragduet_generator::prepare::PrepareReport;
use ragduet_nn::Mode;
use ragduet_retriever::recipe::config::GradCacheConfig;
use ragduet_retriever::{BiEncoder, Side, grad_cache};
use ragduet_text::Encoding;
use ragduet_torch::{Kind, Tensor, grad, no_grad};
use ragduet_train::{Learner, Line, RunState, Update};
use std::time::Instant;

/// A batch of questions with what was found for them.
#[derive(Debug)]
pub(super) struct RetrieverBatch<'a> {
    /// The questions, with their passages as contexts.
    pub records: &'a [RagRecord],
    /// Their places among all questions.
    pub questions: &'a [usize],
    /// Rows of the golden passages of each, where they are in the corpus.
    pub gold: Vec<&'a [u32]>,
    /// Rows of the own copies of each, which are no negatives.
    pub own: &'a [Vec<u32>],
    pub found: &'a Candidates,
    pub index: &'a RefreshedIndex,
    /// Whether passages have to be embedded again rather than read from the index.
    pub stale: bool,
    pub texts: &'a [String],
    /// The models that the step trains.
    pub trained: Trained,
}

/// What a step came to.
#[derive(Debug)]
pub(super) struct StepMetrics {
    /// The objective's loss, and the contrastive one's.
    pub loss: Tensor,
    pub contrastive: Option<Tensor>,
    pub retriever: Option<Update>,
    pub generator: Option<Update>,
    /// Of the distribution over passages, in nats.
    pub entropy: Tensor,
    /// KL from the teacher's distribution over passages to the retriever's.
    pub divergence: Tensor,
    /// Seconds of scoring, and of the rest.
    pub scoring: f64,
    pub updating: f64,
}

impl StepMetrics {
    /// Lines of the log: the retriever's, and the generator's where it was trained with it.
    pub fn lines(self) -> impl Iterator<Item = Line> {
        let line = |kind, update: Option<Update>| Line {
            kind,
            lr: update.map(|u| u.lr),
            grad_norm: update.map(|u| u.grad_norm),
            ..Line::default()
        };
        let mut retriever = line("retriever", self.retriever);
        retriever.loss = Some(self.loss);
        retriever.terms.extend(self.contrastive.map(|c| ("contrastive", c)));
        let generator = self.generator.map(|update| line("generator", Some(update)));
        std::iter::once(retriever).chain(generator)
    }
}

/// One step. None where no question can be scored (counted in `report`).
pub(super) fn retriever_step(
    config: &JointConfig,
    sides: &mut Sides,
    batch: &RetrieverBatch<'_>,
    kept: &mut KeptScores,
    report: &mut PrepareReport,
    run: &RunState,
) -> Result<Option<StepMetrics>> {
    let Sides { retriever, generator: GeneratorPart { model: generator, training, .. } } = sides;
    let marginal = batch.trained.generator;
    let moves_passages = batch.trained.retriever && retriever.moves_passages();
    let started = Instant::now();
    let remedy = "lower generator.batch_tokens, retrieval.k or batch.size";
    let (asked, judge) = catch("scoring the answers", remedy, || {
        let RetrieverBatch { records, questions, found, .. } = *batch;
        Judge::of(config, generator, Judged { records, questions, rows: &found.rows, marginal }, kept, report)
    })?;
    if asked.is_empty() {
        return Ok(None);
    }
    let scoring = started.elapsed().as_secs_f64();

    let found: Vec<Vec<u32>> = asked.iter().map(|&i| batch.found.rows[i].clone()).collect();
    let gold: Vec<&[u32]> = asked.iter().map(|&i| batch.gold[i]).collect();
    let own: Vec<&[u32]> = asked.iter().map(|&i| batch.own[i].as_slice()).collect();
    let judged = config.contrastive.filter(|c| c.positives == Positives::Judged);
    let golden = judged.iter().flat_map(|_| gold.iter().flat_map(|g| g.iter().copied()));
    // A small corpus has fewer passages than are asked for.
    let width = found.iter().map(Vec::len).max().unwrap_or(0);
    if width == 0 {
        return Ok(None);
    }
    let shared = Shared::new(&found, width, golden, retriever.model.device);
    let questions: Vec<String> = asked.iter().map(|&i| batch.records[i].question.clone()).collect();
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
        let value = config.contrastive.as_ref().and_then(|c| match c.positives {
            Positives::Judged => info_nce(c, q, p, (&gold, &own), &shared).map(|value| (c, value)),
            Positives::Teacher => Some((c, soft_info_nce(c, q, p, &of.teacher, &own, &shared))),
        });
        if let Some((c, value)) = value {
            total += &value * c.weight;
            contrastive = Some(scalar(&value));
        }
        outcome = Some(of);
        total
    };
    // The optimizers of the models that the step trains.
    let RetrieverPart { model: encoder, training: own } = retriever;
    let mut learners = [
        own.learner.as_mut().filter(|_| batch.trained.retriever),
        training.learner.as_mut().filter(|_| marginal),
    ];
    learners.iter().flatten().try_for_each(|l| l.clear())?;
    let remedy_of_step = "lower batch.size, or set retriever.grad_cache.chunk_tokens";
    let total = catch("the retriever's step", remedy_of_step, || {
        backward(encoder, moves_passages, &queries, &shared, batch, config, loss)
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    let of = outcome.ok_or_else(|| Error::Unusable("the objective was not computed".into()))?;
    if let (true, Judge::Answers(scorer, scored)) = (marginal, &judge) {
        catch("the generator's share of the step", remedy, || scorer.backward(scored))?;
    }
    let total = scalar(&total);
    let update =
        |learner: &mut Option<&mut Learner>| learner.as_mut().map(|l| l.update(&total, run)).transpose();
    Ok(Some(StepMetrics {
        loss: scalar(&of.loss),
        contrastive,
        retriever: update(&mut learners[0])?,
        generator: update(&mut learners[1])?,
        entropy: entropy(&of.student),
        divergence: divergence(&of.teacher, &of.student),
        scoring,
        updating: started.elapsed().as_secs_f64() - scoring,
    }))
}

/// One number, without a graph, on its device.
fn scalar(t: &Tensor) -> Tensor {
    t.detach().to_kind(Kind::Double)
}

/// Adds the loss' gradients in what of the retriever is trained; the loss, detached. `moves`: whether that is passages, too.
fn backward(
    m: &BiEncoder,
    moves: bool,
    queries: &[Encoding],
    shared: &Shared,
    batch: &RetrieverBatch<'_>,
    config: &JointConfig,
    loss: impl FnOnce(&Tensor, &Tensor) -> Tensor,
) -> Result<Tensor> {
    let train = Mode::train(m.compute);
    let queries_at_once = || queries.iter().collect::<Vec<_>>();
    let texts = || -> Result<Vec<Encoding>> {
        let picked: Vec<String> = shared.rows.iter().map(|&row| batch.texts[row as usize].clone()).collect();
        Ok(m.tokenize(Side::Passage, &picked)?)
    };
    if moves {
        let comparable = |q: &Tensor, p: &Tensor| loss(&m.comparable(q), &m.comparable(p));
        let passages = texts()?;
        if let Some(GradCacheConfig { chunk_tokens }) = config.retriever.grad_cache {
            return Ok(grad_cache::backward(m, queries, &passages, chunk_tokens, train, 1.0, comparable)?);
        }
        let q = m.embed(Side::Query, &queries_at_once(), train)?;
        let p = m.embed(Side::Passage, &passages.iter().collect::<Vec<_>>(), train)?;
        return finish(comparable(&q, &p));
    }
    // Passages stay as they are: no graph, and no forward pass either where the index holds them.
    let p = if batch.stale {
        embed_frozen(m, Side::Passage, &texts()?, config.retrieval.batch_tokens as usize)?
    } else {
        let rows = shared.rows.iter().map(|&row| batch.index.row(row)).collect::<Result<Vec<_>>>()?;
        Tensor::from_slice(&rows.concat()).view([shared.rows.len() as i64, m.dim()]).to_device(m.device)
    };
    let q = if batch.trained.retriever {
        m.embed(Side::Query, &queries_at_once(), train)?
    } else {
        let _guard = no_grad();
        m.embed(Side::Query, &queries_at_once(), Mode::eval(m.compute))?
    };
    finish(loss(&m.comparable(&q), &p))
}

fn finish(value: Tensor) -> Result<Tensor> {
    if value.requires_grad() {
        grad::backward(&[value.shallow_clone()], &[Tensor::ones_like(&value)])?;
    }
    Ok(value.detach())
}

/// In-batch cross-entropy towards the first golden passage of each question that has one, over all passages of the
/// batch but its other golden ones and its own copies.
fn info_nce(
    config: &ContrastiveConfig,
    queries: &Tensor,
    passages: &Tensor,
    (gold, own): (&[&[u32]], &[&[u32]]),
    shared: &Shared,
) -> Option<Tensor> {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    let width = shared.rows.len();
    let mut hidden = Vec::new();
    for (i, (of, own)) in gold.iter().zip(own).enumerate() {
        let places: Vec<usize> = of.iter().filter_map(|&row| shared.place(row)).collect();
        let Some((&first, others)) = places.split_first() else { continue };
        rows.push(i as i64);
        targets.push(first as i64);
        let mut mask = vec![0f32; width];
        let own = own.iter().filter_map(|&row| shared.place(row));
        let hides = others.iter().copied().chain(own).filter(|&o| o != first);
        hides.for_each(|o| mask[o] = f32::NEG_INFINITY);
        hidden.extend(mask);
    }
    if rows.is_empty() {
        return None;
    }
    let device = queries.device();
    let queries = queries.index_select(0, &Tensor::from_slice(&rows).to_device(device));
    let logits = in_batch_logits(config, &queries, passages, &hidden);
    Some(logits.cross_entropy_for_logits(&Tensor::from_slice(&targets).to_device(device)))
}

/// In-batch cross-entropy of each question towards the teacher's distribution over its passages, [B, K] probabilities:
/// over all passages of the batch but its own copies, so that those of other questions are negatives.
fn soft_info_nce(
    config: &ContrastiveConfig,
    queries: &Tensor,
    passages: &Tensor,
    teacher: &Tensor,
    own: &[&[u32]],
    shared: &Shared,
) -> Tensor {
    let width = shared.rows.len();
    let mut hidden = vec![0f32; own.len() * width];
    for (i, own) in own.iter().enumerate() {
        for at in own.iter().filter_map(|&row| shared.place(row)) {
            // Finite, so that a question of whose own copies the batch is full has a gradient of 0 and not of NaN.
            hidden[i * width + at] = -1e30;
        }
    }
    let logits = in_batch_logits(config, queries, passages, &hidden);
    // A passage that is not there has place 0 and no weight.
    let weights = teacher.to_kind(Kind::Float) * shared.present.to_kind(Kind::Float);
    let own = logits.log_softmax(-1, Kind::Float).gather(1, &shared.places, false);
    -(weights * own).sum(None::<Kind>) / queries.size()[0].max(1) as f64
}

/// Similarities of questions with all passages of the batch over the temperature, f32, and `hidden` added: below 0 where a
/// passage is no negative.
fn in_batch_logits(
    config: &ContrastiveConfig,
    queries: &Tensor,
    passages: &Tensor,
    hidden: &[f32],
) -> Tensor {
    let shape = [queries.size()[0], passages.size()[0]];
    let mask = Tensor::from_slice(hidden).view(shape).to_device(queries.device());
    queries.to_kind(Kind::Float).matmul(&passages.to_kind(Kind::Float).transpose(0, 1))
        * (1.0 / config.temperature)
        + mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_teacher_names_the_positives_and_the_other_questions_passages_are_negatives() {
        // Three passages: 10 and 11 were found for the first question, 12 and nothing else for the second.
        let passages = Tensor::from_slice2(&[[1.0f32, 0.0], [3.0, 1.0], [0.0, 2.0]]);
        let queries = Tensor::from_slice2(&[[1.0f32, 0.5], [0.0, 1.0]]);
        let shared =
            Shared::new(&[vec![10, 11], vec![12]], 2, std::iter::empty(), ragduet_torch::Device::Cpu);
        let config = ContrastiveConfig { temperature: 1.0, ..ContrastiveConfig::default() };
        let teacher = Tensor::from_slice2(&[[0.25f32, 0.75], [1.0, 0.0]]);
        let loss = |own: [&[u32]; 2]| {
            scalar(&soft_info_nce(&config, &queries, &passages, &teacher, &own, &shared)).double_value(&[])
        };
        let cross = |logits: [f64; 3], of: &[(usize, f64)]| -> f64 {
            let all = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            of.iter().map(|&(i, weight)| weight * (all - logits[i])).sum()
        };
        let first = cross([1.0, 3.5, 1.0], &[(0, 0.25), (1, 0.75)]);
        let second = |logits| cross(logits, &[(2, 1.0)]);
        assert!((loss([&[], &[]]) - (first + second([0.0, 1.0, 2.0])) / 2.0).abs() < 1e-5);
        // The second question's own copy, which the first found, is no negative of it.
        let without = second([f64::NEG_INFINITY, 1.0, 2.0]);
        assert!((loss([&[], &[10]]) - (first + without) / 2.0).abs() < 1e-5);
    }

    #[test]
    fn own_copies_and_other_golden_passages_are_no_negatives() {
        // Four passages; the second is golden too, the third the question's own copy.
        let passages = Tensor::from_slice2(&[[1.0f32, 0.0], [3.0, 1.0], [5.0, 5.0], [0.0, 2.0]]);
        let queries = Tensor::from_slice2(&[[1.0f32, 0.5]]);
        let shared = Shared::new(&[vec![10, 11, 12, 13]], 4, std::iter::empty(), ragduet_torch::Device::Cpu);
        let config = ContrastiveConfig { temperature: 1.0, ..ContrastiveConfig::default() };
        let loss = |own: &[u32]| {
            let (gold, own) = ([&[10u32, 11][..]], [own]);
            scalar(&info_nce(&config, &queries, &passages, (&gold, &own), &shared).unwrap()).double_value(&[])
        };
        let of = |others: &[f64]| {
            let all: f64 = others.iter().chain(&[1.0]).map(|x| x.exp()).sum();
            all.ln() - 1.0
        };
        assert!((loss(&[]) - of(&[7.5, 1.0])).abs() < 1e-5);
        assert!((loss(&[12]) - of(&[1.0])).abs() < 1e-5);
        // Not in the batch, and the target itself.
        assert!((loss(&[99, 10]) - of(&[7.5, 1.0])).abs() < 1e-5);
    }
}
