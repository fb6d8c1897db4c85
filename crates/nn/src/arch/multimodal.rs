//! Checkpoints that hold a language model beside other models: the language model alone is read, and saved as what it is.
//!
//! transformers 5.3.0 loads such a folder as the whole model, whose modules have longer paths: an adapter made over the
//! language model loads in peft over what is saved here, not over the folder that was read.

use ragduet_torch::weights::Weights;
use serde_json::Value;
use std::path::Path;

/// A kind of checkpoint: a row of [`super::MULTIMODAL`].
#[derive(Debug)]
pub struct Multimodal {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// `model_type` of its `text_config`, which is a row of [`super::LANGUAGE_MODELS`].
    pub text: &'static str,
    /// Beginnings of the language model's names, and what its own checkpoint has in their place.
    pub(super) renamed: &'static [(&'static str, &'static str)],
    /// Beginnings of the names of what is not read.
    pub(super) left_out: &'static [&'static str],
}

/// Keys that the whole model's config says for its language model.
const SHARED: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
];

/// The config of the language model in `config`, as that of a class of transformers, and the kind of checkpoint where it is one of several models.
pub(crate) fn text_part(config: Value) -> (Value, Option<&'static Multimodal>) {
    let named = config.get("model_type").and_then(Value::as_str);
    let own_code = super::OWN_CODE.iter().find(|c| Some(c.model_type) == named);
    let config = match (own_code, config) {
        (Some(kind), Value::Object(map)) => kind.plain(map),
        (_, config) => config,
    };
    let named = config.get("model_type").and_then(Value::as_str);
    let Some(kind) = super::MULTIMODAL.iter().find(|m| Some(m.model_type) == named) else {
        return (config, None);
    };
    let mut text = config.get("text_config").and_then(Value::as_object).cloned().unwrap_or_default();
    text.insert("model_type".into(), kind.text.into());
    for key in SHARED {
        if let Some(value) = config.get(key).filter(|v| !v.is_null()) {
            text.insert(key.into(), value.clone());
        }
    }
    (Value::Object(text), Some(kind))
}

impl Multimodal {
    /// The language model's tensors under its own names, and the names of the others.
    pub(crate) fn text_weights(&self, weights: Weights) -> (Weights, Vec<String>) {
        let other = |name: &str| self.left_out.iter().any(|p| name.starts_with(p));
        let left: Vec<String> = weights.names().filter(|n| other(n)).map(String::from).collect();
        let weights = weights.only(|name| !other(name)).renamed(|name| {
            let found = self.renamed.iter().find_map(|(old, new)| Some((name.strip_prefix(old)?, *new)));
            found.map(|(rest, new)| format!("{new}{rest}"))
        });
        (weights, left)
    }

    /// Says what of a folder is not read.
    pub(crate) fn warn(&self, dir: &Path, left_out: &[String]) {
        if let Some(first) = left_out.first() {
            tracing::warn!(
                "{}: the language model of this `{}` checkpoint is read; {} tensors of its other parts ({first}, ..) are \
                 not, and a `{}` model without them is saved. peft does not find the modules of an adapter over it in \
                 this folder: merge such an adapter first (`ragduet merge`)",
                dir.display(),
                self.model_type,
                left_out.len(),
                self.text
            );
        }
    }
}
