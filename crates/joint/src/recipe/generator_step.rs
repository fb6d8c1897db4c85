//! The generator's step: the loss of a batch's answers given the passages that the retriever found just now.

use super::config::{GeneratorObjective, JointConfig};
use super::sides::GeneratorPart;
use crate::Result;
use crate::error::catch;
use ragduet_data::RagRecord;
use ragduet_generator::loss::RewardMetrics;
use ragduet_generator::packed::PackedExamples;
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_text::TrainExample;
use ragduet_torch::{Kind, Tensor, grad};
use ragduet_train::{Counts, Line, Metrics, RunState, Update};
use rayon::prelude::*;

/// What a step came to.
#[derive(Debug)]
pub(super) struct GeneratorMetrics {
    /// Mean loss, of the answers' tokens or of pairs.
    pub loss: Tensor,
    pub update: Update,
    /// Tokens read, and those learned.
    pub tokens: usize,
    pub targets: usize,
    /// Of a preference loss.
    pub rewards: Option<RewardMetrics>,
}

impl GeneratorMetrics {
    /// The line of the log.
    pub fn line(self) -> Line {
        let mut values = vec![("tokens", self.tokens as f64), ("targets", self.targets as f64)];
        if let Some(r) = &self.rewards {
            values.push(("reward_margin", r.margin));
            values.extend(r.accuracy.map(|a| ("reward_accuracy", a)));
        }
        let Update { lr, grad_norm } = self.update;
        Line {
            kind: "generator",
            loss: Some(self.loss),
            lr: Some(lr),
            grad_norm: Some(grad_norm),
            values,
            ..Line::default()
        }
    }
}

/// One supervised step on records with their contexts. The epoch is what dropped and shuffled passages are drawn by. None
/// where no record makes an example (counted in `report`).
pub(super) fn supervised_step(
    config: &JointConfig,
    part: &mut GeneratorPart,
    records: &[RagRecord],
    report: &mut PrepareReport,
    run: &RunState,
) -> Result<Option<GeneratorMetrics>> {
    let GeneratorPart { model, training, .. } = part;
    let Some(learner) = &mut training.learner else { return Ok(None) };
    let side = &config.generator;
    let each = side.objective == GeneratorObjective::SftEach;
    let mut contexts = side.contexts.clone();
    if each {
        contexts.count = 1;
    }
    let preparer = Preparer::new(model, &side.prompt, contexts, side.batch_tokens, config.run.seed)?;
    let shown: Vec<RagRecord> = if each {
        let alone = |r: &RagRecord| {
            let one = |f: &ragduet_data::Found| RagRecord { contexts: vec![f.clone()], ..r.clone() };
            r.contexts.iter().map(one).collect::<Vec<_>>()
        };
        records.iter().flat_map(alone).collect()
    } else {
        records.to_vec()
    };
    if run.at.step == 0 {
        preparer.log_first(&shown)?;
    }
    let made: Vec<(Option<TrainExample>, PrepareReport)> = shown
        .par_iter()
        .map(|r| {
            let mut report = PrepareReport::default();
            let built = preparer.example(r, run.at.epoch, &mut report)?;
            Ok((built.ok(), report))
        })
        .collect::<Result<_>>()?;
    let mut examples = Vec::with_capacity(made.len());
    for (example, one) in made {
        report.add(&one);
        examples.extend(example);
    }
    let window = PackedExamples::pack(examples, side.batch_tokens);
    let targets: usize = window.iter().map(|b| b.targets.len()).sum();
    let tokens = window.iter().map(PackedExamples::tokens).sum();
    let totals = run.world.sum(Counts::one(targets as f64));
    if totals[0] == 0.0 {
        return Ok(None);
    }
    learner.clear()?;
    let mut metrics = Metrics::default();
    for batch in &window {
        metrics.add(catch("the generator's step", "lower generator.batch_tokens", || {
            let share = batch.nll(model, model.mode(true)).sum(Kind::Float) / totals[0];
            grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            Ok(Metrics::of(&share))
        })?);
    }
    let loss = metrics.loss.unwrap_or_else(|| Tensor::from(0f64));
    let update = learner.update(&loss, run)?;
    Ok(Some(GeneratorMetrics { loss, update, tokens, targets, rewards: None }))
}
