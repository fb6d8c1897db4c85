//! Trains and runs both halves of a retrieval-augmented generation system: the library behind the command `ragduet`.
//!
//! - [`Retriever`] turns texts into embeddings, [`Index`] finds passages with them, [`CrossEncoder`] puts them in a better
//!   order, [`Generator`] answers from them, [`Pipeline`] does all of it.
//! - [`train`] has a function and a config for each training method; [`loss`] is for losses of your own.
//! - [`LoadOptions`] chooses device, precision and quantization; without them the fastest device is taken.
//!
//! ```no_run
//! use ragduet::{Index, Retriever, read_corpus};
//!
//! let retriever = Retriever::load("sentence-transformers/all-MiniLM-L6-v2")?;
//! let index = Index::build(&retriever, read_corpus("corpus.jsonl")?)?;
//! let hits = index.search(&retriever, "what causes tides?", 5)?;
//! println!("{:.3} {}", hits[0].score, hits[0].passage.text);
//! # Ok::<(), ragduet::Error>(())
//! ```
//!
//! `docs/library.md` says how to depend on this crate and link libtorch; `examples/` has four tutorials that run offline in
//! seconds.
//!
//! A model holds tensors and stays with the thread that loaded it. A `main` that trains should first call
//! [`use_caching_allocator`]: a step on the CPU is then about a quarter faster. What is not here (fusion of rankings, BM25,
//! decoding hooks, adapters by name) is in the crates below, `ragduet-retriever`, `ragduet-generator` and so on;
//! [`Retriever::model`] and its like give what they work on.

mod cross_encoder;
mod error;
mod generator;
mod index;
mod options;
mod pipeline;
mod retriever;
pub mod train;

pub use cross_encoder::CrossEncoder;
pub use error::{Error, Result};
pub use generator::{Answer, Generator};
pub use index::{Hit, Index, read_corpus};
pub use options::{Device, LoadOptions};
pub use pipeline::Pipeline;
pub use ragduet_data::Passage;
pub use ragduet_generator::ScratchGenerator;
pub use ragduet_index::IndexConfig;
pub use ragduet_retriever::{ScratchModel, Side};
pub use ragduet_torch::device::use_caching_allocator;
pub use ragduet_torch::{Precision, Quantize};
pub use retriever::{Embeddings, Retriever};

/// What a retrieval loss is made of: implement [`RetrievalLoss`](loss::RetrievalLoss) and train with
/// [`train::retriever_with_loss`]. `examples/custom_loss.rs` shows it.
pub mod loss {
    pub use ragduet_retriever::loss::{Compared, LossBatch, Relations, RetrievalLoss};
    pub use ragduet_torch::{Kind, Tensor};
}
