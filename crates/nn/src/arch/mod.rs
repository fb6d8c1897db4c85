//! Architectures: a file each, a variant each.

mod bert;
mod decoder;
mod distilbert;
mod gpt2;
mod gpt_neox;
mod llama;
mod modernbert;
mod mpnet;
mod post_norm;
mod relative;
mod roberta;
mod t5;
mod t5_config;
mod t5_step;

use crate::{Encoder, LmKind, Result};
use llama::Member;
use ragduet_torch::ParamBuilder;
use serde_json::Value;

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
}

impl Architecture {
    /// The `model_type`s that are read.
    pub const MODEL_TYPES: [(&'static str, Architecture); 7] = [
        ("bert", Architecture::Bert),
        ("roberta", Architecture::Roberta),
        ("xlm-roberta", Architecture::Roberta),
        ("camembert", Architecture::Roberta),
        ("distilbert", Architecture::DistilBert),
        ("mpnet", Architecture::MpNet),
        ("modernbert", Architecture::ModernBert),
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
        })
    }

    /// The prefix that checkpoints of this family with a task head put before the encoder's names.
    pub(crate) fn head_prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::DistilBert => "distilbert.",
            Self::MpNet => "mpnet.",
            Self::ModernBert => "model.",
        }
    }
}

/// The language models, by `model_type` of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LmArchitecture {
    /// Llama 1 to 3 and SmolLM2.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// SmolLM3.
    SmolLm3,
    /// GPT-2.
    Gpt2,
    /// GPT-NeoX and Pythia.
    GptNeoX,
    /// T5, Flan-T5: an encoder-decoder.
    T5,
    /// mT5.
    Mt5,
}

impl LmArchitecture {
    /// The `model_type`s that are read.
    pub const MODEL_TYPES: [(&'static str, LmArchitecture); 9] = [
        ("llama", LmArchitecture::Llama),
        ("mistral", LmArchitecture::Mistral),
        ("qwen2", LmArchitecture::Qwen2),
        ("qwen3", LmArchitecture::Qwen3),
        ("smollm3", LmArchitecture::SmolLm3),
        ("gpt2", LmArchitecture::Gpt2),
        ("gpt_neox", LmArchitecture::GptNeoX),
        ("t5", LmArchitecture::T5),
        ("mt5", LmArchitecture::Mt5),
    ];

    /// By `model_type`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        Self::MODEL_TYPES.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    /// Builds the model; its parameters come from the builder.
    pub(crate) fn build(self, config: &ConfigSource<'_>, b: &ParamBuilder) -> Result<LmKind> {
        let member = match self {
            Self::Llama => Member::Llama,
            Self::Mistral => Member::Mistral,
            Self::Qwen2 => Member::Qwen2,
            Self::Qwen3 => Member::Qwen3,
            Self::SmolLm3 => Member::SmolLm3,
            Self::Gpt2 => return Ok(LmKind::Causal(Box::new(gpt2::build(config, b)?))),
            Self::GptNeoX => return Ok(LmKind::Causal(Box::new(gpt_neox::build(config, b)?))),
            Self::T5 => return Ok(LmKind::Seq2Seq(Box::new(t5::build(config, t5_config::Version::T5, b)?))),
            Self::Mt5 => {
                return Ok(LmKind::Seq2Seq(Box::new(t5::build(config, t5_config::Version::Mt5, b)?)));
            }
        };
        Ok(LmKind::Causal(Box::new(llama::build(config, b, member)?)))
    }

    /// What precedes every name but the head's; checkpoints of the bare model lack it.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Gpt2 => "transformer.",
            Self::GptNeoX => "gpt_neox.",
            Self::T5 | Self::Mt5 => "",
            _ => "model.",
        }
    }

    /// The name of the output projection.
    pub(crate) fn head_name(self) -> &'static str {
        if self == Self::GptNeoX { "embed_out.weight" } else { "lm_head.weight" }
    }

    /// The name of the token embedding.
    pub(crate) fn embedding_name(self) -> &'static str {
        match self {
            Self::Gpt2 => "transformer.wte.weight",
            Self::GptNeoX => "gpt_neox.embed_in.weight",
            Self::T5 | Self::Mt5 => "shared.weight",
            _ => "model.embed_tokens.weight",
        }
    }

    /// The class of transformers that loads it.
    pub(crate) fn class_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
            Self::Gpt2 => "GPT2LMHeadModel",
            Self::GptNeoX => "GPTNeoXForCausalLM",
            Self::T5 => "T5ForConditionalGeneration",
            Self::Mt5 => "MT5ForConditionalGeneration",
        }
    }

    /// The class of transformers that loads it with a classification head.
    pub(crate) fn classifier_name(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForSequenceClassification",
            Self::Mistral => "MistralForSequenceClassification",
            Self::Qwen2 => "Qwen2ForSequenceClassification",
            Self::Qwen3 => "Qwen3ForSequenceClassification",
            Self::SmolLm3 => "SmolLM3ForSequenceClassification",
            Self::Gpt2 => "GPT2ForSequenceClassification",
            Self::GptNeoX => "GPTNeoXForSequenceClassification",
            Self::T5 => "T5ForSequenceClassification",
            Self::Mt5 => "MT5ForSequenceClassification",
        }
    }

    /// Keys of `config.json` that must be there for transformers to compute what is computed here. `own_head`: whether
    /// the head is a parameter of its own.
    pub(crate) fn explicit_settings(
        self,
        config: &ConfigSource<'_>,
        own_head: bool,
    ) -> Vec<(&'static str, Value)> {
        let t5 = |version| {
            let (tied, scaled) = t5_config::head_kind(config, version, own_head);
            vec![("tie_word_embeddings", tied.into()), ("scale_decoder_outputs", scaled.into())]
        };
        match self {
            // transformers 5.3 reads `rotary_pct` but writes `rope_parameters.partial_rotary_factor`.
            Self::GptNeoX => vec![("rotary_pct", gpt_neox::rotary_share(config).into())],
            Self::T5 => t5(t5_config::Version::T5),
            Self::Mt5 => t5(t5_config::Version::Mt5),
            _ => Vec::new(),
        }
    }

    /// Names under which checkpoints repeat the token embedding.
    pub(crate) fn embedding_copies(self) -> &'static [&'static str] {
        match self {
            Self::T5 | Self::Mt5 => &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"],
            _ => &[],
        }
    }
}

/// A parsed `config.json` and where it came from, for errors.
#[derive(Debug)]
pub(crate) struct ConfigSource<'a> {
    pub path: &'a std::path::Path,
    pub json: &'a Value,
}

impl ConfigSource<'_> {
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(self.json)
            .map_err(|source| crate::Error::Json { path: self.path.to_path_buf(), source })
    }

    pub fn unsupported<T>(&self, key: &str, supported: &str) -> Result<T> {
        Err(crate::Error::UnsupportedSetting {
            path: self.path.to_path_buf(),
            key: key.into(),
            value: self.json.get(key).unwrap_or(&Value::Null).to_string(),
            supported: supported.into(),
        })
    }

    /// A number at the top level.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.json.get(key).and_then(Value::as_f64)
    }

    pub fn heads_divide(&self, hidden: i64, heads: i64, key: &str) -> Result<()> {
        if heads > 0 && hidden % heads == 0 {
            Ok(())
        } else {
            self.unsupported(key, "a divisor of the hidden size")
        }
    }
}
