//! Checkpoints whose class is Python code beside them and computes what a class of transformers computes: they are read
//! and saved as that.

use serde_json::{Map, Value, json};

/// A kind of checkpoint: a row of [`OWN_CODE`].
#[derive(Debug)]
pub struct OwnCode {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// The `model_type` that computes the same.
    same_as: &'static str,
    /// What has to be said of it.
    settings: fn() -> Value,
}

/// The kinds.
pub static OWN_CODE: [OwnCode; 1] = [
    // NVIDIA's Llama-Embed-Nemotron: `LlamaBidirectionalModel` is Llama with attention to both sides.
    OwnCode { model_type: "llama_bidirec", same_as: "llama", settings: || json!({"is_causal": false}) },
];

impl OwnCode {
    /// The config as that of transformers' class.
    pub(super) fn plain(&self, mut config: Map<String, Value>) -> Value {
        for key in ["auto_map", "architectures"] {
            config.shift_remove(key);
        }
        config.insert("model_type".into(), self.same_as.into());
        if let Value::Object(own) = (self.settings)() {
            let (from, to, with) = (self.model_type, self.same_as, Value::Object(own.clone()));
            tracing::info!(
                "a model of type `{from}` is read, and saved, as `{to}` with {with}, which computes the same without code \
                 of its own"
            );
            config.extend(own);
        }
        Value::Object(config)
    }
}
