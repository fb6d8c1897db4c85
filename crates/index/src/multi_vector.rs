//! Late interaction: passages and queries of one vector a token, compared by MaxSim (Khattab and Zaharia, ColBERT, arXiv
//! 2004.12832): `s(q, d) = sum over i of max over j of q_i . d_j`.
//!
//! - [`ExactMultiVectorIndex`] keeps every vector and compares with every passage.
//! - [`CompressedMultiVectorIndex`] keeps centroids and residuals of few bits and looks at some passages only.
//!
//! A passage without vectors, and one that was removed, keeps its id and is never found.
//!
//! The compressed index quantizes residuals into buckets (initialized at ColBERT's quantiles, then refined for the
//! least error) and is searched in PLAID's stages. Files are not memory-mapped, because `unsafe` stays in
//! `ragduet-torch`: residuals are read by position where they stay on disk.

mod codec;
mod compressed;
mod config;
mod exact;
mod kmeans;
mod panel;
mod search;
mod spans;
mod types;

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::compressed::CompressedMultiVectorIndex;
pub use self::config::{MultiVectorConfig, ResidualConfig};
pub use self::exact::ExactMultiVectorIndex;
pub use self::types::{MultiSearchParams, MultiVectors};
use crate::store::{OpenOptions, Reader, kind};
use crate::{Error, Hit, IdMap, IndexKind, Result, Vectors};

/// An index over passages of several vectors.
pub trait MultiVectorIndex: Send + Sync {
    /// The settings it was made with.
    fn config(&self) -> MultiVectorConfig;

    /// How many passages were added; their ids are `0..len`.
    fn len(&self) -> usize;

    /// Whether no passage was added.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many passages can be found: those with a vector that were not removed.
    fn live(&self) -> usize;

    /// Numbers per vector.
    fn dim(&self) -> usize;

    /// Vectors of all passages that can be found.
    fn tokens(&self) -> usize;

    /// Bytes of all that the index keeps for its passages, codebooks and lists included, in memory or on disk.
    fn bytes(&self) -> usize;

    /// [`MultiVectorIndex::bytes`] for each passage that can be found.
    fn bytes_per_passage(&self) -> f64 {
        self.bytes() as f64 / self.live().max(1) as f64
    }

    /// The hits of each query, best first; equal scores are in ascending order of ids. A query without vectors has
    /// none. Queries are searched in parallel, and a single one by all threads.
    fn search(&self, queries: MultiVectors<'_>, params: &MultiSearchParams<'_>) -> Result<Vec<Vec<Hit>>>;

    /// The scores of some passages with one query, for reranking; minus infinity for a passage that cannot be found.
    fn score(&self, query: Vectors<'_>, ids: &[u32]) -> Result<Vec<f32>>;

    /// A passage's vectors as the index has them: rounded or decompressed.
    fn passage(&self, id: u32) -> Result<Vec<f32>>;

    /// Appends passages and returns their ids: all are added or none.
    fn add(&mut self, passages: MultiVectors<'_>) -> Result<Range<u32>>;

    /// Removes passages for good; returns how many could be found before. Their ids are not given out again, and saving
    /// leaves their vectors out.
    fn remove(&mut self, ids: &[u32]) -> Result<usize>;

    /// Writes the index as a directory, with external ids if there are any. An index that is there is replaced.
    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()>;

    /// Writes the index as a directory. An index that is there is replaced.
    fn save(&self, dir: &Path) -> Result<()> {
        self.save_with_ids(dir, None)
    }
}

/// An index of these passages.
pub fn build_multi_vector(
    config: &MultiVectorConfig,
    passages: MultiVectors<'_>,
) -> Result<Box<dyn MultiVectorIndex>> {
    Ok(match config {
        MultiVectorConfig::Exact(config) => {
            let mut index = ExactMultiVectorIndex::new(config, passages.dim())?;
            index.add(passages)?;
            Box::new(index)
        }
        MultiVectorConfig::Compressed(config) => {
            Box::new(CompressedMultiVectorIndex::build(config, passages)?)
        }
    })
}

/// Opens a saved multi-vector index of either layout.
pub fn open_multi_vector(dir: impl AsRef<Path>, options: &OpenOptions) -> Result<Box<dyn MultiVectorIndex>> {
    let dir = dir.as_ref();
    Ok(match MultiHeader::open(dir)?.manifest.header.requested {
        MultiVectorConfig::Exact(_) => Box::new(ExactMultiVectorIndex::open(dir, options)?),
        MultiVectorConfig::Compressed(_) => Box::new(CompressedMultiVectorIndex::open(dir, options)?),
    })
}

/// What a multi-vector index says of itself in its manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct MultiHeader {
    dim: usize,
    /// Vectors of all passages.
    tokens: usize,
    /// Of a compressed index; otherwise 0.
    centroids: usize,
    /// The configuration it was asked to be built with, which also says what the files are.
    requested: MultiVectorConfig,
}

impl MultiHeader {
    fn open(dir: &Path) -> Result<Reader<Self>> {
        match kind(dir)? {
            IndexKind::MultiVector => Reader::open(dir),
            other => {
                let problem = format!("is a {other} index, not one over several vectors a passage");
                Err(Error::NotAnIndex { path: dir.to_owned(), problem })
            }
        }
    }
}
