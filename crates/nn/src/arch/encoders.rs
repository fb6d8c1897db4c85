//! The encoders: what they are called, how they are built, where their checkpoints keep them.

use super::{bert, deberta, distilbert, electra, modernbert, mpnet, roberta};
use crate::config_source::ConfigSource;
use crate::{Encoder, Result};
use ragduet_torch::ParamBuilder;

/// The encoders, by `model_type` of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// BERT (Devlin et al., 2019).
    Bert,
    /// RoBERTa (Liu et al., 2019), CamemBERT and XLM-R (Conneau et al., 2020).
    Roberta,
    /// DistilBERT (Sanh et al., 2019).
    DistilBert,
    /// MPNet (Song et al., 2020).
    MpNet,
    /// ModernBERT (Warner et al., 2024).
    ModernBert,
    /// DeBERTa v2 and v3 (He et al., 2021).
    DebertaV2,
    /// ELECTRA (Clark et al., 2020).
    Electra,
}

impl Architecture {
    /// The `model_type`s that are read.
    pub const MODEL_TYPES: [(&'static str, Architecture); 9] = [
        ("bert", Architecture::Bert),
        ("roberta", Architecture::Roberta),
        ("xlm-roberta", Architecture::Roberta),
        ("camembert", Architecture::Roberta),
        ("distilbert", Architecture::DistilBert),
        ("mpnet", Architecture::MpNet),
        ("modernbert", Architecture::ModernBert),
        ("deberta-v2", Architecture::DebertaV2),
        ("electra", Architecture::Electra),
    ];

    /// By `model_type`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        Self::MODEL_TYPES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    /// Builds the encoder; its parameters come from the builder.
    pub(crate) fn build(self, config: &ConfigSource<'_>, b: &ParamBuilder) -> Result<Box<dyn Encoder>> {
        Ok(match self {
            Self::Bert => Box::new(bert::build(config, b)?),
            Self::Roberta => Box::new(roberta::build(config, b)?),
            Self::DistilBert => Box::new(distilbert::build(config, b)?),
            Self::MpNet => Box::new(mpnet::build(config, b)?),
            Self::ModernBert => Box::new(modernbert::ModernBert::build(config, b)?),
            Self::DebertaV2 => Box::new(deberta::Deberta::build(config, b)?),
            Self::Electra => Box::new(electra::build(config, b)?),
        })
    }

    /// Where the token embedding is.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Bert | Self::Roberta | Self::DistilBert | Self::MpNet | Self::DebertaV2 | Self::Electra => {
                "embeddings.word_embeddings"
            }
            Self::ModernBert => "embeddings.tok_embeddings",
        }
    }

    /// The prefix that checkpoints of this family with a task head put before the encoder's names.
    pub(crate) fn head_prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::DistilBert => "distilbert.",
            Self::MpNet => "mpnet.",
            Self::ModernBert => "model.",
            Self::DebertaV2 => "deberta.",
            Self::Electra => "electra.",
        }
    }
}
