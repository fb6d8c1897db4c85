//! What the recipes share, also with joint training.

use super::config::ModelConfig;
use crate::error::{Error, Result, bad};
use crate::model::{Generator, ScratchGenerator};
use ragduet_data::{BadRowPolicy, BadRows};
use ragduet_nn::hub;
use ragduet_nn::peft::PeftConfig;
use ragduet_text::Tokenizer;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Compute, Device};
use ragduet_train::checkpoint::replace_dir;
use ragduet_train::{OptimizerConfig, check_patterns, is_frozen};
use std::path::Path;

/// Stop at a bad row, or move it to a file of the run.
pub fn bad_rows(skip: bool, out: &Path) -> BadRows {
    BadRows::new(if skip {
        BadRowPolicy::Skip { sidecar: out.join("bad_rows.jsonl") }
    } else {
        BadRowPolicy::Fail
    })
}

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
    texts: impl FnOnce() -> Vec<&'a str>,
) -> Result<Generator> {
    build_over(c, peft, compute, device, |scratch| scratch.tokenizer(texts().into_iter()))
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
    tokenizer: impl FnOnce(&ScratchGenerator) -> Result<Tokenizer>,
) -> Result<Generator> {
    let bits = c.quantize.bits();
    let mut generator = match (&c.base, &c.scratch) {
        (Some(base), _) => Generator::load_quantised(&hub::resolve(base)?, device, compute, bits)?,
        (None, Some(_)) if bits.is_some() => {
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
    if bits.is_some() && generator.adapter.is_none() {
        return Err(bad("model.quantize", "a quantised model does not learn itself: give [peft]"));
    }
    Ok(generator)
}

/// Number of scalars in all (base and adapter), and of those that train.
pub fn trainable(generator: &Generator) -> (u64, u64) {
    let (all, training) = generator.model.params.count();
    match &generator.adapter {
        None => (all, training),
        Some(a) => (all + a.params.count().0, a.params.count().1),
    }
}

/// The optimiser over what trains.
///
/// # Errors
/// A pattern in `freeze` that names nothing; settings out of range.
pub fn optimizer(config: &OptimizerConfig, generator: &Generator) -> Result<Optimizer> {
    let params = generator.trained();
    check_patterns(&config.freeze, params.iter().map(|(n, _)| n))?;
    params.set_trainable(|name| !is_frozen(name, &config.freeze));
    let lm = &generator.model.kind;
    let layers = lm.layers();
    Ok(Optimizer::new(&params.trainable(), config.options()?, |name| {
        // An adapter's parameters learn like those of the module they belong to.
        let of_base = name.strip_prefix("base_model.model.").unwrap_or(name);
        // The final norm and the head learn like the top layer.
        let mut rule = config.rule(name, Some(lm.depth_of(of_base).unwrap_or(layers)), layers);
        rule.lr_scale *= generator.adapter.as_ref().map_or(1.0, |a| a.config.lr_scale(name));
        rule
    }))
}

/// Writes `best/`, the model as transformers reads it, and `best.json`, how it came about.
pub fn save_best(generator: &Generator, out: &Path, facts: &serde_json::Value) -> Result<()> {
    replace_dir(&out.join("best"), |d| generator.save(d))?;
    let path = out.join("best.json");
    let text =
        serde_json::to_vec_pretty(facts).map_err(|source| Error::Json { path: path.clone(), source })?;
    Ok(write_atomic(&path, &text)?)
}
