//! The tokenizer of a GGUF file as the `tokenizer.json` that it was made from, and back.
//!
//! llama.cpp is the reference: a text has the ids that it gives with special tokens parsed. Where the original tokenizer
//! normalizes and llama.cpp does not (Qwen's NFC), the original is followed, since the model has learned with it.

mod pre;
mod read;
mod sentencepiece;
mod write;

pub use write::GgufTokenizer;
