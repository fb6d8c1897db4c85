//! GGUF, the model files of llama.cpp and Ollama: metadata and tensors, in and out.
//!
//! A file is a header, metadata (typed values under names), a list of tensors, and their data. Nothing in it is believed:
//! every count, length and place is checked against the size of the file before memory is taken for it.
//!
//! - [`GgufFile`] reads versions 2 and 3. Tensors become f32 when asked for, bit for bit as the `gguf` Python package
//!   makes them ([`TensorType`] lists what is read).
//! - [`GgufWriter`] writes version 3 with tensors as F32, F16, BF16 or Q8_0, one tensor in memory at a time.
//!
//! What the metadata mean (which architecture, which tokenizer) is for `nn` and `text` to know.
//!
//! No crate is used: candle's reader brings candle, and checks no length before it allocates.

mod dequantize;
mod error;
mod file;
mod header;
mod kind;
mod quantize;
mod value;
mod vocabulary;
mod write;

pub use error::{Error, Result};
pub use file::{GgufFile, is_gguf};
pub use header::TensorInfo;
pub use kind::TensorType;
pub use quantize::quantize;
pub use value::{Array, Metadata, Value};
pub use vocabulary::{TokenKind, TokenModel, Vocabulary};
pub use write::{GgufWriter, TensorPlan};
