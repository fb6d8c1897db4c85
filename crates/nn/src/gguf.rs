//! Language models in GGUF files, read and written as what they are at Hugging Face.
//!
//! A path to a GGUF file stands wherever a model's folder does: [`config`] makes its `config.json`, [`generation`] its
//! `generation_config.json`, [`weights`] its tensors under Hugging Face's names, in f32. Families: Llama (with SmolLM2 and
//! Mistral), Qwen2, Qwen3, Gemma 3.

mod config;
mod family;
mod generation;
mod rope;
mod tensors;
mod write;

use crate::{Error, GenerationConfig, Result};
use family::Family;
use ragduet_gguf::{GgufFile, Metadata};
use ragduet_torch::weights::Weights;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
pub use write::save_gguf;

/// The file as a `config.json`.
///
/// # Errors
/// A file that cannot be read, a family or a setting that is not.
pub(crate) fn config(path: &Path) -> Result<Value> {
    config::read(&GgufFile::open(path)?)
}

/// The file as a `generation_config.json`. Says what was guessed about its tokens.
///
/// # Errors
/// As [`config`].
pub(crate) fn generation(path: &Path) -> Result<GenerationConfig> {
    generation::read(GgufFile::open(path)?.metadata())
}

/// The file's tensors under Hugging Face's names, each dequantized when it is asked for.
///
/// # Errors
/// As [`config`].
pub(crate) fn weights(path: &Path) -> Result<Weights> {
    tensors::read(Arc::new(GgufFile::open(path)?))
}

/// The family of a file.
fn family(metadata: &Metadata) -> Result<Family> {
    let key = "general.architecture";
    let named = metadata.needed(key, metadata.text(key)?)?;
    Family::of(named).ok_or_else(|| Error::UnsupportedSetting {
        path: metadata.path().into(),
        key: key.into(),
        value: named.into(),
        supported: format!("of GGUF files {} are read", Family::names()),
    })
}
