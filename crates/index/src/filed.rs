//! Indexes built from vectors in a file and written as they are built: only a block of vectors is in memory.
//!
//! | index | held beside a block |
//! |---|---|
//! | exact | nothing |
//! | compressed | for product quantization the sample that k-means looks at (16384 vectors) |
//! | HNSW | all vectors and the graph: links are made by walking over it |
//! | exact multi-vector | nothing |
//! | compressed multi-vector | the sample that k-means looks at: 64 vectors for each centroid, whose number grows with the square root of the vectors' |
//!
//! The files are, byte for byte, those of the same index built in memory.

use std::path::Path;

use crate::{
    CompressedIndex, CompressedMultiVectorIndex, ExactIndex, ExactMultiVectorIndex, HnswIndex, IdMap,
    IndexConfig, MultiVectorConfig, Result, Similarity, VectorFile, VectorIndex,
};

/// Writes an index of the vectors of a file; returns its bytes. `progress(done, total)` is called now and then.
///
/// # Errors
/// Vectors that the index cannot hold, ids that are not as many, a full disk.
pub fn write_index(
    dir: &Path,
    config: &IndexConfig,
    similarity: Similarity,
    vectors: &VectorFile,
    ids: Option<&IdMap>,
    progress: &dyn Fn(usize, usize),
) -> Result<usize> {
    match config {
        IndexConfig::Exact(config) => ExactIndex::write(dir, config, similarity, vectors, ids, progress),
        IndexConfig::Compressed(config) => {
            CompressedIndex::write(dir, config, similarity, vectors, ids, progress)
        }
        IndexConfig::Hnsw(config) => {
            let index = HnswIndex::of_file(config, similarity, vectors, progress)?;
            index.save_with_ids(dir, ids)?;
            Ok(index.bytes())
        }
    }
}

/// Writes a multi-vector index of passages whose vectors lie one after another in a file, `lengths` of each.
///
/// # Errors
/// Vectors that the index cannot hold, lengths that do not add up to them, ids that are not as many, a full disk.
pub fn write_multi_vector_index(
    dir: &Path,
    config: &MultiVectorConfig,
    vectors: &VectorFile,
    lengths: &[u32],
    ids: Option<&IdMap>,
    progress: &dyn Fn(usize, usize),
) -> Result<()> {
    match config {
        MultiVectorConfig::Exact(config) => {
            ExactMultiVectorIndex::write(dir, config, vectors, lengths, ids, progress)
        }
        MultiVectorConfig::Compressed(config) => {
            CompressedMultiVectorIndex::write(dir, config, vectors, lengths, ids, progress)
        }
    }
}
