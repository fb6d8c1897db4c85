//! Dense retrievers: encoders made into bi-encoders, contrastive losses, gradient caching, mining of hard negatives,
//! evaluation, and the recipe that trains them.

mod biencoder;
mod card;
mod encode;
mod error;
pub mod evaluate;
pub mod grad_cache;
pub mod loss;
pub mod mining;
mod pooling;
pub mod recipe;
mod scratch;
pub mod st_dir;

pub use biencoder::{BiEncoder, Dense, DenseActivation, Settings, Side, Similarity, Tower};
pub use encode::{EncodeProgress, EncodeSettings, encode_stream, encode_texts};
pub use error::{Error, Result};
pub use pooling::Pooling;
pub use scratch::ScratchModel;
