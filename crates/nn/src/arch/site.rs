//! What a decoder is built for, and with it where its parameters are and what its tokens see: a language model sees no
//! later token; the encoder of a retriever, or what a classifier stands on, may see the whole text.
//!
//! transformers (5.3 and 5.24) makes any decoder bidirectional whose config says `is_causal = false`; a sliding window
//! of n tokens then reaches n tokens to either side, where a causal one holds n with the token itself.
//! `use_bidirectional_attention` is Gemma 3's own key: half of the window is on either side. Other families do not read
//! it (Gemma 2 does for texts that are alone in their batch), so it is refused there.

use super::spec::LmNames;
use crate::config_source::ConfigSource;
use crate::{Embedding, Linear, Result};
use ragduet_torch::ParamBuilder;
use serde_json::Value;

/// What a decoder is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// With a head, to generate.
    LanguageModel,
    /// Names as a language model's, without its head.
    Classifier,
    /// The bare model: names as transformers' AutoModel has them.
    Encoder,
}

/// What a token sees of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Itself and what stands before it.
    Causal,
    /// The whole text.
    Both,
}

impl Sight {
    /// How far a token sees where the config says `sliding_window = n`.
    pub fn window(self, n: i64) -> i64 {
        match self {
            // transformers counts the token itself.
            Self::Causal => n - 1,
            Self::Both => n,
        }
    }
}

/// Where a decoder takes its parameters.
#[derive(Debug)]
pub(super) struct Site<'a> {
    root: &'a ParamBuilder,
    names: LmNames,
    role: Role,
}

impl<'a> Site<'a> {
    pub fn new(root: &'a ParamBuilder, names: LmNames, role: Role) -> Self {
        Self { root, names, role }
    }

    /// The builder that the model was given.
    pub fn root(&self) -> &ParamBuilder {
        self.root
    }

    /// What precedes the names of all but the head.
    pub fn prefix(&self) -> &'static str {
        match self.role {
            Role::LanguageModel | Role::Classifier => self.names.prefix,
            Role::Encoder => "",
        }
    }

    /// Where all but the head is.
    pub fn body(&self) -> ParamBuilder {
        match self.role {
            Role::LanguageModel | Role::Classifier => self.root.at(self.names.prefix.trim_end_matches('.')),
            Role::Encoder => self.root.clone(),
        }
    }

    /// The output projection: the embedding itself where the two are tied, and where there is none.
    pub fn head(&self, words: &Embedding, tied: bool, std: f64) -> Result<Linear> {
        if self.role != Role::LanguageModel {
            return Ok(Linear::aside(words.weight()));
        }
        let b = self.root.at(self.names.head.trim_end_matches(".weight"));
        let size = words.weight().size();
        if tied {
            Ok(Linear::tied(&b, words.weight()))
        } else {
            Linear::build(&b, size[1], size[0], false, std)
        }
    }

    /// What tokens see.
    ///
    /// # Errors
    /// A language model that would see later tokens; `use_bidirectional_attention` where the family does not `honor` it.
    pub fn sight(&self, source: &ConfigSource<'_>, honored: bool) -> Result<Sight> {
        const BOTH: &str = "use_bidirectional_attention";
        let both = match source.json.get(BOTH) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Bool(true)) if honored => true,
            Some(_) if honored => return source.unsupported(BOTH, "true or false"),
            Some(_) => {
                let remedy = "false: transformers does not read this key of this family. For attention to both sides \
                              say is_causal = false, which it reads";
                return source.unsupported(BOTH, remedy);
            }
        };
        let causal = match source.json.get("is_causal") {
            None | Some(Value::Bool(true)) => !both,
            Some(Value::Bool(false)) => false,
            Some(_) => return source.unsupported("is_causal", "true or false"),
        };
        if causal {
            return Ok(Sight::Causal);
        }
        if self.role == Role::LanguageModel {
            let key = if both { BOTH } else { "is_causal" };
            let usual = if both { "false" } else { "true" };
            let why =
                format!("{usual}: a language model sees no later token; retrievers and classifiers may");
            return source.unsupported(key, &why);
        }
        Ok(Sight::Both)
    }
}
