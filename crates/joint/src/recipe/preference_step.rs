//! The generator's step on preferences from perturbed retrieval: what it says itself when it is shown passages that hold
//! the answer is to be preferred to what it says when it is shown passages that do not, behind the passages that were
//! found. Where it is wrong in spite of the right passages, the answer that is known takes the place of its own; where it
//! is right without them, there is nothing to prefer. Rollouts of a perturbed module and DPO on them: RAG-DDR, Li et al.,
//! 2024 (arXiv 2410.13509).

use super::config::JointConfig;
use super::generator_turn::Learned;
use super::sides::{GeneratorPart, SideState};
use crate::Result;
use crate::error::catch;
use ragduet_data::RagRecord;
use ragduet_generator::Generator;
use ragduet_generator::answers::{AnswerOptions, Answered, answer_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::loss::{Preference, PreferenceBatch, Reference, RewardMetrics, Window};
use ragduet_generator::packed::likelihoods;
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_metrics::answer::exact_match;
use ragduet_nn::Mode;
use ragduet_text::TrainExample;
use ragduet_torch::{Kind, Tensor, grad, no_grad};

/// One step on records with their contexts; arguments as of `generator_turn::learn`. None where the batch makes no pair
/// (counted in `report`).
pub(super) fn prefer(
    config: &JointConfig,
    part: &mut GeneratorPart,
    state: &mut SideState,
    records: &[RagRecord],
    epoch: u64,
    report: &mut PrepareReport,
) -> Result<Option<Learned>> {
    let GeneratorPart { model, learning: Some(learning), reference } = part else { return Ok(None) };
    let side = &config.generator;
    let preference = side.preference.clone().unwrap_or_default().build()?;
    let pairs = pairs(config, model, records, epoch, report)?;
    if pairs.is_empty() {
        return Ok(None);
    }
    let tokens: usize = pairs.iter().flatten().map(|e| e.ids.len()).sum();
    let targets: usize = pairs.iter().flatten().map(TrainExample::targets).sum();
    let chosen: usize = pairs.iter().map(|p| p[0].targets()).sum();
    let totals = Window { rows: pairs.len() as u64, likelihood_tokens: chosen as u64 };
    learning.optimizer.clear_grads()?;
    let (mut loss, mut rewards) = (0.0, RewardMetrics { accuracy: Some(0.0), ..RewardMetrics::default() });
    for batch in batches(&pairs, side.batch_tokens) {
        let share = batch.len() as f64 / pairs.len() as f64;
        let (value, own) = catch("the generator's step", "lower generator.batch_tokens", || {
            step(&preference, model, reference.as_ref(), batch, totals)
        })?;
        loss += value;
        rewards.chosen += share * own.chosen;
        rewards.rejected += share * own.rejected;
        rewards.accuracy = rewards.accuracy.zip(own.accuracy).map(|(all, one)| all + share * one);
    }
    rewards.margin = rewards.chosen - rewards.rejected;
    let (norm, lr) = learning.step(loss, state)?;
    Ok(Some(Learned { loss, norm, lr, tokens, targets, rewards: Some(rewards) }))
}

/// Gradients of a batch's share of the loss; the share and its rewards.
fn step(
    preference: &Preference,
    model: &Generator,
    reference: Option<&Generator>,
    batch: &[[TrainExample; 2]],
    totals: Window,
) -> Result<(f64, RewardMetrics)> {
    let n = batch.len() as i64;
    let sequences: Vec<&TrainExample> =
        batch.iter().map(|p| &p[0]).chain(batch.iter().map(|p| &p[1])).collect();
    let split = |t: &Tensor| (t.narrow(0, 0, n), t.narrow(0, n, n));
    let held = if preference.loss.needs_reference() {
        let _guard = no_grad();
        // Without a copy the reference is the model with its adapter off.
        let (held, mode) = match reference {
            Some(copy) => (copy, copy.mode(false)),
            None => (model, Mode::eval(model.compute)),
        };
        Some(split(&likelihoods(held, &sequences, 0, mode).completions))
    } else {
        None
    };
    // Dropout is off, as in the papers: policy and reference are equal at the start.
    let l = likelihoods(model, &sequences, 0, model.mode(false));
    let ((chosen, rejected), (chosen_tokens, rejected_tokens)) = (split(&l.completions), split(&l.tokens));
    let rows = preference.loss.rows(&PreferenceBatch {
        chosen: &chosen,
        rejected: &rejected,
        chosen_tokens: &chosen_tokens,
        rejected_tokens: &rejected_tokens,
        reference: held.as_ref().map(|(chosen, rejected)| Reference { chosen, rejected }),
        mismatched: None,
    })?;
    let share = preference.share(&rows, Some(&chosen.sum(Kind::Float).neg()), totals)?;
    grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
    let value = f64::try_from(share.detach().to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?;
    Ok((value, rows.metrics(true)?))
}

/// Runs of pairs of at most so many tokens; a longer pair is one of its own.
fn batches(pairs: &[[TrainExample; 2]], budget: usize) -> Vec<&[[TrainExample; 2]]> {
    let (mut out, mut from, mut held) = (Vec::new(), 0, 0);
    for (i, pair) in pairs.iter().enumerate() {
        let own: usize = pair.iter().map(|e| e.ids.len()).sum();
        if held + own > budget && i > from {
            out.push(&pairs[from..i]);
            (from, held) = (i, 0);
        }
        held += own;
    }
    out.push(&pairs[from..]);
    out
}

/// What is preferred to what, behind the prompts that training sees.
fn pairs(
    config: &JointConfig,
    model: &Generator,
    records: &[RagRecord],
    epoch: u64,
    report: &mut PrepareReport,
) -> Result<Vec<[TrainExample; 2]>> {
    let side = &config.generator;
    let (mut asked, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for r in records {
        let [golden, others] = perturbed(r);
        if golden.contexts.is_empty() || others.contexts.is_empty() {
            let why = "no passage with the answer, or none without it, to compare".to_string();
            *report.left_out.entry(why).or_default() += 1;
            continue;
        }
        asked.push(r);
        with.push(golden);
        without.push(others);
    }
    let options = AnswerOptions {
        prompt: &side.prompt,
        contexts: ContextConfig::retrieved(side.contexts.count),
        decode: &config.eval.decode,
        batch: config.eval.batch,
        seed: config.seed.wrapping_add(epoch),
    };
    let said = |shown: &[RagRecord]| -> Result<Vec<Answered>> {
        let _guard = no_grad();
        catch("answering", "lower eval.batch", || Ok(answer_all(model, shown, &options, &mut |_| ())?.0))
    };
    let (with, without) = (said(&with)?, said(&without)?);
    let preparer = Preparer::new(model, &side.prompt, side.contexts.clone(), side.batch_tokens, config.seed)?;
    let mut out = Vec::new();
    for ((r, with), without) in asked.into_iter().zip(with).zip(without) {
        let right = |a: &Answered| exact_match(&a.answer, &r.answers) == 1.0;
        let chosen = if right(&with) { with.answer } else { r.answers[0].clone() };
        if right(&without) || without.answer.trim().is_empty() {
            *report
                .left_out
                .entry("answered rightly, or not at all, without the passage".into())
                .or_default() += 1;
            continue;
        }
        let built = preparer.examples(r, &[chosen, without.answer], epoch, report)?;
        if let Ok([chosen, rejected]) = built.map(<[TrainExample; 2]>::try_from).unwrap_or(Err(Vec::new())) {
            out.push([chosen, rejected]);
        }
    }
    Ok(out)
}

/// The record with the passages that hold the answer (golden ones, and those in which an answer stands) alone, and with
/// the others alone.
fn perturbed(record: &RagRecord) -> [RagRecord; 2] {
    let holds = |text: &str| {
        let text = text.to_lowercase();
        record.answers.iter().any(|a| text.contains(&a.to_lowercase()))
    };
    let (mut golden, others): (Vec<_>, Vec<_>) = record
        .contexts
        .iter()
        .cloned()
        .partition(|f| holds(&f.passage.text) || record.gold.iter().any(|g| g.id == f.passage.id));
    let found: Vec<String> = golden.iter().map(|f| f.passage.id.clone()).collect();
    let missed = record.gold.iter().filter(|g| !found.contains(&g.id));
    golden.extend(missed.map(|g| ragduet_data::Found { passage: g.clone(), score: None }));
    [golden, others].map(|contexts| RagRecord { contexts, gold: Vec::new(), ..record.clone() })
}
