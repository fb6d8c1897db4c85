//! `generation_config.json`: which tokens end a text, and the model's own defaults for decoding.

use crate::model_dir::read_json;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// What a model's folder says about decoding. `None` where it says nothing; transformers' meaning otherwise.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// First token of a text.
    #[serde(deserialize_with = "one")]
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text (`eos_token_id` is one or a list).
    #[serde(deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Padding.
    #[serde(deserialize_with = "one")]
    pub pad_token_id: Option<u32>,
    /// First token of an encoder-decoder's answer.
    #[serde(deserialize_with = "one")]
    pub decoder_start_token_id: Option<u32>,
    /// Whether to sample rather than take the likeliest token.
    pub do_sample: Option<bool>,
    /// Divides logits.
    pub temperature: Option<f64>,
    /// Sample among this many likeliest tokens.
    pub top_k: Option<i64>,
    /// Sample among the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Sample among tokens at least this share as likely as the likeliest.
    pub min_p: Option<f64>,
    /// Divides (or multiplies, below 0) the logits of tokens that occurred.
    pub repetition_penalty: Option<f64>,
    /// Beams.
    pub num_beams: Option<usize>,
    /// Exponent of the length that a beam's score is divided by.
    pub length_penalty: Option<f64>,
    /// Longest answer.
    pub max_new_tokens: Option<usize>,
    /// Longest prompt and answer together.
    pub max_length: Option<usize>,
    /// The file as read, so that saving keeps keys that are not used here.
    #[serde(skip)]
    pub file: Option<Value>,
}

impl GenerationConfig {
    /// `generation_config.json` of a folder; what it leaves out (or all, without one) is taken from the keys of
    /// `config.json`, as older models have them.
    pub(crate) fn read(dir: &Path, config: &Value) -> Result<Self> {
        if ragduet_gguf::is_gguf(dir) {
            return crate::gguf::generation(dir);
        }
        let path = dir.join("generation_config.json");
        let file = if path.is_file() { Some(read_json(&path)?) } else { None };
        let mut merged = config.clone();
        if let (Some(all), Some(own)) = (merged.as_object_mut(), file.as_ref().and_then(Value::as_object)) {
            all.extend(own.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let at = if file.is_some() { path } else { dir.join("config.json") };
        let parsed = Self::deserialize(&merged).map_err(|source| Error::Json { path: at, source })?;
        Ok(Self { file, ..parsed })
    }
}

/// Older configs write -1 for "none".
fn one<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Option<u32>, D::Error> {
    Ok(Option::<i64>::deserialize(d)?.and_then(|id| u32::try_from(id).ok()))
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(i64),
        Many(Vec<i64>),
        None,
    }
    let ids = match Ids::deserialize(d)? {
        Ids::One(id) => vec![id],
        Ids::Many(ids) => ids,
        Ids::None => Vec::new(),
    };
    Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}
