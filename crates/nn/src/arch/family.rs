//! What an encoder's folder holds: an encoder, or a decoder that is used as one.

use super::{ArchSpec, Architecture, encoder_types};
use crate::config_source::ConfigSource;
use crate::{Encoder, Error, Result};
use ragduet_torch::ParamBuilder;
use serde_json::Value;
use std::path::Path;

/// What a `model_type` is to an encoder's folder.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    Encoder(Architecture),
    Decoder(&'static ArchSpec),
}

impl Family {
    /// By `model_type` of the config that was read at `path`.
    ///
    /// # Errors
    /// One that is not known, with those that are.
    pub fn of(path: &Path, json: &Value) -> Result<Self> {
        let name = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        let decoder = || ArchSpec::of(name).filter(|a| a.is_decoder_only()).map(Self::Decoder);
        Architecture::from_model_type(name).map(Self::Encoder).or_else(decoder).ok_or_else(|| {
            Error::UnknownArchitecture {
                path: path.into(),
                model_type: name.into(),
                kind: "encoders",
                supported: encoder_types(),
            }
        })
    }

    /// Builds it; its parameters come from the builder, under the names of the bare model.
    pub fn build(self, config: &ConfigSource<'_>, b: &ParamBuilder) -> Result<Box<dyn Encoder>> {
        match self {
            Self::Encoder(arch) => arch.build(config, b),
            Self::Decoder(arch) => arch.build_encoder(config, b),
        }
    }

    /// What checkpoints with a head put before the bare model's names.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Encoder(arch) => arch.head_prefix(),
            Self::Decoder(arch) => arch.names.prefix,
        }
    }

    /// Where the token embedding is.
    pub fn words(self) -> &'static str {
        match self {
            Self::Encoder(arch) => arch.words(),
            Self::Decoder(arch) => arch.bare_words(),
        }
    }

    /// The class of the bare model. `model_type`: as the config has it.
    pub fn class(self, model_type: &str) -> &'static str {
        match self {
            Self::Decoder(arch) => arch.bare,
            Self::Encoder(Architecture::Bert) => "BertModel",
            Self::Encoder(Architecture::Roberta) => match model_type {
                "xlm-roberta" => "XLMRobertaModel",
                "camembert" => "CamembertModel",
                _ => "RobertaModel",
            },
            Self::Encoder(Architecture::DistilBert) => "DistilBertModel",
            Self::Encoder(Architecture::MpNet) => "MPNetModel",
            Self::Encoder(Architecture::ModernBert) => "ModernBertModel",
            Self::Encoder(Architecture::DebertaV2) => "DebertaV2Model",
            Self::Encoder(Architecture::Electra) => "ElectraModel",
        }
    }

    /// Whether a tensor of a checkpoint may be there that no parameter of the bare model has the name of.
    pub fn is_unused(self, name: &str) -> bool {
        match self {
            Self::Encoder(_) => is_unused_by_encoders(name),
            // A classifier's head is none of an encoder's.
            Self::Decoder(arch) => arch.is_unused(name) || name.starts_with("score."),
        }
    }
}

/// Parts of an encoder's checkpoint that no embedding uses.
fn is_unused_by_encoders(name: &str) -> bool {
    let beginnings = [
        "pooler.",
        "cls.",
        "linear.",
        "lm_head.",
        "vocab_",
        "classifier.",
        "pre_classifier.",
        "head.",
        "decoder.",
        // Pre-training heads of DeBERTa and ELECTRA.
        "lm_predictions.",
        "mask_predictions.",
        "discriminator_predictions.",
        "generator_predictions.",
        "generator_lm_head.",
    ];
    beginnings.iter().any(|p| name.starts_with(p)) || name.ends_with("position_ids")
}
