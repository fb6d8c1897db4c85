//! Teachers: what a retriever is distilled from. Scores of pairs (a cross-encoder, another retriever) are computed once
//! and kept on disk; so are the vectors of a larger bi-encoder.
//!
//! Scores lie in a file of keys and scores in the run folder, a block at a time: a resumed run finds them there. A
//! cross-encoder is handed in by the caller, because this crate knows none.

use crate::biencoder::BiEncoder;
use crate::encode::{EncodeSettings, encode_texts};
use crate::representation::Side;
use crate::search::search_exact;
use crate::st_dir::{self, Overrides};
use crate::{Error, Result};
use ragduet_data::{TrainingSet, text_key};
use ragduet_nn::hub;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Compute, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The teacher of a distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TeacherConfig {
    /// Cross-encoder: its logits are the teacher scores.
    CrossEncoder(ModelRef),
    /// Another retriever, of any kind: its similarities, or its vectors where the loss is over vectors.
    Retriever(ModelRef),
}

/// A model by its folder or hub id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// Model folder or Hugging Face id.
    pub path: String,
}

impl TeacherConfig {
    /// The teacher's folder or hub id.
    pub fn path(&self) -> &str {
        match self {
            Self::CrossEncoder(n) | Self::Retriever(n) => &n.path,
        }
    }
}

/// A question and a passage.
pub type Pair<'a> = (&'a str, &'a str);

/// Says how well passages answer questions.
pub trait Teacher {
    /// A score for each pair; greater is better.
    ///
    /// # Errors
    /// The model's.
    fn scores(&self, pairs: &[Pair<'_>]) -> Result<Vec<f32>>;
}

/// A retriever as a teacher.
impl Teacher for BiEncoder {
    fn scores(&self, pairs: &[Pair<'_>]) -> Result<Vec<f32>> {
        let (mut queries, mut passages) = (Pool::default(), Pool::default());
        let places: Vec<(usize, usize)> =
            pairs.iter().map(|(q, p)| (queries.add(q), passages.add(p))).collect();
        let mut asked = vec![Vec::new(); queries.texts.len()];
        for &(q, p) in &places {
            asked[q].push(p as u32);
        }
        let stream = passages.texts.iter().map(|t| Ok(t.clone()));
        let encode = EncodeSettings::default();
        let found = search_exact(self, stream, &queries.texts, 0, &asked, &encode, &mut |_, _| ())?;
        let mut next = vec![0; queries.texts.len()];
        let score = |&(q, _): &(usize, usize)| {
            next[q] += 1;
            found.asked[q][next[q] - 1]
        };
        Ok(places.iter().map(score).collect())
    }
}

/// Distinct texts.
#[derive(Default)]
struct Pool {
    texts: Vec<String>,
    places: HashMap<String, usize>,
}

impl Pool {
    fn add(&mut self, text: &str) -> usize {
        *self.places.entry(text.to_string()).or_insert_with(|| {
            self.texts.push(text.to_string());
            self.texts.len() - 1
        })
    }
}

/// Scores that were computed before, in a file: a line each with the pair's key and the score. What a killed run left
/// half-written is computed again.
#[derive(Debug)]
pub struct ScoreCache {
    path: PathBuf,
    teacher: String,
    known: HashMap<u64, f32>,
}

impl ScoreCache {
    /// Opens or begins the file. `teacher` is part of the keys.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: &Path, teacher: &str) -> Result<Self> {
        let mut known = HashMap::new();
        if path.is_file() {
            // A line without its end was torn, and may have lost digits.
            for line in fs_err::read_to_string(path)?.split_inclusive('\n') {
                let whole = line.strip_suffix('\n').and_then(|l| l.split_once(' '));
                let parsed = whole.and_then(|(k, s)| {
                    Some((u64::from_str_radix(k, 16).ok()?, s.parse::<f32>().ok().filter(|s| s.is_finite())?))
                });
                known.extend(parsed);
            }
        }
        Ok(Self { path: path.into(), teacher: teacher.into(), known })
    }

    fn key(&self, (q, p): Pair<'_>) -> u64 {
        text_key(&format!("{}\0{q}\0{p}", self.teacher))
    }

    /// Scores of pairs; those that are not known are asked for in blocks, each kept before the next is begun.
    ///
    /// # Errors
    /// The teacher's; a file that cannot be written; a score that is no number.
    pub fn scores(&mut self, teacher: &dyn Teacher, pairs: &[Pair<'_>]) -> Result<Vec<f32>> {
        let keys: Vec<u64> = pairs.iter().map(|&p| self.key(p)).collect();
        let mut missing: Vec<usize> =
            (0..pairs.len()).filter(|&i| !self.known.contains_key(&keys[i])).collect();
        missing.sort_by_key(|&i| keys[i]);
        missing.dedup_by_key(|i| keys[*i]);
        // In the order of the pairs, so that those of a question stay together.
        missing.sort_unstable();
        if !missing.is_empty() {
            tracing::info!(
                "the teacher scores {} pairs ({} are known)",
                missing.len(),
                pairs.len() - missing.len()
            );
            if let Some(dir) = self.path.parent() {
                fs_err::create_dir_all(dir)?;
            }
        }
        const BLOCK: usize = 4096;
        for block in missing.chunks(BLOCK) {
            let asked: Vec<Pair<'_>> = block.iter().map(|&i| pairs[i]).collect();
            let scores = teacher.scores(&asked)?;
            let mut text = String::new();
            for (&i, score) in block.iter().zip(scores) {
                if !score.is_finite() {
                    return Err(Error::Unusable(format!(
                        "the teacher gives {score} to `{}`: its weights hold NaN or infinity",
                        pairs[i].0
                    )));
                }
                text.push_str(&format!("{:016x} {score:?}\n", keys[i]));
                self.known.insert(keys[i], score);
            }
            let mut file = fs_err::OpenOptions::new().create(true).append(true).open(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
        }
        Ok(keys.iter().map(|k| self.known[k]).collect())
    }

    /// Gives every example of a set the scores of its passages.
    ///
    /// # Errors
    /// As [`ScoreCache::scores`].
    pub fn score_set(&mut self, teacher: &dyn Teacher, set: &mut TrainingSet) -> Result<()> {
        let texts: Vec<String> = set.passages().iter().map(|p| p.full_text()).collect();
        let pairs: Vec<Pair<'_>> = set
            .items()
            .iter()
            .flat_map(|item| {
                let q = set.queries()[item.query as usize].text.as_str();
                item.positives.iter().chain(&item.negatives).map(move |&p| (q, p))
            })
            .map(|(q, p)| (q, texts[p as usize].as_str()))
            .collect();
        let mut scores = self.scores(teacher, &pairs)?.into_iter();
        let rows = set
            .items()
            .iter()
            .map(|i| scores.by_ref().take(i.positives.len() + i.negatives.len()).collect())
            .collect();
        Ok(set.set_scores(rows)?)
    }
}

/// The file of a teacher's vectors.
const VECTORS: &str = "vectors.safetensors";

/// The vectors that a larger bi-encoder gives the texts of a training set.
#[derive(Debug)]
pub struct TeacherVectors {
    /// [queries, dim], in the order of the set's pool.
    pub queries: Tensor,
    /// [passages, dim] likewise.
    pub passages: Tensor,
}

impl TeacherVectors {
    /// Computes them and writes them into a folder.
    ///
    /// # Errors
    /// A teacher that does not load or has no one vector a text; files.
    pub fn make(path: &str, set: &TrainingSet, dir: &Path, device: Device, compute: Compute) -> Result<()> {
        let teacher = st_dir::load(&hub::resolve(path)?, device, compute, &Overrides::default())?;
        tracing::info!(
            "the teacher encodes {} queries and {} passages",
            set.queries().len(),
            set.passages().len()
        );
        let embed = |side, texts: Vec<String>| -> Result<Tensor> {
            let flat = encode_texts(&teacher, side, &texts, &EncodeSettings::default(), &mut |_, _| ())?;
            Ok(Tensor::from_slice(&flat).view([-1, teacher.dim()]))
        };
        let queries = embed(Side::Query, set.queries().iter().map(|q| q.text.clone()).collect())?;
        let passages = embed(Side::Passage, set.passages().iter().map(|p| p.full_text()).collect())?;
        let named = [("queries".to_string(), queries), ("passages".to_string(), passages)];
        Ok(save_tensors(&dir.join(VECTORS), &named, &[])?)
    }

    /// Reads what [`TeacherVectors::make`] wrote.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn read(dir: &Path, device: Device) -> Result<Self> {
        let w = Weights::open_file(&dir.join(VECTORS))?;
        Ok(Self { queries: w.load("queries", device)?, passages: w.load("passages", device)? })
    }

    /// The rows of a batch.
    pub(crate) fn rows(&self, queries: &[u32], passages: &[u32]) -> (Tensor, Tensor) {
        let pick = |all: &Tensor, rows: &[u32]| {
            let rows: Vec<i64> = rows.iter().map(|&r| i64::from(r)).collect();
            all.index_select(0, &Tensor::from_slice(&rows).to_device(all.device()))
        };
        (pick(&self.queries, queries), pick(&self.passages, passages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Counting(Cell<usize>);

    impl Teacher for Counting {
        fn scores(&self, pairs: &[Pair<'_>]) -> Result<Vec<f32>> {
            self.0.set(self.0.get() + pairs.len());
            Ok(pairs.iter().map(|(q, p)| q.len() as f32 - 0.1 * p.len() as f32).collect())
        }
    }

    #[test]
    fn each_pair_is_scored_once_also_by_the_next_process_and_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("teacher/scores.txt");
        let pairs = [("q", "a"), ("q", "bb"), ("q", "a"), ("r", "a")];
        let teacher = Counting(Cell::new(0));
        let mut cache = ScoreCache::open(&file, "t").unwrap();
        let first = cache.scores(&teacher, &pairs).unwrap();
        assert_eq!((first[0], first[2], teacher.0.get()), (0.9, 0.9, 3));
        let mut again = ScoreCache::open(&file, "t").unwrap();
        assert_eq!(again.scores(&teacher, &pairs).unwrap(), first);
        assert_eq!(teacher.0.get(), 3);
        // Another teacher has scores of its own.
        ScoreCache::open(&file, "u").unwrap().scores(&teacher, &pairs[..1]).unwrap();
        assert_eq!(teacher.0.get(), 4);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, &text[..text.len() / 2]).unwrap();
        assert_eq!(ScoreCache::open(&file, "t").unwrap().scores(&teacher, &pairs).unwrap(), first);
    }

    #[test]
    fn a_score_that_is_no_number_is_an_error() {
        struct Broken;
        impl Teacher for Broken {
            fn scores(&self, pairs: &[Pair<'_>]) -> Result<Vec<f32>> {
                Ok(vec![f32::NAN; pairs.len()])
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let mut cache = ScoreCache::open(&dir.path().join("s"), "t").unwrap();
        assert!(cache.scores(&Broken, &[("why", "x")]).unwrap_err().to_string().contains("why"));
    }
}
