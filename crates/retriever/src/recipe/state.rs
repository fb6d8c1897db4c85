//! What a checkpoint holds: weights, moments, generators, place in the data, negatives.

use super::model::Scale;
use crate::biencoder::BiEncoder;
use crate::{Error, Result};
use fs_err as fs;
use ragduet_torch::optim::AdamW;
use ragduet_torch::rng::RngState;
use ragduet_torch::weights::{Weights, save_tensors, write_atomic};
use ragduet_torch::{Tensor, no_grad};
use ragduet_train::EarlyStopping;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Optimiser steps done.
    pub step: u64,
    /// The current epoch.
    pub epoch: u64,
    /// Batches of it that are done.
    pub batch: usize,
    /// Mining rounds done.
    pub rounds: u64,
    /// The step before which the last of them was.
    pub mined_at: Option<u64>,
    /// The best evaluation so far.
    pub best: EarlyStopping,
}

const MODEL: &str = "parameters.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const RNG: &str = "rng.safetensors";
const POSITION: &str = "position.json";
const NEGATIVES: &str = "negatives.json";

/// All trained and frozen parameters, the factor of similarities included.
pub(super) fn parameters(model: &BiEncoder, scale: &Scale) -> Vec<(String, Tensor)> {
    model.parameters().into_iter().chain(scale.parameter()).collect()
}

/// Fills a checkpoint folder.
pub(super) fn save(
    dir: &Path,
    model: &BiEncoder,
    scale: &Scale,
    optimizer: &AdamW,
    position: &Position,
    negatives: Option<&[Vec<u32>]>,
) -> Result<()> {
    save_tensors(&dir.join(MODEL), &parameters(model, scale), &[])?;
    save_tensors(&dir.join(OPTIMIZER), &optimizer.state(), &[])?;
    save_tensors(&dir.join(RNG), &RngState::get(model.device)?.to_named(), &[])?;
    write_json(&dir.join(POSITION), position)?;
    if let Some(n) = negatives {
        write_json(&dir.join(NEGATIVES), &n)?;
    }
    Ok(())
}

/// Restores everything, the generators last.
pub(super) fn restore(
    dir: &Path,
    model: &BiEncoder,
    scale: &Scale,
    optimizer: &mut AdamW,
) -> Result<(Position, Option<Vec<Vec<u32>>>)> {
    let weights = Weights::open_file(&dir.join(MODEL))?;
    {
        let _guard = no_grad();
        for (name, p) in parameters(model, scale) {
            match weights.shape(&name) {
                Some(shape) if shape == p.size() => {
                    p.shallow_clone().copy_(&weights.load(&name, model.device)?)
                }
                found => {
                    return Err(Error::Unusable(format!(
                        "{}: parameter `{name}` is {found:?}, the model needs {:?}",
                        dir.display(),
                        p.size()
                    )));
                }
            }
        }
    }
    optimizer.restore(&Weights::open_file(&dir.join(OPTIMIZER))?)?;
    let position = read_json(&dir.join(POSITION))?;
    let path = dir.join(NEGATIVES);
    let negatives = if path.is_file() { Some(read_json(&path)?) } else { None };
    let rng = Weights::open_file(&dir.join(RNG))?;
    if let Some(state) = RngState::from_named(|n| rng.load_as_is(n).ok(), model.device) {
        state.set()?;
    }
    Ok((position, negatives))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Json { path: path.into(), source })?;
    Ok(write_atomic(path, &text)?)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|source| Error::Json { path: path.into(), source })
}
