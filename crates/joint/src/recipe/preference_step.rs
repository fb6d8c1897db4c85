//! The generator's step on preferences from perturbed retrieval: its own answer given passages that hold the answer is
//! preferred to its own answer given passages that do not, in prompts with the passages that were found. Where the first
//! is wrong, the known answer takes its place; where the second is right, there is no pair. Rollouts of a perturbed module
//! and DPO on them: RAG-DDR, Li et al., 2024 (arXiv 2410.13509).

use super::config::JointConfig;
use super::generator_step::GeneratorMetrics;
use super::sides::GeneratorPart;
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
use ragduet_train::{Counts, Metrics, RunState};

/// One step on records with their contexts. The epoch is what rollouts are drawn by. None where the batch makes no pair
/// (counted in `report`).
pub(super) fn preference_step(
    config: &JointConfig,
    part: &mut GeneratorPart,
    records: &[RagRecord],
    report: &mut PrepareReport,
    run: &RunState,
) -> Result<Option<GeneratorMetrics>> {
    let GeneratorPart { model, training, reference } = part;
    let Some(learner) = &mut training.learner else { return Ok(None) };
    let side = &config.generator;
    let preference = side.preference.clone().unwrap_or_default().build()?;
    let pairs = pairs(config, model, records, run.at.epoch, report)?;
    let tokens: usize = pairs.iter().flatten().map(|e| e.ids.len()).sum();
    let targets: usize = pairs.iter().flatten().map(TrainExample::targets).sum();
    let chosen: usize = pairs.iter().map(|p| p[0].targets()).sum();
    let totals = run.world.sum(Counts(vec![pairs.len() as f64, chosen as f64]));
    if totals[0] == 0.0 {
        return Ok(None);
    }
    let window = Window { rows: totals[0] as u64, likelihood_tokens: totals[1] as u64 };
    learner.clear()?;
    let mut metrics = Metrics::default();
    let mut rewards = RewardMetrics { accuracy: Some(0.0), ..RewardMetrics::default() };
    for batch in batches(&pairs, side.batch_tokens) {
        let share = batch.len() as f64 / pairs.len() as f64;
        let (value, own) = catch("the generator's step", "lower generator.batch_tokens", || {
            backward(&preference, model, reference.as_ref(), batch, window)
        })?;
        metrics.add(value);
        rewards.chosen += share * own.chosen;
        rewards.rejected += share * own.rejected;
        rewards.accuracy = rewards.accuracy.zip(own.accuracy).map(|(all, one)| all + share * one);
    }
    rewards.margin = rewards.chosen - rewards.rejected;
    let loss = metrics.loss.unwrap_or_else(|| Tensor::from(0f64));
    let update = learner.update(&loss, run)?;
    Ok(Some(GeneratorMetrics { loss, update, tokens, targets, rewards: Some(rewards) }))
}

/// Gradients of a batch's share of the loss; the share and its rewards.
fn backward(
    preference: &Preference,
    model: &Generator,
    reference: Option<&Generator>,
    batch: &[[TrainExample; 2]],
    totals: Window,
) -> Result<(Metrics, RewardMetrics)> {
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
    Ok((Metrics::of(&share), rows.metrics(true)?))
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
    if from < pairs.len() {
        out.push(&pairs[from..]);
    }
    out
}

/// Pairs of a preferred and a rejected answer, with the prompts of training.
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
        batch: config.eval.batch_size,
        seed: config.run.seed.wrapping_add(epoch),
    };
    let said = |shown: &[RagRecord]| -> Result<Vec<Answered>> {
        let _guard = no_grad();
        catch("answering", "lower eval.batch_size", || Ok(answer_all(model, shown, &options, &mut |_| ())?.0))
    };
    let (with, without) = (said(&with)?, said(&without)?);
    let preparer =
        Preparer::new(model, &side.prompt, side.contexts.clone(), side.batch_tokens, config.run.seed)?;
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
