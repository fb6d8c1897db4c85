//! Tokenizers and prompts against transformers.

mod chat;
mod directories;
mod parity;
mod seq2seq;
mod tools;
