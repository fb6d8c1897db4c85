//! Tensors of a file under Hugging Face's names and in its order.

use super::family::Family;
use super::{config, rope};
use crate::Result;
use ragduet_gguf::{GgufFile, TensorInfo};
use ragduet_torch::Tensor;
use ragduet_torch::weights::{Maker, Weights};
use std::sync::Arc;

/// What is done to a tensor between the file and the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    None,
    /// Rows of each of so many heads are in another order.
    Rotation(i64),
    /// 1 is added in the file.
    Offset,
}

impl Change {
    /// What is done to the tensor of this name (Hugging Face's) in a model with so many heads of queries and keys.
    pub fn of(family: Family, name: &str, heads: (i64, i64)) -> Self {
        if family.offset_norms() && name.ends_with("norm.weight") {
            return Self::Offset;
        }
        let of = |part: &str| name.contains(&format!(".self_attn.{part}."));
        match family.interleaves() {
            true if of("q_proj") => Self::Rotation(heads.0),
            true if of("k_proj") => Self::Rotation(heads.1),
            _ => Self::None,
        }
    }

    /// From the file's order into the model's.
    ///
    /// # Errors
    /// Rows that are no whole heads.
    pub fn undo(self, t: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::None => t.shallow_clone(),
            Self::Offset => t - 1.0,
            Self::Rotation(heads) => reorder(t, heads, |half| [heads, half, 2])?,
        })
    }

    /// From the model's order into the file's.
    ///
    /// # Errors
    /// Rows that are no whole heads.
    pub fn apply(self, t: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::None => t.shallow_clone(),
            Self::Offset => t + 1.0,
            Self::Rotation(heads) => reorder(t, heads, |half| [heads, 2, half])?,
        })
    }
}

/// Dimension i of a head rotates with dimension i + half at Hugging Face, and with its neighbor in a GGUF file of Llama.
fn reorder(t: &Tensor, heads: i64, parts: impl Fn(i64) -> [i64; 3]) -> Result<Tensor> {
    let size = t.size();
    let rows = size.first().copied().unwrap_or(0);
    if heads < 1 || rows % (2 * heads) != 0 {
        return Err(ragduet_torch::Error::Torch(format!("{rows} rows are not {heads} heads")).into());
    }
    let mut shape = parts(rows / heads / 2).to_vec();
    shape.extend(&size[1..]);
    Ok(t.reshape(shape).transpose(1, 2).reshape(size))
}

/// All tensors, each made when it is asked for. What is no tensor of such a model keeps its name, so that the loader
/// names it.
pub(super) fn read(file: Arc<GgufFile>) -> Result<Weights> {
    let family = super::family(file.metadata())?;
    let heads = config::heads(file.metadata(), family)?;
    let mut all: Vec<(String, Vec<i64>, Maker)> = Vec::new();
    for info in file.tensors() {
        // It is in the config.
        if info.name == rope::FACTORS {
            continue;
        }
        let name = family.to_hugging_face(&info.name).unwrap_or_else(|| info.name.clone());
        let change = Change::of(family, &name, heads);
        let shape = info.shape.iter().map(|&n| n as i64).collect();
        let (file, info) = (file.clone(), info.clone());
        let make = move || load(&file, &info, change).map_err(|e| ragduet_torch::Error::Made(Box::new(e)));
        all.push((name, shape, Box::new(make)));
    }
    Ok(Weights::made(all))
}

fn load(file: &GgufFile, info: &TensorInfo, change: Change) -> Result<Tensor> {
    let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
    let numbers = file.read(&info.name)?;
    change.undo(&Tensor::from_slice(&numbers).reshape(shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_torch::{Device, Kind};

    #[test]
    fn the_order_of_rows_goes_there_and_back() {
        let t = Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([12, 2]);
        let there = Change::Rotation(2).apply(&t).unwrap();
        // A head of 6 rows: 0 3 1 4 2 5.
        let rows: Vec<f32> = Vec::try_from(there.select(1, 0) / 2.0).unwrap();
        assert_eq!(rows, [0., 3., 1., 4., 2., 5., 6., 9., 7., 10., 8., 11.]);
        assert!(Change::Rotation(2).undo(&there).unwrap().equal(&t));
        assert!(Change::Rotation(5).undo(&t).is_err());
    }
}
