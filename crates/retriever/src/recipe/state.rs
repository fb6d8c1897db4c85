//! What a checkpoint holds: weights, moments, generators, place in the data, negatives.

use super::model::Scale;
use crate::biencoder::BiEncoder;
use crate::{Error, Result};
use fs_err as fs;
use ragduet_torch::Tensor;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::weights::write_atomic;
use ragduet_train::{EarlyStopping, state as train_state};
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
    optimizer: &Optimizer,
    position: &Position,
    negatives: Option<&[Vec<u32>]>,
) -> Result<()> {
    train_state::save(dir, &parameters(model, scale), optimizer, model.device, position)?;
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
    optimizer: &mut Optimizer,
) -> Result<(Position, Option<Vec<Vec<u32>>>)> {
    let path = dir.join(NEGATIVES);
    let negatives = if path.is_file() { Some(read_json(&path)?) } else { None };
    let position = train_state::restore(dir, &parameters(model, scale), optimizer, model.device)?;
    Ok((position, negatives))
}

pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Json { path: path.into(), source })?;
    Ok(write_atomic(path, &text)?)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|source| Error::Json { path: path.into(), source })
}
