//! The head of masked language models over an encoder: a logit for every word of the vocabulary, as the directories of
//! transformers' `AutoModelForMaskedLM` hold it (BERT: Devlin et al., 2019). Sparse retrievers (SPLADE) weigh words with it.

use crate::arch::Architecture;
use crate::config_source::ConfigSource;
use crate::layers::LayerNorm;
use crate::{Activation, Linear, Mode, Result};
use ragduet_torch::{Init, Kind, ParamBuilder, Tensor};

/// Whether an encoder is read with its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MlmHeadOption {
    /// Without.
    #[default]
    No,
    /// With the head that the directory holds.
    Saved,
    /// With the head that the directory holds, or a new one, drawn from the global generators.
    SavedOrFresh,
}

/// decoder(norm(act(dense(x)))) + bias; the decoder is the token embedding unless the config unties it.
#[derive(Debug)]
pub struct MlmHead {
    dense: Linear,
    activation: Activation,
    norm: LayerNorm,
    decoder: Linear,
    weight: Tensor,
    bias: Option<Tensor>,
}

/// What an architecture calls the parts.
struct Names {
    dense: &'static str,
    norm: &'static str,
    /// What a tied decoder's bias belongs to.
    bias: &'static str,
    decoder: &'static str,
}

impl Names {
    fn of(arch: Architecture) -> Option<Self> {
        Some(match arch {
            Architecture::Bert => Self {
                dense: "cls.predictions.transform.dense",
                norm: "cls.predictions.transform.LayerNorm",
                bias: "cls.predictions",
                decoder: "cls.predictions.decoder",
            },
            Architecture::Roberta | Architecture::MpNet => Self {
                dense: "lm_head.dense",
                norm: "lm_head.layer_norm",
                bias: "lm_head",
                decoder: "lm_head.decoder",
            },
            Architecture::DistilBert => Self {
                dense: "vocab_transform",
                norm: "vocab_layer_norm",
                bias: "vocab_projector",
                decoder: "vocab_projector",
            },
            Architecture::ModernBert => {
                Self { dense: "head.dense", norm: "head.norm", bias: "decoder", decoder: "decoder" }
            }
            // Their heads differ between checkpoints, or were trained to tell tokens apart.
            Architecture::DebertaV2 | Architecture::Electra => return None,
        })
    }
}

/// Whether a parameter is the head's and not the encoder's.
pub(crate) fn is_mlm_head(name: &str) -> bool {
    ["cls.predictions.", "lm_head.", "vocab_", "head.", "decoder."].iter().any(|p| name.starts_with(p))
}

/// The class of transformers that loads an encoder with this head.
pub(crate) fn class_name(model_type: &str) -> Option<&'static str> {
    Some(match model_type {
        "bert" => "BertForMaskedLM",
        "roberta" => "RobertaForMaskedLM",
        "xlm-roberta" => "XLMRobertaForMaskedLM",
        "camembert" => "CamembertForMaskedLM",
        "distilbert" => "DistilBertForMaskedLM",
        "mpnet" => "MPNetForMaskedLM",
        "modernbert" => "ModernBertForMaskedLM",
        _ => return None,
    })
}

impl MlmHead {
    /// `words`: where the encoder's token embedding is; its parameters must have been asked for.
    pub(crate) fn build(
        arch: Architecture,
        source: &ConfigSource<'_>,
        words: &str,
        (vocab, hidden): (i64, i64),
        b: &ParamBuilder,
    ) -> Result<Self> {
        let Some(names) = Names::of(arch) else {
            let with_heads = "bert, roberta, xlm-roberta, camembert, distilbert, mpnet and modernbert, whose masked language \
                              models weigh words";
            return source.unsupported("model_type", with_heads);
        };
        let on = |key: &str, default: bool| source.json.get(key).and_then(|v| v.as_bool()).unwrap_or(default);
        let std = source.number("initializer_range").unwrap_or(0.02);
        let modern = arch == Architecture::ModernBert;
        let key = match arch {
            Architecture::Bert => Some("hidden_act"),
            Architecture::DistilBert => Some("activation"),
            Architecture::ModernBert => Some("classifier_activation"),
            Architecture::Roberta | Architecture::MpNet | Architecture::DebertaV2 | Architecture::Electra => {
                None
            }
        };
        let said = key.and_then(|k| source.json.get(k)).and_then(|v| v.as_str()).unwrap_or("gelu");
        let Ok(activation) = serde_json::from_value(said.into()) else {
            return source.unsupported(key.unwrap_or_default(), "gelu, gelu_new, relu, silu");
        };
        let eps = match arch {
            Architecture::DistilBert => 1e-12,
            Architecture::ModernBert => source.number("norm_eps").unwrap_or(1e-5),
            _ => source.number("layer_norm_eps").unwrap_or(1e-12),
        };
        let with_bias = !modern || on("classifier_bias", false);
        let dense = Linear::build(&b.at(names.dense), hidden, hidden, with_bias, std)?;
        let norm = LayerNorm::build(&b.at(names.norm), hidden, eps, !modern || on("norm_bias", false))?;
        let tied = on("tie_word_embeddings", true);
        let at = b.at(if tied { words } else { names.decoder });
        let weight = at.get("weight", &[vocab, hidden], Init::Normal(std))?;
        // Where the decoder is a layer of its own, so is its bias.
        let bias_at = if tied { names.bias } else { names.decoder };
        let bias = match !modern || on("decoder_bias", true) {
            true => Some(b.at(bias_at).get("bias", &[vocab], Init::Zeros)?),
            false => None,
        };
        let decoder = Linear::tied(&b.at(names.decoder), &weight);
        Ok(Self { dense, activation, norm, decoder, weight, bias })
    }

    /// States [tokens, hidden] to what the decoder compares with words, [tokens, hidden], f32.
    pub fn transform(&self, states: &Tensor, m: Mode) -> Tensor {
        let x = self.dense.forward_activated(states, self.activation, m);
        self.norm.forward(&x.to_kind(Kind::Float), m)
    }

    /// Logits [tokens, words] of [`MlmHead::transform`]ed states, f32.
    pub fn logits(&self, transformed: &Tensor, m: Mode) -> Tensor {
        let logits = self.decoder.forward_wide(transformed, m);
        match &self.bias {
            Some(bias) => logits + bias,
            None => logits,
        }
    }

    /// The logit of one word at each of some transformed states: [n, hidden] and word numbers [n] (i64) to [n], f32.
    pub fn logits_of(&self, transformed: &Tensor, words: &Tensor) -> Tensor {
        let rows = self.weight.index_select(0, words);
        let logits = (transformed * rows).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        match &self.bias {
            Some(bias) => logits + bias.index_select(0, words),
            None => logits,
        }
    }

    /// How many words there are.
    pub fn words(&self) -> i64 {
        self.weight.size()[0]
    }
}
