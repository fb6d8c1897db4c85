//! The two models of a run: how each is built, its optimizer, its early stopping.

use super::alternation::{Trainee, Turn};
use super::config::{GeneratorObjective, JointConfig, Towers};
use super::evaluate::DevScores;
use super::links;
use crate::Result;
use crate::error::bad;
use ragduet_generator::Generator;
use ragduet_generator::recipe::parts;
use ragduet_nn::{FrozenBase, hub, peft};
use ragduet_retriever::recipe::{build_model, learner};
use ragduet_retriever::{BiEncoder, Representation, Side};
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Compute, Device, Precision, Tensor, no_grad};
use ragduet_train::{EarlyStopping, Learner, RunContext, StopConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The retriever and the generator of a run.
#[derive(Debug)]
pub(super) struct Sides {
    pub retriever: RetrieverPart,
    pub generator: GeneratorPart,
}

/// The retriever and its training.
#[derive(Debug)]
pub(super) struct RetrieverPart {
    pub model: BiEncoder,
    pub training: Training,
}

/// The generator and its training.
#[derive(Debug)]
pub(super) struct GeneratorPart {
    pub model: Generator,
    pub training: Training,
    /// The model as it was at the start: the reference of a preference loss where no adapter can be left off.
    pub reference: Option<Generator>,
}

/// How one model is trained.
#[derive(Debug)]
pub(super) struct Training {
    /// Optimizer and schedule; `None` where the model is frozen.
    pub learner: Option<Learner>,
    state: SideState,
    /// The first step of the run in which it is trained.
    start_at: u64,
    stop: Option<StopConfig>,
}

/// Early stopping of one model; part of a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SideState {
    /// Its measure on dev after its turns.
    pub best: EarlyStopping,
    /// Whether its training has ended.
    pub stopped: bool,
}

/// The folder of a run, and of its checkpoints, with the best weights of models that may be stopped.
const BEST: &str = "sides";

impl Training {
    fn new(learner: Option<Learner>, start_at: u64, stop: Option<StopConfig>) -> Self {
        let stop = stop.filter(|_| learner.is_some());
        Self { learner, state: SideState::default(), start_at, stop }
    }

    /// Whether the model is trained in some step yet to come.
    pub fn goes_on(&self) -> bool {
        self.learner.is_some() && !self.state.stopped
    }

    /// Whether the model may be trained in a step.
    pub fn trains_at(&self, step: u64) -> bool {
        self.goes_on() && step >= self.start_at
    }

    /// Whether the model takes turns at a step. Of both at once one that starts later is waited for.
    pub fn takes_turns(&self, step: u64, turn: Turn) -> bool {
        self.goes_on() && (turn.who.is_none() || step >= self.start_at)
    }
}

impl RetrieverPart {
    /// The retriever that training starts from; `texts`: what the tokenizer of a new one is trained on.
    fn build(
        config: &JointConfig,
        (device, compute): (Device, Compute),
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
        let mut model = build_model(&settings, over_both, compute, device, texts)?;
        match model.representation() {
            Representation::Dense(settings) if settings.truncate.is_some() => {
                return Err(bad(
                    "retriever.model.base",
                    "its config_sentence_transformers.json sets truncate_dim, and joint training needs whole vectors: \
                     remove the key, and put it back into the trained folder",
                ));
            }
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
        let learner = match side.frozen {
            true => {
                freeze(&model.parameters());
                None
            }
            false => {
                let fixed = |(name, _): &(String, Tensor)| alone && name.starts_with("passage_tower.");
                let (fixed, trained): (Vec<_>, Vec<_>) = model.parameters().into_iter().partition(fixed);
                freeze(&fixed);
                Some(learner(&side.optim, &model, trained)?)
            }
        };
        Ok(Self { model, training: Training::new(learner, side.start_at, side.stop) })
    }

    /// Whether its steps change passage embeddings.
    pub fn moves_passages(&self) -> bool {
        self.training.learner.is_some() && self.trains(Side::Passage)
    }

    /// Whether a tower has parameters that are trained.
    fn trains(&self, side: Side) -> bool {
        let tower = self.model.tower(side);
        let encoder = tower.adapter.as_ref().map_or(&tower.model.params, |a| &a.params);
        let own = encoder.iter().any(|(_, p)| p.tensor.requires_grad());
        own || tower.head.trains()
    }
}

impl GeneratorPart {
    /// The generator that training starts from; `texts`: what the tokenizer of a new one is trained on.
    fn build<'a>(
        config: &JointConfig,
        (device, compute): (Device, Compute),
        held: Option<&FrozenBase>,
        texts: impl FnOnce() -> Vec<&'a str>,
    ) -> Result<Self> {
        let side = &config.generator;
        // What trains whole must not be the retriever's as well.
        let base = side.model.base.as_deref().map(hub::resolve).transpose()?;
        let adapted = side.peft.is_some() || base.is_some_and(|dir| peft::is_adapter_dir(&dir));
        let held = held.filter(|_| adapted);
        let model = parts::build(&side.model, side.peft.as_ref(), compute, device, held, texts)?;
        if let Some(bytes) = held.map(|base| base.bytes_shared(&model.model.params)).filter(|&n| n > 0) {
            let (megabytes, base) = (bytes as f64 / 1e6, &model.base);
            tracing::info!(
                "retriever and generator are adapters of {base}: {megabytes:.0} MB of frozen weights are held once"
            );
        }
        if side.frozen {
            model.trained().set_trainable(|_| false);
            return Ok(Self { model, training: Training::new(None, 0, None), reference: None });
        }
        let held = side.objective == GeneratorObjective::Preferences && side.peft.is_none();
        let reference = if held {
            let reference = parts::build(&side.model, None, compute, device, None, Vec::new)?;
            reference.trained().set_trainable(|_| false);
            Some(reference)
        } else {
            None
        };
        let learner = parts::learner(&side.optim, &model)?;
        Ok(Self { model, training: Training::new(Some(learner), side.start_at, side.stop), reference })
    }
}

impl Sides {
    /// Both models; `texts`: passages, questions and answers, what the tokenizers of new ones are trained on.
    pub fn build(config: &JointConfig, context: &RunContext, texts: [Vec<&str>; 3]) -> Result<Self> {
        let on = |precision: Option<Precision>| {
            (context.device, precision.map_or(context.compute, |p| p.resolve(context.device)))
        };
        let [passages, questions, answers] = texts;
        let retriever = RetrieverPart::build(config, on(config.retriever.precision), || {
            passages.iter().chain(&questions).map(|t| (*t).to_string()).collect()
        })?;
        let held = retriever.model.frozen_base();
        let generator = GeneratorPart::build(config, on(config.generator.precision), held.as_ref(), || {
            [passages.as_slice(), &questions, &answers].concat()
        })?;
        Ok(Self { retriever, generator })
    }

    /// The training of a model.
    pub fn training(&self, who: Trainee) -> &Training {
        match who {
            Trainee::Retriever => &self.retriever.training,
            Trainee::Generator => &self.generator.training,
        }
    }

    fn training_mut(&mut self, who: Trainee) -> &mut Training {
        match who {
            Trainee::Retriever => &mut self.retriever.training,
            Trainee::Generator => &mut self.generator.training,
        }
    }

    /// The optimizers of models that are not frozen, by name.
    pub fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        let retriever = self.retriever.training.learner.as_mut().map(|l| ("retriever", l));
        let generator = self.generator.training.learner.as_mut().map(|l| ("generator", l));
        retriever.into_iter().chain(generator).collect()
    }

    /// Lays the schedules over so many steps of each: (retriever, generator).
    pub fn plan(&mut self, (retriever, generator): (u64, u64)) {
        for (who, steps) in [(Trainee::Retriever, retriever), (Trainee::Generator, generator)] {
            if let Some(learner) = &mut self.training_mut(who).learner {
                learner.plan(steps);
            }
        }
    }

    /// The parameters of a model: what a checkpoint and its best weights hold.
    fn parameters_of(&self, who: Trainee) -> Vec<(String, Tensor)> {
        match who {
            Trainee::Retriever => self.retriever.model.parameters(),
            Trainee::Generator => self.generator.model.trained().named(),
        }
    }

    /// The parameters of models that are not frozen, as `retriever.NAME` and `generator.NAME`.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let trained = Trainee::BOTH.into_iter().filter(|who| self.training(*who).learner.is_some());
        trained
            .flat_map(|who| self.parameters_of(who).into_iter().map(move |(n, p)| (format!("{who}.{n}"), p)))
            .collect()
    }

    /// Scalars of a model: all, and those that are trained.
    pub fn count(&self, who: Trainee) -> (u64, u64) {
        match who {
            Trainee::Generator => parts::trainable(&self.generator.model),
            Trainee::Retriever => {
                self.retriever.model.parameters().iter().fold((0, 0), |(all, own), (_, p)| {
                    let n = p.numel() as u64;
                    (all + n, own + if p.requires_grad() { n } else { 0 })
                })
            }
        }
    }

    /// The precision of a model's matrix products.
    pub fn compute(&self, who: Trainee) -> Compute {
        match who {
            Trainee::Retriever => self.retriever.model.compute,
            Trainee::Generator => self.generator.model.compute,
        }
    }

    /// Takes a model's measure on dev; keeps its weights where it is the best; whether its training should end.
    pub fn judge(&mut self, who: Trainee, scores: &DevScores, step: u64, dir: &Path) -> Result<bool> {
        let Some(stop) = self.training(who).stop else { return Ok(false) };
        let value = match who {
            Trainee::Retriever => scores.recall.unwrap_or(scores.answer_recall),
            Trainee::Generator => scores.f1,
        };
        let best = &mut self.training_mut(who).state.best;
        if best.update(value, step, stop.min_gain) {
            let path = best_of(dir, who);
            fs_err::create_dir_all(dir.join(BEST))?;
            save_tensors(&path, &self.parameters_of(who), &[])?;
        }
        Ok(self.training(who).state.best.should_stop(Some(&stop)))
    }

    /// Ends a model's training with its best weights; its measurements until then.
    pub fn end(&mut self, who: Trainee, dir: &Path) -> Result<EarlyStopping> {
        let kept = Weights::open_file(&best_of(dir, who))?;
        {
            let _guard = no_grad();
            for (name, p) in self.parameters_of(who) {
                p.shallow_clone().copy_(&kept.load(&name, Device::Cpu)?);
            }
        }
        let state = &mut self.training_mut(who).state;
        state.stopped = true;
        Ok(state.best)
    }

    /// Links the best weights into a checkpoint; the state of both: retriever, generator.
    pub fn save(&self, checkpoint: &Path, dir: &Path) -> Result<[SideState; 2]> {
        links::link(&dir.join(BEST), &checkpoint.join(BEST))?;
        Ok(Trainee::BOTH.map(|who| self.training(who).state))
    }

    /// What [`Sides::save`] kept; parameters and optimizers are the loop's.
    pub fn restore(&mut self, states: [SideState; 2], checkpoint: &Path, dir: &Path) -> Result<()> {
        for (who, state) in Trainee::BOTH.into_iter().zip(states) {
            self.training_mut(who).state = state;
        }
        links::replace(&checkpoint.join(BEST), &dir.join(BEST))
    }
}

fn best_of(dir: &Path, who: Trainee) -> PathBuf {
    dir.join(BEST).join(format!("{who}.safetensors"))
}

fn freeze(parameters: &[(String, Tensor)]) {
    for (_, p) in parameters {
        let _ = p.set_requires_grad(false);
    }
}
