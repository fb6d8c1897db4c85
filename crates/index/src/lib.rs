//! Which rows are nearest to a query? Exact and approximate indexes over vectors, a lexical one over words, the fusion of
//! what they return, and the choice of hard negatives among it.
//!
//! - [`VectorIndex`] is what can be searched, [`VectorIndexMut`] what grows. [`build`] makes one from an
//!   [`IndexConfig`], [`open`] reads one that was saved.
//! - [`ExactIndex`] is a blocked matrix product and never wrong; [`HnswIndex`] walks a graph;
//!   [`CompressedIndex`] scans rows of a fraction of the bytes.
//! - [`LexicalIndex`] is BM25 over texts; [`fusion`] makes one ranking of those of several indexes.
//! - [`SparseIndex`] is the same search over weights that a model gives words (SPLADE).
//! - [`MultiVectorIndex`] is the same for late interaction, where a passage has one vector a token:
//!   [`ExactMultiVectorIndex`] and [`CompressedMultiVectorIndex`].
//! - [`recall_against_exact`] and [`HnswIndex::audit`] say how far an approximate index can be trusted.
//! - [`write_index`] and [`write_multi_vector_index`] build from vectors in a file, past memory.
//! - [`IdMap`] names rows, [`negatives`] chooses hard negatives from hits, [`cost`] says which index to mine with.
//!
//! Rows are `f32` slices or texts, and `u32` ids. Deliberately absent: models, tensors, and any dependence on libtorch.
//!
//! ```
//! use ragduet_index::{IndexConfig, SearchParams, Similarity, Vectors, build};
//!
//! let mut index = build(&IndexConfig::default(), Similarity::Cosine, 2)?;
//! index.add(Vectors::new(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 2)?)?;
//! let hits = index.search(Vectors::new(&[0.0, 2.0], 2)?, &SearchParams::top(2))?;
//! assert_eq!((hits[0][0].id, hits[0][1].id), (1, 2));
//! # Ok::<(), ragduet_index::Error>(())
//! ```

mod audit;
mod compressed;
mod config;
pub mod cost;
mod error;
mod exact;
mod filed;
mod filter;
pub mod fusion;
mod hnsw;
mod ids;
mod impacts;
mod index;
mod kernel;
mod lexical;
mod multi_vector;
pub mod negatives;
mod rows;
mod scan;
mod sparse;
mod store;
mod stored;
mod topk;
mod types;

pub use audit::{RecallReport, recall_against_exact, recall_of_multi_vectors};
pub use compressed::{
    BinaryConfig, BinaryQuery, CompressedIndex, CompressionConfig, Form, PqConfig, RescoreConfig,
    RescoreRows, RowBytes,
};
pub use config::{IndexConfig, build, open, open_with};
pub use error::{Error, Result};
pub use exact::{ExactConfig, ExactIndex};
pub use filed::{write_index, write_multi_vector_index};
pub use filter::IdFilter;
pub use fusion::{FusionConfig, fuse, fuse_hits};
pub use hnsw::{AuditOptions, HnswBuilder, HnswConfig, HnswIndex, SelfAudit};
pub use ids::IdMap;
pub use index::{VectorIndex, VectorIndexMut};
pub use lexical::{Bm25Variant, LexicalConfig, LexicalIndex, Stemmer, Stopwords, Words};
pub use multi_vector::{
    CompressedMultiVectorIndex, ExactMultiVectorIndex, MultiSearchParams, MultiVectorConfig,
    MultiVectorIndex, MultiVectors, ResidualConfig, build_multi_vector, open_multi_vector,
};
pub use rows::Precision;
pub use sparse::{SparseIndex, SparseVectors};
pub use store::{OpenOptions, kind, replace_index};
pub use stored::{VectorFile, VectorSpool};
pub use types::{Hit, IndexKind, SearchParams, Similarity, Vectors};
