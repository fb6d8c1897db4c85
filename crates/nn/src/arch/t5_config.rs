//! `config.json` of the T5 family.
//!
//! Whether the output head is the embedding is said by three keys that versions of transformers write differently
//! (`head_kind`). transformers 5.3 loads a separate head with a warning whatever config.json says.

use crate::config_source::ConfigSource;
use crate::{Activation, Result};
use serde_json::Value;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub vocab_size: i64,
    pub d_model: i64,
    pub d_kv: i64,
    pub d_ff: i64,
    pub num_layers: i64,
    pub num_decoder_layers: Option<i64>,
    pub num_heads: i64,
    pub relative_attention_num_buckets: i64,
    pub relative_attention_max_distance: i64,
    pub dropout_rate: f64,
    pub layer_norm_epsilon: f64,
    pub initializer_factor: f64,
    pub feed_forward_proj: Option<String>,
    /// What `feed_forward_proj` means, where the config says it again: these win, as in transformers.
    pub dense_act_fn: Option<String>,
    pub is_gated_act: Option<bool>,
}

/// Which of the family, where their configs mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    T5,
    Mt5,
    Umt5,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: None,
            dense_act_fn: None,
            is_gated_act: None,
        }
    }
}

impl Config {
    /// The activation, and whether there is a gate.
    pub fn feed_forward(&self, source: &ConfigSource<'_>, version: Version) -> Result<(Activation, bool)> {
        let usual = if version == Version::T5 { "relu" } else { "gated-gelu" };
        let spec = self.feed_forward_proj.as_deref().unwrap_or(usual);
        let (name, gated) = match spec.strip_prefix("gated-") {
            // "gelu" has always meant the approximation here.
            Some("gelu") => ("gelu_new", true),
            Some(name) => (name, true),
            None => (spec, false),
        };
        let name = self.dense_act_fn.as_deref().unwrap_or(name);
        match serde_json::from_value(Value::from(name)) {
            Ok(activation) => Ok((activation, self.is_gated_act.unwrap_or(gated))),
            Err(_) => source.unsupported(
                "feed_forward_proj",
                "relu, gelu, gelu_new or silu, after `gated-` where there is a gate",
            ),
        }
    }
}

/// Whether the head is the embedding, and whether its input is scaled by d_model^-0.5.
///
/// Up to transformers 4 one key said both: T5 1.0 ties and scales, 1.1 does neither. transformers 5 writes
/// `scale_decoder_outputs` beside a `tie_word_embeddings` that is always true, and takes a head that is stored for a head
/// of its own. mT5 never
/// scales; transformers 5.3 scales umT5 always, 5.24 as T5.
pub(super) fn head_kind(source: &ConfigSource<'_>, version: Version, stored: bool) -> (bool, bool) {
    let flag = |key: &str| source.json.get(key).and_then(Value::as_bool);
    let tied = flag("tie_word_embeddings").unwrap_or(true);
    if version == Version::Mt5 {
        return (tied && !stored, false);
    }
    match flag("scale_decoder_outputs") {
        Some(scaled) => (tied && !stored, scaled),
        None => (tied, tied),
    }
}

/// What [`head_kind`] says, as the keys that transformers reads.
pub(super) fn explicit_head(
    source: &ConfigSource<'_>,
    version: Version,
    own_head: bool,
) -> Vec<(&'static str, Value)> {
    let (tied, scaled) = head_kind(source, version, own_head);
    vec![("tie_word_embeddings", tied.into()), ("scale_decoder_outputs", scaled.into())]
}
