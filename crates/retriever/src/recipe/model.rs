//! Building the model that a config asks for, and the optimizer over it.

use super::config::{ModelConfig, TemperatureConfig};
use crate::biencoder::BiEncoder;
use crate::head::{Dense, Head, is_of_head};
use crate::representation::{DenseSettings, Pooling, Representation, RepresentationConfig, Similarity};
use crate::st_dir::{self, Overrides};
use crate::{Error, Result};
use ragduet_nn::peft::{self, PeftConfig};
use ragduet_nn::{hub, sees_only_back};
use ragduet_torch::{Compute, Device, Kind, Tensor};
use ragduet_train::{Learner, OptimizerConfig, Place};
use std::path::Path;

/// 1 / temperature: fixed, or its logarithm as a parameter.
#[derive(Debug)]
pub(super) struct Scale {
    fixed: Tensor,
    log: Option<Tensor>,
    max: f64,
}

/// Name of the learnable factor's logarithm.
pub(super) const LOG_SCALE: &str = "log_scale";

impl Scale {
    pub(super) fn new(c: TemperatureConfig, device: Device) -> Self {
        let fixed = Tensor::full([], 1.0 / c.value, (Kind::Float, device));
        let log = c.learnable.then(|| fixed.log().detach().set_requires_grad(true));
        Self { fixed, log, max: 1.0 / c.min }
    }

    pub(super) fn value(&self) -> Tensor {
        match &self.log {
            Some(log) => log.exp().clamp_max(self.max),
            None => self.fixed.shallow_clone(),
        }
    }

    pub(super) fn parameter(&self) -> Option<(String, Tensor)> {
        self.log.as_ref().map(|t| (LOG_SCALE.to_string(), t.shallow_clone()))
    }
}

/// Lengths of new models with one vector a text, where the config says none.
const QUERY_TOKENS: usize = 64;
const PASSAGE_TOKENS: usize = 256;

/// The model that training starts from. `texts`: what the tokenizer of a new one is trained on. Draws from the global
/// generators.
///
/// # Errors
/// A base that cannot be found or loaded; settings that do not fit it.
pub fn build(
    c: &ModelConfig,
    peft: Option<&PeftConfig>,
    compute: Compute,
    device: Device,
    texts: impl FnOnce() -> Vec<String>,
) -> Result<BiEncoder> {
    let mut model = match (&c.base, &c.scratch) {
        (Some(base), _) => {
            let dir = hub::resolve(base)?;
            let late = c.late_interaction.is_some() || st_dir::is_late(&dir)?;
            let plain = !dir.join("modules.json").is_file() && !late && c.sparse.is_none();
            let usual = if plain { Some(usual_pooling(&dir)?) } else { None };
            let pooling = c.pooling.or(usual);
            let similarity = c.similarity.or_else(|| plain.then_some(Similarity::Cosine));
            if let (Some(usual), None) = (usual, c.pooling) {
                let name = usual.name();
                tracing::info!(
                    "{base} does not say how its states become a vector: pooling {name} (model.pooling)"
                );
            }
            let overrides = Overrides {
                pooling,
                similarity,
                normalize: c.normalize.or_else(|| plain.then_some(similarity == Some(Similarity::Cosine))),
                prompts: c.prompts.clone(),
                max_query_tokens: c.max_query_tokens,
                max_passage_tokens: c.max_passage_tokens,
                bits: peft.map_or(c.quantize.bits(), |peft| peft.kept_as(c.quantize, compute)),
                answers: true,
                late: c.late_interaction.clone(),
                sparse: c.sparse,
            };
            let mut model = st_dir::load(&dir, device, compute, &overrides)?;
            if c.separate_towers && model.is_shared() {
                // A second copy of the same files: two towers that share nothing.
                model.passage_tower = Some(st_dir::load(&dir, device, compute, &overrides)?.query_tower);
            }
            model
        }
        (None, Some(_)) if c.quantize.bits().is_some() => {
            let why = "a new model learns whole: give model.base".to_string();
            return Err(Error::Config { key: "model.quantize".into(), why });
        }
        (None, Some(scratch)) => {
            let representation = representation(c);
            let lengths = match &representation {
                RepresentationConfig::Dense(_) | RepresentationConfig::Sparse(_) => {
                    (QUERY_TOKENS, PASSAGE_TOKENS)
                }
                RepresentationConfig::LateInteraction(_) => (32, 180),
            };
            let max_tokens =
                (c.max_query_tokens.unwrap_or(lengths.0), c.max_passage_tokens.unwrap_or(lengths.1));
            let (texts, prompts) = (texts(), c.prompts.clone().unwrap_or_default());
            scratch.build(
                texts.iter().map(String::as_str),
                representation,
                prompts,
                max_tokens,
                device,
                compute,
            )?
        }
        (None, None) => {
            return Err(Error::Config { key: "model".into(), why: "neither `base` nor `scratch`".into() });
        }
    };
    for tower in model.towers_mut() {
        tower.model.encoder.set_dropout(c.dropout, c.attention_dropout);
    }
    if let Some(outputs) = c.projection {
        let poolings = match model.representation() {
            Representation::Dense(settings) => settings.pooling.len(),
            Representation::LateInteraction(_) | Representation::Sparse(_) => 1,
        };
        for tower in model.towers_mut() {
            if !tower.head.is_empty() || tower.model.mlm_head.is_some() {
                let why = "the base has a projection already, or weighs words".to_string();
                return Err(Error::Config { key: "model.projection".into(), why });
            }
            tower.head = Head::projection(Dense::fresh(tower.outputs(poolings), outputs, device)?);
        }
    }
    if let Some(peft) = peft {
        for tower in model.towers_mut() {
            tower.adapt(peft, device)?;
        }
    }
    if c.quantize.bits().is_some() && model.towers().any(|t| t.adapter.is_none()) {
        let why = "a quantised encoder does not learn itself: give [peft]".to_string();
        return Err(Error::Config { key: "model.quantize".into(), why });
    }
    model.check()
}

/// Pooling where neither the config nor the folder says one, as sentence-transformers chooses it: the last token of a
/// model whose tokens see no later ones, else the mean.
fn usual_pooling(dir: &Path) -> Result<Pooling> {
    let base =
        if peft::is_adapter_dir(dir) { hub::resolve(&peft::base_of(dir)?)? } else { dir.to_path_buf() };
    Ok(if sees_only_back(&base)? { Pooling::LastToken } else { Pooling::Mean })
}

/// How a new model is to represent texts.
fn representation(c: &ModelConfig) -> RepresentationConfig {
    match (&c.late_interaction, c.sparse) {
        (Some(late), _) => RepresentationConfig::LateInteraction(late.clone()),
        (None, Some(sparse)) => RepresentationConfig::Sparse(sparse),
        (None, None) => {
            let similarity = c.similarity.unwrap_or_default();
            RepresentationConfig::Dense(DenseSettings {
                pooling: vec![c.pooling.unwrap_or(Pooling::Mean)],
                include_prompt: true,
                normalize: c.normalize.unwrap_or(similarity == Similarity::Cosine),
                similarity,
                truncate: None,
            })
        }
    }
}

/// The optimizer over those of `parameters` that no pattern freezes: the model's, and whatever else is trained with it.
///
/// # Errors
/// A pattern that names nothing; settings out of range.
pub fn learner(
    config: &OptimizerConfig,
    model: &BiEncoder,
    parameters: Vec<(String, Tensor)>,
) -> Result<Learner> {
    let layers = model.layers();
    Ok(Learner::new(config, parameters, layers, |name| {
        // Parts of the encoder outside any layer (a final norm) learn like the top one.
        let head = name == LOG_SCALE || is_of_head(name);
        let depth = if head { None } else { Some(model.depth_of(name).unwrap_or(layers)) };
        Place { depth, lr_scale: model.lr_scale(name) }
    })?)
}
