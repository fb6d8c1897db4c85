//! Text in, token ids out: tokenizers, prompts and truncation.
//!
//! This crate answers one question: which ids does a model see for a text? It wraps the `tokenizers` crate so that
//! the answer is the one that `transformers` and `sentence-transformers` give, down to where a text is cut and
//! which special tokens surround it.
//!
//! - [`Tokenizer`] loads from a Hugging Face directory, encodes texts and pairs, and saves to a directory that
//!   `AutoTokenizer` loads.
//! - [`Prompts`] are the texts put before queries and passages.
//! - [`train_wordpiece`] and [`train_byte_bpe`] make a tokenizer from raw text, deterministically.
//!
//! - [`ChatTemplate`] renders conversations as `transformers` does, [`RagPrompt`] questions with their passages;
//!   [`fit_contexts`] cuts passages until a prompt fits.
//! - [`Tokenizer::chat_example`] and [`Tokenizer::completion_example`] make training examples with loss masks;
//!   [`pack_best_fit`] arranges them into rows.
//!
//! Two things are deliberately absent. Nothing here pads: batches are packed by the caller, and the padding and
//! truncation blocks that many `tokenizer.json` files carry are ignored. And nothing here touches tensors.
//!
//! ```
//! use ragduet_text::{EncodeOptions, train_wordpiece, WordPieceOptions};
//!
//! let corpus = ["the cat sat on the mat", "the dog sat on the cat"];
//! let tokenizer = train_wordpiece(corpus, &WordPieceOptions { vocab_size: 60, ..Default::default() })?;
//! let options = EncodeOptions { max_len: Some(6), prefix: Some("query: "), ..Default::default() };
//! let encodings = tokenizer.encode_batch(&["The cat", "A very long dog story"], &options)?;
//! assert!(encodings.iter().all(|e| e.len() <= 6));
//! # Ok::<(), ragduet_text::Error>(())
//! ```

mod budget;
mod chat;
mod cuts;
mod encode;
mod error;
mod example;
mod gguf;
mod layout;
mod load;
mod pack;
mod prompts;
mod rag;
mod special;
mod tokenizer;
mod tokens;
mod train;
mod vocab_txt;

pub use budget::{Budgeted, fit_contexts};
pub use chat::{ChatTemplate, Rendered, message};
pub use cuts::{CutLog, Cuts};
pub use encode::{EncodeOptions, Encoding, PairOptions, PairTruncation};
pub use error::{Error, Result};
pub use example::{Built, ExampleOptions, LossOn, TrainExample, Untrainable};
pub use gguf::GgufTokenizer;
pub use pack::{Packing, pack_best_fit, pack_in_order};
pub use prompts::Prompts;
pub use rag::{Context, PassageFormat, QuestionPlace, RagPrompt, Shot};
pub use special::SpecialIds;
pub use tokenizer::{Tokenizer, TruncationSide};
pub use train::{ByteBpeOptions, WordPieceOptions, train_byte_bpe, train_wordpiece};
