//! Which index is built: the settings as users write them, and the one `match` that makes an index of them.
//!
//! ```toml
//! [index.hnsw]
//! m = 16
//! ef_construction = 200
//! ```

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store::kind;
use crate::{
    CompressedIndex, CompressionConfig, Error, ExactConfig, ExactIndex, HnswConfig, HnswIndex, IndexKind,
    OpenOptions, Result, Similarity, VectorIndexMut,
};

/// Index type and its settings, written as `[index.hnsw]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IndexConfig {
    /// Exact search: every query against every vector.
    Exact(ExactConfig),
    /// HNSW graph: approximate, many times faster for single queries over many vectors.
    Hnsw(HnswConfig),
    /// Compressed vectors (int8, binary, product quantization): a fraction of the memory, optionally with rescoring.
    Compressed(CompressionConfig),
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self::Exact(ExactConfig::default())
    }
}

/// An empty index.
pub fn build(config: &IndexConfig, similarity: Similarity, dim: usize) -> Result<Box<dyn VectorIndexMut>> {
    Ok(match config {
        IndexConfig::Exact(config) => Box::new(ExactIndex::new(config, similarity, dim)?),
        IndexConfig::Hnsw(config) => Box::new(HnswIndex::new(config, similarity, dim)?),
        IndexConfig::Compressed(config) => Box::new(CompressedIndex::new(config, similarity, dim)?),
    })
}

/// Opens a saved index over single vectors, of whichever kind, with all of it in memory.
pub fn open(dir: impl AsRef<Path>) -> Result<Box<dyn VectorIndexMut>> {
    open_with(dir, &OpenOptions::default())
}

/// Opens a saved index over single vectors, of whichever kind.
pub fn open_with(dir: impl AsRef<Path>, options: &OpenOptions) -> Result<Box<dyn VectorIndexMut>> {
    let dir = dir.as_ref();
    Ok(match kind(dir)? {
        IndexKind::Exact => Box::new(ExactIndex::open(dir, options)?),
        IndexKind::Hnsw => Box::new(HnswIndex::open(dir)?),
        IndexKind::Compressed => Box::new(CompressedIndex::open(dir, options)?),
        other => {
            let problem = format!("is a {other} index, not one over single vectors");
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        }
    })
}
