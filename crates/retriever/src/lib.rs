//! Retrievers: encoders made into bi-encoders with one vector a text, one a token (late interaction) or weights of words
//! (SPLADE), contrastive losses, gradient caching, mining of hard negatives, evaluation, and the recipe that trains them.
//!
//! Modules use only those above them: [`Representation`] over a [`Tower`]; [`BiEncoder`]; encoding in bulk; exact search
//! and indexes; evaluation, mining, teachers, [`engine`]; recipes.

mod biencoder;
mod card;
mod encode;
pub mod engine;
mod error;
pub mod evaluate;
pub mod grad_cache;
mod head;
mod index_source;
pub mod loss;
pub mod mining;
mod model_index;
pub mod recipe;
mod representation;
pub mod scored_pairs;
mod scratch;
mod search;
pub mod st_dir;
mod teacher;
mod tower;

pub use biencoder::{BiEncoder, Settings};
pub use encode::{
    EncodeProgress, EncodeSettings, TokenVectors, encode_rows, encode_sparse, encode_stream, encode_texts,
};
pub use error::{Error, Result};
pub use head::{Dense, DenseActivation, Head, HeadModule, VectorNorm};
pub use index_source::IndexSource;
pub use model_index::ModelIndex;
pub use representation::{
    DenseSettings, Late, LateConfig, Pooling, Representation, RepresentationConfig, Side, Similarity,
    SparseActivation, SparseConfig, SparsePooling,
};
pub use scratch::ScratchModel;
pub use search::{Ranked, search_exact};
pub use teacher::{ModelRef, Pair, ScoreCache, Teacher, TeacherConfig, TeacherVectors};
pub use tower::Tower;
