//! Retrievers: encoders made into bi-encoders with one vector a text, one a token (late interaction) or weights of words
//! (SPLADE), contrastive losses, gradient caching, mining of hard negatives, evaluation, and the recipe that trains them.

mod biencoder;
mod card;
mod encode;
pub mod engine;
mod error;
pub mod evaluate;
pub mod grad_cache;
mod late;
mod late_search;
pub mod loss;
pub mod mining;
mod pooling;
pub mod recipe;
mod scratch;
mod sparse;
pub mod st_dir;
mod teacher;

pub use biencoder::{BiEncoder, Dense, DenseActivation, Settings, Side, Similarity, Tower};
pub use encode::{EncodeProgress, EncodeSettings, encode_rows, encode_stream, encode_texts};
pub use error::{Error, Result};
pub use late::{Late, LateConfig};
pub use late_search::{Ranked, TokenVectors, search_exact};
pub use pooling::Pooling;
pub use scratch::ScratchModel;
pub use sparse::{SparseActivation, SparseConfig, SparsePooling, encode_sparse, encode_sparse_texts};
pub use teacher::{Named, Pair, ScoreCache, Teacher, TeacherConfig, TeacherVectors};
