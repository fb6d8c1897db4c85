//! What the rows of the table of language models hold.

use super::decoder::Decoder;
use super::site::{Role, Site};
use super::t5::T5;
use crate::config_source::ConfigSource;
use crate::{Encoder, LmKind, Result};
use ragduet_torch::ParamBuilder;
use serde_json::Value;

/// A language model's architecture: a row of [`super::LANGUAGE_MODELS`].
#[derive(Debug)]
pub struct ArchSpec {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// The class of transformers that loads it.
    pub class: &'static str,
    /// The class of the model without its head.
    pub bare: &'static str,
    /// The class of transformers that loads it with a classification head; none: it does not become a classifier here.
    pub classifier: Option<&'static str>,
    /// Names of a checkpoint's parameters.
    pub(crate) names: LmNames,
    /// Reads the config and takes the parameters from the builder.
    pub(super) build: Build,
    /// Keys of `config.json` that must be there for transformers to compute what is computed here. The second argument:
    /// whether the head is a parameter of its own.
    pub(super) settings: fn(&ConfigSource<'_>, bool) -> Vec<(&'static str, Value)>,
}

/// Where a checkpoint keeps what is not a layer's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LmNames {
    /// What precedes every name but the head's; checkpoints of the bare model lack it.
    pub prefix: &'static str,
    /// The output projection.
    pub head: &'static str,
    /// The token embedding.
    pub embedding: &'static str,
    /// Names under which checkpoints repeat the token embedding.
    pub embedding_copies: &'static [&'static str],
    /// Ends of names of buffers, which older checkpoints hold and no pass reads.
    pub buffers: &'static [&'static str],
}

/// How a model is built.
#[derive(Debug, Clone, Copy)]
pub(super) enum Build {
    Decoder(fn(&ConfigSource<'_>, &Site<'_>) -> Result<Decoder>),
    EncoderDecoder(fn(&ConfigSource<'_>, &ParamBuilder) -> Result<T5>),
}

impl ArchSpec {
    /// By `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Self> {
        super::LANGUAGE_MODELS.iter().find(|s| s.model_type == model_type)
    }

    /// Whether there is a decoder alone, rather than an encoder for the prompt beside it.
    pub fn is_decoder_only(&self) -> bool {
        matches!(self.build, Build::Decoder(_))
    }

    /// Builds the model; its parameters come from the builder.
    pub(crate) fn build(&self, config: &ConfigSource<'_>, b: &ParamBuilder, role: Role) -> Result<LmKind> {
        Ok(match self.build {
            Build::Decoder(build) => {
                LmKind::Causal(Box::new(build(config, &Site::new(b, self.names, role))?))
            }
            Build::EncoderDecoder(build) => LmKind::Seq2Seq(Box::new(build(config, b)?)),
        })
    }

    /// Builds a decoder as an encoder, its parameters under the names of the bare model.
    ///
    /// # Errors
    /// As [`ArchSpec::build`], and on an encoder-decoder.
    pub(crate) fn build_encoder(
        &self,
        config: &ConfigSource<'_>,
        b: &ParamBuilder,
    ) -> Result<Box<dyn Encoder>> {
        match self.build {
            Build::Decoder(build) => Ok(Box::new(build(config, &Site::new(b, self.names, Role::Encoder))?)),
            Build::EncoderDecoder(_) => config.unsupported("model_type", &super::encoder_types()),
        }
    }

    /// Where the token embedding is in the bare model.
    pub(crate) fn bare_words(&self) -> &'static str {
        let names = &self.names;
        let bare = names.embedding.strip_prefix(names.prefix).unwrap_or(names.embedding);
        bare.trim_end_matches(".weight")
    }

    /// `config` with what transformers must find in it.
    pub(crate) fn complete(&self, source: &ConfigSource<'_>, own_head: bool, config: &mut Value) {
        if let Some(map) = config.as_object_mut() {
            map.extend((self.settings)(source, own_head).into_iter().map(|(k, v)| (k.to_string(), v)));
        }
    }

    /// Whether a checkpoint may hold this tensor although no parameter has its name: buffers of older checkpoints, and a
    /// head or another copy of the embedding.
    pub(crate) fn is_unused(&self, name: &str) -> bool {
        let n = &self.names;
        name == n.head || n.embedding_copies.contains(&name) || n.buffers.iter().any(|b| name.ends_with(b))
    }
}
