//! What the recipes share, also with joint training.

use super::config::ModelConfig;
use crate::error::{Result, bad};
use crate::model::Generator;
use crate::scratch::ScratchGenerator;
use ragduet_nn::peft::{PeftConfig, is_adapter_dir, kept_as};
use ragduet_nn::{FrozenBase, hub};
use ragduet_text::Tokenizer;
use ragduet_torch::{Compute, Device};
use ragduet_train::{Learner, OptimizerConfig, Place, epoch_rng, of_base};
use rand::seq::SliceRandom;

/// The model that training starts from. `texts`: what the tokenizer of a new one is trained on. Draws from the global
/// generators.
///
/// # Errors
/// A base that cannot be found or loaded; settings that do not fit it.
pub fn build<'a>(
    c: &ModelConfig,
    peft: Option<&PeftConfig>,
    compute: Compute,
    device: Device,
    held: Option<&FrozenBase>,
    texts: impl FnOnce() -> Vec<&'a str>,
) -> Result<Generator> {
    build_over(c, peft, compute, device, held, |scratch| scratch.tokenizer(texts().into_iter()))
}

/// [`build`] with the tokenizer that a new model gets.
///
/// # Errors
/// As [`build`], and those of `tokenizer`.
pub fn build_over(
    c: &ModelConfig,
    peft: Option<&PeftConfig>,
    compute: Compute,
    device: Device,
    held: Option<&FrozenBase>,
    tokenizer: impl FnOnce(&ScratchGenerator) -> Result<Tokenizer>,
) -> Result<Generator> {
    let mut generator = match (&c.base, &c.scratch) {
        (Some(base), _) => {
            let dir = hub::resolve(base)?;
            let bits = match peft {
                Some(config) => config.kept_as(c.quantize, compute),
                None if is_adapter_dir(&dir) => kept_as(&dir, c.quantize, compute)?,
                None => c.quantize.bits(),
            };
            Generator::load_over(&dir, device, compute, bits, held)?
        }
        (None, Some(_)) if c.quantize.bits().is_some() => {
            return Err(bad("model.quantize", "a new model learns whole: give model.base"));
        }
        (None, Some(scratch)) => scratch.over(tokenizer(scratch)?, device, compute)?,
        (None, None) => return Err(bad("model", "give `base` or `[model.scratch]`")),
    };
    generator.model.kind.set_dropout(c.dropout, c.attention_dropout);
    match generator.model.causal_mut() {
        Some(lm) => lm.set_recompute(c.recompute),
        None if c.recompute => return Err(bad("model.recompute", "decoder-only models alone can")),
        None => {}
    }
    if let Some(config) = peft {
        generator.adapt(config)?;
    }
    if c.quantize.bits().is_some() && generator.adapter.is_none() {
        return Err(bad("model.quantize", "a quantised model does not learn itself: give [peft]"));
    }
    Ok(generator)
}

/// What the log says of a generator before training.
pub(super) fn described(generator: &Generator) -> String {
    let (all, training) = trainable(generator);
    let share = 100.0 * training as f64 / all as f64;
    let (compute, device) = (generator.compute, generator.device);
    format!("{training} of {all} parameters train ({share:.3} %); {compute} on {device:?}")
}

/// The order of so many examples in an epoch.
pub(super) fn shuffled(examples: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..examples).collect();
    order.shuffle(&mut epoch_rng(seed, epoch));
    order
}

/// Number of scalars in all (base and adapter), and of those that train.
pub fn trainable(generator: &Generator) -> (u64, u64) {
    let (all, training) = generator.model.params.count();
    match &generator.adapter {
        None => (all, training),
        Some(a) => (all + a.params.count().0, a.params.count().1),
    }
}

/// The optimiser over what trains, an adapter or the model.
///
/// # Errors
/// A pattern in `freeze` that names nothing; settings out of range.
pub fn learner(config: &OptimizerConfig, generator: &Generator) -> Result<Learner> {
    let lm = &generator.model.kind;
    let layers = lm.layers();
    let params = generator.trained();
    params.set_trainable(|_| true);
    // The final norm and the head learn like the top layer.
    let place = |name: &str| Place {
        depth: Some(lm.depth_of(of_base(name)).unwrap_or(layers)),
        lr_scale: generator.adapter.as_ref().map_or(1.0, |a| a.config.lr_scale(name)),
    };
    Ok(Learner::new(config, params.trainable(), layers, place)?)
}
