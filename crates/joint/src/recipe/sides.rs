//! The two sides of a run: model, optimiser, schedule.

use super::config::{JointConfig, Learns, Towers};
use super::turns::Who;
use crate::Result;
use crate::error::bad;
use ragduet_generator::Generator;
use ragduet_generator::recipe::parts;
use ragduet_retriever::recipe::{build_model, optimizer};
use ragduet_retriever::{BiEncoder, Representation, Side};
use ragduet_torch::optim::Optimizer;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Device, Tensor, no_grad};
use ragduet_train::{EarlyStopping, OptimizerConfig, Schedule, update};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a side's optimiser and schedule are; absent where the side is frozen.
#[derive(Debug)]
pub(super) struct Learning {
    pub config: OptimizerConfig,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
}

/// A side's progress; part of a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SideState {
    /// Optimiser steps done.
    pub steps: u64,
    /// Its measure on dev after its turns.
    pub best: EarlyStopping,
    /// Whether its turns have ended.
    pub stopped: bool,
}

/// The retriever's side.
#[derive(Debug)]
pub(super) struct RetrieverPart {
    pub model: BiEncoder,
    pub learning: Option<Learning>,
}

/// The generator's side.
#[derive(Debug)]
pub(super) struct GeneratorPart {
    pub model: Generator,
    pub learning: Option<Learning>,
    /// The model as it was at the start, where preferences are held to it and no adapter can be left off.
    pub reference: Option<Generator>,
}

impl Learning {
    fn new(config: &OptimizerConfig, optimizer: Optimizer, steps: u64) -> Self {
        let schedule = Schedule::new(config.schedule, config.warmup, steps);
        Self { config: config.clone(), optimizer, schedule }
    }

    /// The learning rate of the step after `done`.
    pub fn lr(&self, done: u64) -> f64 {
        self.config.lr * self.schedule.factor(done)
    }

    /// Clips and steps with the gradients that are there: their norm, and the learning rate.
    pub fn step(&mut self, loss: f64, state: &mut SideState) -> Result<(f64, f64)> {
        let lr = self.lr(state.steps);
        let norm = update(&self.config, &mut self.optimizer, loss, lr, state.steps + 1)?;
        state.steps += 1;
        Ok((norm, lr))
    }
}

impl RetrieverPart {
    /// The retriever that training starts from; `texts`: what the tokenizer of a new one is trained on.
    pub fn build(
        config: &JointConfig,
        device: Device,
        steps: u64,
        texts: impl FnOnce() -> Vec<String>,
    ) -> Result<Self> {
        let side = &config.retriever;
        let alone = side.towers == Towers::Query && !side.frozen;
        let mut settings = side.model.clone();
        if alone && settings.scratch.is_some() {
            return Err(bad(
                "retriever.towers",
                "a new retriever has to learn passages, too: towers = \"both\", or give retriever.model.base",
            ));
        }
        // A query encoder that learns alone must not be the passage encoder.
        settings.separate_towers |= alone;
        let over_both = side.peft.as_ref().filter(|_| !alone);
        let compute = side.precision.resolve(device);
        let mut model = build_model(&settings, over_both, compute, device, texts)?;
        match model.representation() {
            Representation::Dense(_) | Representation::Sparse(_) => {}
            Representation::LateInteraction(_) => {
                return Err(bad(
                    "retriever.model",
                    "the objectives compare one vector a text, and a late-interaction model has one for each token: take a \
                     dense model",
                ));
            }
        }
        if let (true, Some(peft)) = (alone, &side.peft) {
            model.query_tower.adapt(peft, device)?;
        }
        if side.frozen {
            for (_, p) in model.parameters() {
                let _ = p.set_requires_grad(false);
            }
            return Ok(Self { model, learning: None });
        }
        let all = model.parameters();
        let trained = if alone {
            let (query, passage): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|(n, _)| !n.starts_with("passage_tower."));
            for (_, p) in &passage {
                let _ = p.set_requires_grad(false);
            }
            query
        } else {
            all
        };
        let optimizer = optimizer(&side.optim, &model, trained)?;
        Ok(Self { model, learning: Some(Learning::new(&side.optim, optimizer, steps)) })
    }

    /// Whether its steps change passage embeddings.
    pub fn moves_passages(&self) -> bool {
        self.learning.is_some() && self.trains(Side::Passage)
    }

    /// Whether a side's tower learns.
    pub fn trains(&self, side: Side) -> bool {
        let tower = self.model.tower(side);
        let encoder = tower.adapter.as_ref().map_or(&tower.model.params, |a| &a.params);
        let own = encoder.iter().any(|(_, p)| p.tensor.requires_grad());
        own || tower.dense.as_ref().is_some_and(|d| d.trains())
    }
}

impl GeneratorPart {
    /// The generator that training starts from; `texts`: what the tokenizer of a new one is trained on.
    pub fn build<'a>(
        config: &JointConfig,
        device: Device,
        steps: u64,
        texts: impl FnOnce() -> Vec<&'a str>,
    ) -> Result<Self> {
        let side = &config.generator;
        let compute = side.precision.resolve(device);
        let model = parts::build(&side.model, side.peft.as_ref(), compute, device, texts)?;
        if side.frozen {
            model.trained().set_trainable(|_| false);
            return Ok(Self { model, learning: None, reference: None });
        }
        let held = side.learns == Learns::Preferences && side.peft.is_none();
        let reference = if held {
            let reference = parts::build(&side.model, None, compute, device, Vec::new)?;
            reference.trained().set_trainable(|_| false);
            Some(reference)
        } else {
            None
        };
        let optimizer = parts::optimizer(&side.optim, &model)?;
        let learning = Some(Learning::new(&side.optim, optimizer, steps));
        Ok(Self { model, learning, reference })
    }
}

/// A side's parameters by name: what its checkpoint and its best state hold.
pub(super) fn parameters(
    who: Who,
    retriever: &RetrieverPart,
    generator: &GeneratorPart,
) -> Vec<(String, Tensor)> {
    match who {
        Who::Retriever => retriever.model.parameters(),
        Who::Generator => generator.model.trained().named(),
    }
}

/// Writes a side's parameters as they are.
pub(super) fn keep(path: &Path, parameters: &[(String, Tensor)]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs_err::create_dir_all(dir)?;
    }
    Ok(save_tensors(path, parameters, &[])?)
}

/// Puts back what [`keep`] wrote.
pub(super) fn put_back(path: &Path, parameters: &[(String, Tensor)]) -> Result<()> {
    let kept = Weights::open_file(path)?;
    let _guard = no_grad();
    for (name, p) in parameters {
        p.shallow_clone().copy_(&kept.load(name, Device::Cpu)?);
    }
    Ok(())
}
