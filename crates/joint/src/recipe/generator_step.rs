//! The generator's step: the answers of a batch behind what the retriever found just now.

use super::config::{JointConfig, Learns};
use super::sides::{GeneratorPart, SideState};
use crate::Result;
use crate::error::catch;
use ragduet_data::RagRecord;
use ragduet_generator::loss::RewardMetrics;
use ragduet_generator::packed::PackedExamples;
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_text::TrainExample;
use ragduet_torch::{Kind, Tensor, grad};
use rayon::prelude::*;

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Learned {
    /// Mean -log p of the answers' tokens.
    pub loss: f64,
    /// The gradients' norm before clipping.
    pub norm: f64,
    /// The learning rate.
    pub lr: f64,
    /// Tokens read, and those learned.
    pub tokens: usize,
    pub targets: usize,
    /// Of preferences.
    pub rewards: Option<RewardMetrics>,
}

/// One step on records with their contexts. `epoch` is what dropped and shuffled passages are drawn by. None where no
/// record makes an example (counted in `report`).
pub(super) fn learn(
    config: &JointConfig,
    part: &mut GeneratorPart,
    state: &mut SideState,
    records: &[RagRecord],
    epoch: u64,
    report: &mut PrepareReport,
) -> Result<Option<Learned>> {
    let GeneratorPart { model, learning: Some(learning), .. } = part else { return Ok(None) };
    let side = &config.generator;
    let each = side.learns == Learns::SftEach;
    let mut contexts = side.contexts.clone();
    if each {
        contexts.count = 1;
    }
    let preparer = Preparer::new(model, &side.prompt, contexts, side.batch_tokens, config.seed)?;
    let shown: Vec<RagRecord> = if each {
        let alone = |r: &RagRecord| {
            let one = |f: &ragduet_data::Found| RagRecord { contexts: vec![f.clone()], ..r.clone() };
            r.contexts.iter().map(one).collect::<Vec<_>>()
        };
        records.iter().flat_map(alone).collect()
    } else {
        records.to_vec()
    };
    let made: Vec<(Option<TrainExample>, PrepareReport)> = shown
        .par_iter()
        .map(|r| {
            let mut report = PrepareReport::default();
            let built = preparer.example(r, epoch, &mut report)?;
            Ok((built.ok(), report))
        })
        .collect::<Result<_>>()?;
    let mut examples = Vec::with_capacity(made.len());
    for (example, one) in made {
        report.add(&one);
        examples.extend(example);
    }
    if examples.is_empty() {
        return Ok(None);
    }
    let window = PackedExamples::pack(examples, side.batch_tokens);
    let targets: usize = window.iter().map(|b| b.targets.len()).sum();
    let tokens = window.iter().map(PackedExamples::tokens).sum();
    learning.optimizer.clear_grads()?;
    let mut loss = 0.0;
    for batch in &window {
        loss += catch("the generator's step", "lower generator.batch_tokens", || {
            let share = batch.nll(model, model.mode(true)).sum(Kind::Float) / targets as f64;
            grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            Ok(f64::try_from(share.detach().to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?)
        })?;
    }
    let (norm, lr) = learning.step(loss, state)?;
    Ok(Some(Learned { loss, norm, lr, tokens, targets, rewards: None }))
}
