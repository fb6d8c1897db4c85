//! Layers, architectures (one file each) and their Hugging Face checkpoints.
//!
//! Encoders work on packed rows: the tokens of a batch lie one after another, without padding, and only attention
//! sees where one text ends (see [`PackedTokens`]). A text alone therefore gives the same result as in a batch.

mod adapter_id;
pub mod arch;
pub mod attention_mass;
mod classify;
mod config_source;
mod embedding;
mod encoder;
mod error;
pub mod fingerprint;
mod frozen_base;
mod generation;
mod gguf;
pub mod hub;
mod kernels;
mod kv_cache;
mod layers;
mod linear;
mod lm;
mod lm_dir;
mod lm_kind;
mod mlm_head;
mod mode;
mod model_dir;
mod packed;
pub mod peft;
mod rope;
mod seq2seq;

pub use classify::{Labels, SequenceClassifier};
pub use embedding::Embedding;
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use frozen_base::FrozenBase;
pub use generation::GenerationConfig;
pub use gguf::save_gguf;
pub use kv_cache::KvCache;
pub use layers::{Activation, LayerNorm, RmsNorm};
pub use linear::Linear;
pub use lm::{CausalLm, LmHead};
pub use lm_dir::{
    LanguageModel, fresh_language_model, load_language_model, load_language_model_over,
    load_quantised_language_model, save_language_model,
};
pub use lm_kind::LmKind;
pub use mlm_head::{MlmHead, MlmHeadOption};
pub use mode::Mode;
pub use model_dir::{
    EncoderModel, EncoderOptions, fresh_encoder, fresh_masked_lm, load_encoder, load_encoder_with,
    save_encoder, sees_only_back,
};
pub use packed::{PackedTokens, SeenRows};
pub use seq2seq::{Seq2SeqCache, Seq2SeqLm};
