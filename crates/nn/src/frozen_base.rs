//! One base, two adapters: a second model over the folder of a first one holds its frozen weights, instead of its own.

use crate::hub;
use ragduet_torch::{FrozenWeights, ParamStore};
use std::path::{Path, PathBuf};

/// The frozen weights of a model in memory, with the folder or file that they came from.
#[derive(Debug, Clone)]
pub struct FrozenBase {
    folder: PathBuf,
    weights: FrozenWeights,
}

impl FrozenBase {
    /// What of a model does not train; `base`: the folder or hub id that it was loaded from. None where it is in none.
    pub fn new(base: &str, params: &ParamStore) -> Option<Self> {
        let folder = hub::resolve(base).ok()?.canonicalize().ok()?;
        Some(Self { folder, weights: params.frozen() })
    }

    /// The weights, where `folder` is the one that they came from.
    pub(crate) fn of(&self, folder: &Path) -> Option<&FrozenWeights> {
        folder.canonicalize().is_ok_and(|f| f == self.folder).then_some(&self.weights)
    }

    /// Bytes of a second model's parameters that are held once.
    pub fn bytes_shared(&self, params: &ParamStore) -> u64 {
        let size =
            |p: &ragduet_torch::Param| p.tensor.numel() as u64 * p.tensor.kind().elt_size_in_bytes() as u64;
        params.iter().filter(|(_, p)| self.weights.holds(&p.tensor)).map(|(_, p)| size(p)).sum()
    }
}
