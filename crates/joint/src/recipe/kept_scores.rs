//! What a frozen generator said: the log-probabilities of an answer behind a passage never change, so each pair of
//! question and passage is scored once, however many epochs find it.
//!
//! The pairs are part of a checkpoint: scored again among others they could differ in the last bit, and a resumed run
//! repeats what the uninterrupted one does.

use crate::{Error, Result};
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Kind, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Log-probabilities of each answer token, f32, by (question, passage): place among the questions, row of the corpus.
#[derive(Debug, Default)]
pub(super) struct KeptScores {
    by: BTreeMap<(u32, u32), Vec<f32>>,
    /// Pairs that were asked for since the last [`KeptScores::share`], and those of them that were there.
    asked: u64,
    there: u64,
}

const FILE: &str = "scores.safetensors";
const HOW: &str = "computed";

impl KeptScores {
    /// What is known of a pair.
    pub fn get(&mut self, question: usize, row: u32) -> Option<Vec<f32>> {
        let found = self.by.get(&(question as u32, row)).cloned();
        self.asked += 1;
        self.there += u64::from(found.is_some());
        found
    }

    /// Keeps a pair's.
    pub fn keep(&mut self, question: usize, row: u32, scores: Vec<f32>) {
        self.by.insert((question as u32, row), scores);
    }

    /// The share of pairs that were known when they were asked for, since the last call; None where none was.
    pub fn share(&mut self) -> Option<f64> {
        let (asked, there) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.there));
        (asked > 0).then(|| there as f64 / asked as f64)
    }

    /// Writes them into a checkpoint, with what they were computed by: `how`, such as `fp32 on Cpu`.
    pub fn save(&self, checkpoint: &Path, how: &str) -> Result<()> {
        if self.by.is_empty() {
            return Ok(());
        }
        let keys: Vec<i64> = self.by.keys().flat_map(|&(q, row)| [i64::from(q), i64::from(row)]).collect();
        let lengths: Vec<i64> = self.by.values().map(|v| v.len() as i64).collect();
        let values: Vec<f32> = self.by.values().flatten().copied().collect();
        let tensors = [
            ("pairs".to_string(), Tensor::from_slice(&keys)),
            ("lengths".to_string(), Tensor::from_slice(&lengths)),
            ("values".to_string(), Tensor::from_slice(&values)),
        ];
        Ok(save_tensors(&checkpoint.join(FILE), &tensors, &[(HOW, how)])?)
    }

    /// What [`KeptScores::save`] wrote; nothing where it wrote nothing, or of what computes otherwise.
    pub fn restore(&mut self, checkpoint: &Path, how: &str) -> Result<()> {
        let path = checkpoint.join(FILE);
        self.by.clear();
        if !path.is_file() {
            return Ok(());
        }
        let weights = Weights::open_file(&path)?;
        if let Some(then) = weights.metadata().get(HOW).filter(|then| *then != how) {
            tracing::info!(
                "the generator's scores were computed in {then}: they are computed anew, in {how}"
            );
            return Ok(());
        }
        let integers = |name: &str| -> Result<Vec<i64>> {
            let tensor = weights.load_as_is(name)?.to_kind(Kind::Int64);
            Ok(Vec::<i64>::try_from(tensor).map_err(ragduet_torch::Error::from)?)
        };
        let (keys, lengths) = (integers("pairs")?, integers("lengths")?);
        let values = weights.load_as_is("values")?.to_kind(Kind::Float);
        let values = Vec::<f32>::try_from(values).map_err(ragduet_torch::Error::from)?;
        let whole = lengths.iter().all(|&n| n >= 0) && lengths.iter().sum::<i64>() == values.len() as i64;
        if keys.len() != 2 * lengths.len() || !whole {
            return Err(Error::Unusable(format!("{}: its parts do not fit together", path.display())));
        }
        let mut at = 0;
        for (pair, &n) in keys.chunks_exact(2).zip(&lengths) {
            let end = at + n as usize;
            self.by.insert((pair[0] as u32, pair[1] as u32), values[at..end].to_vec());
            at = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back_from_a_checkpoint_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = KeptScores::default();
        kept.keep(3, 7, vec![-0.1, -1e-7, -12.5]);
        kept.keep(0, 9, vec![]);
        kept.keep(3, 1, vec![-3.25]);
        kept.save(dir.path(), "fp32").unwrap();
        let mut again = KeptScores::default();
        again.keep(5, 5, vec![1.0]);
        again.restore(dir.path(), "fp32").unwrap();
        assert_eq!(again.by, kept.by);
        assert_eq!(again.get(3, 7), Some(vec![-0.1, -1e-7, -12.5]));
        assert_eq!(again.get(7, 3), None);
        assert_eq!(again.share(), Some(0.5));
        assert_eq!(again.share(), None);
        // A checkpoint without any takes away what was there, and so does one of another precision.
        again.restore(&dir.path().join("none"), "fp32").unwrap();
        assert!(again.by.is_empty());
        kept.restore(dir.path(), "bf16").unwrap();
        assert!(kept.by.is_empty());
    }
}
