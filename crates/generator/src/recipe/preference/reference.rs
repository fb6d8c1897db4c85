//! What the reference, the model before the first step, says of each row: computed once and kept in the run folder, since a
//! resumed run has other weights.

use super::rows::{Row, fingerprint};
use super::{batches, side_of};
use crate::error::{Result, catch};
use crate::loss::Preference;
use crate::model::Generator;
use crate::packed::likelihoods;
use crate::recipe::config::PreferenceConfig;
use ragduet_nn::Mode;
use ragduet_text::TrainExample;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Device, Tensor, no_grad};
use ragduet_train::RunContext;

/// Log-probabilities of the reference by row: chosen, rejected, mismatched; 0 where a row has no such sequence.
pub(super) type References = [Vec<f32>; 3];

const FILE: &str = "log-probabilities.safetensors";

/// The reference's log-probabilities, from the run's folder `name` where they are there; none for losses that need none.
///
/// # Errors
/// Other rows than the folder was made from; memory, files.
pub(super) fn references(
    generator: &Generator,
    preference: &Preference,
    config: &PreferenceConfig,
    rows: &[Row],
    context: &RunContext,
    name: &str,
) -> Result<Option<References>> {
    if !preference.loss.needs_reference() || rows.is_empty() {
        return Ok(None);
    }
    // Mismatched completions are there for the losses that need them alone.
    let sides: &[&str] = match preference.loss.needs_mismatched() {
        true => &["chosen", "rejected", "mismatched"],
        false => &["chosen", "rejected"],
    };
    let key = format!("{:016x}", fingerprint(rows));
    let kept = context.dir.artifact(
        &context.world,
        name,
        &key,
        |dir| {
            let all = compute(generator, config, rows, sides.len())?;
            let named = sides.iter().zip(&all).map(|(n, v)| ((*n).to_string(), Tensor::from_slice(v)));
            Ok(save_tensors(&dir.join(FILE), &named.collect::<Vec<_>>(), &[])?)
        },
        |dir| {
            let file = Weights::open_file(&dir.join(FILE))?;
            let mut kept = References::default();
            for (side, name) in kept.iter_mut().zip(sides) {
                let values = file.load(name, Device::Cpu)?;
                *side = Vec::<f32>::try_from(&values).map_err(ragduet_torch::Error::from)?;
            }
            Ok::<_, crate::Error>(kept)
        },
    )?;
    Ok(Some(kept))
}

fn compute(
    generator: &Generator,
    config: &PreferenceConfig,
    rows: &[Row],
    sides: usize,
) -> Result<References> {
    // A new adapter's reference is the model without it; one that goes on is its own.
    let mode = if config.peft.is_some() { Mode::eval(generator.compute) } else { generator.mode(false) };
    let _guard = no_grad();
    let mut out = References::default();
    for side in out.iter_mut().take(sides) {
        side.resize(rows.len(), 0.0);
    }
    for batch in batches(config, rows, 0) {
        let all: Vec<(usize, usize, &TrainExample)> = (0..sides)
            .flat_map(|side| side_of(rows, &batch, side).into_iter().map(move |(i, e)| (side, i, e)))
            .collect();
        let sequences: Vec<&TrainExample> = all.iter().map(|s| s.2).collect();
        let values = catch("the reference's pass", "lower batch.tokens", || {
            Ok(likelihoods(generator, &sequences, 0, mode).completions)
        })?;
        let values: Vec<f32> =
            values.to_device(Device::Cpu).try_into().map_err(ragduet_torch::Error::from)?;
        for (&(side, i, _), value) in all.iter().zip(values) {
            out[side][i] = value;
        }
    }
    Ok(out)
}
