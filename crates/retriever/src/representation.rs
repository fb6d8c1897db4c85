//! How a retriever represents a text: one vector, a vector for each token, or a weight for each word of the vocabulary.
//! Everything that depends on the kind begins with a `match` on [`Representation`], without a catch-all: a new kind is a
//! file here, a variant, and the places that the compiler then lists.

mod dense;
mod late;
mod pooling;
mod sparse;

pub use dense::DenseSettings;
pub use late::{Late, LateConfig};
pub use pooling::Pooling;
pub use sparse::{SparseActivation, SparseConfig, SparsePooling};

use crate::error::catch;
use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_nn::{Mode, PackedTokens};
use ragduet_text::{Encoding, Tokenizer};
use ragduet_torch::ops::{Segments, maxsim};
use ragduet_torch::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which side a text is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// What is asked.
    Query,
    /// What is searched.
    Passage,
}

/// Similarity of two embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// Cosine similarity.
    #[default]
    Cosine,
    /// Inner product without normalization.
    Dot,
}

impl From<Similarity> for ragduet_index::Similarity {
    fn from(s: Similarity) -> Self {
        match s {
            Similarity::Cosine => Self::Cosine,
            Similarity::Dot => Self::Dot,
        }
    }
}

/// How texts are represented and compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Representation {
    /// One vector a text.
    Dense(DenseSettings),
    /// A vector of unit length for each token, compared by MaxSim (ColBERT).
    LateInteraction(Late),
    /// A weight of at least 0 for each word of the vocabulary, compared by inner product (SPLADE). All towers have the
    /// head of a masked language model.
    Sparse(SparseConfig),
}

/// What a new model's representation is to be, before there is a tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub enum RepresentationConfig {
    /// One vector a text.
    Dense(DenseSettings),
    /// A vector for each token.
    LateInteraction(LateConfig),
    /// A weight for each word.
    Sparse(SparseConfig),
}

impl RepresentationConfig {
    /// A tokenizer with the tokens that this kind puts into texts.
    pub(crate) fn add_tokens(&self, tokenizer: Tokenizer) -> Result<Tokenizer> {
        match self {
            Self::Dense(_) | Self::Sparse(_) => Ok(tokenizer),
            Self::LateInteraction(config) => Ok(tokenizer.with_tokens(config.markers())?),
        }
    }

    /// With the ids that a tokenizer gives marker and mask tokens.
    ///
    /// # Errors
    /// A marker that is no token; a tokenizer without a token to expand queries with.
    pub fn resolve(self, tokenizer: &Tokenizer) -> Result<Representation> {
        Ok(match self {
            Self::Dense(settings) => Representation::Dense(settings),
            Self::LateInteraction(config) => Representation::LateInteraction(Late::new(config, tokenizer)?),
            Self::Sparse(config) => Representation::Sparse(config),
        })
    }
}

impl Representation {
    /// What it is called in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dense(_) => "dense",
            Self::LateInteraction(_) => "late interaction",
            Self::Sparse(_) => "sparse",
        }
    }

    /// How vectors are compared; those of tokens before the maximum is taken.
    pub fn similarity(&self) -> Similarity {
        match self {
            Self::Dense(settings) => settings.similarity,
            Self::LateInteraction(_) | Self::Sparse(_) => Similarity::Dot,
        }
    }

    /// Numbers in a vector that a tower gives.
    pub(crate) fn dim(&self, tower: &Tower) -> i64 {
        match self {
            Self::Dense(settings) => settings.kept(tower.outputs(settings.pooling.len())),
            Self::LateInteraction(_) => tower.outputs(1),
            Self::Sparse(_) => tower.model.mlm_head.as_ref().map_or(0, |head| head.words()),
        }
    }

    /// Numbers of a vector in training: all of them, however many are kept afterwards.
    pub(crate) fn trained_dim(&self, tower: &Tower) -> i64 {
        match self {
            Self::Dense(settings) => tower.outputs(settings.pooling.len()),
            Self::LateInteraction(_) | Self::Sparse(_) => self.dim(tower),
        }
    }

    /// Whether a tower can represent texts so.
    ///
    /// # Errors
    /// What it lacks, or has that does not go together.
    pub(crate) fn check(&self, tower: &Tower) -> Result<()> {
        match self {
            Self::LateInteraction(late) if late.hides_expansion() && tower.soft_tokens() > 0 => {
                let why = "prompts and prefixes are seen by all tokens, mask tokens of queries are not: set \
                           model.late_interaction.attend_to_expansion = true, or take another method";
                Err(Error::Config { key: "peft".into(), why: why.into() })
            }
            Self::LateInteraction(late) if late.hides_expansion() && tower.is_deberta() => {
                let why = "in DeBERTa all tokens are seen by all, mask tokens of queries are not: set \
                           model.late_interaction.attend_to_expansion = true, or expand_queries = false";
                Err(Error::Config { key: "model.late_interaction".into(), why: why.into() })
            }
            Self::Sparse(_) if tower.model.mlm_head.is_none() => {
                Err(Error::Unusable("a sparse model needs the head of a masked language model".into()))
            }
            Self::Dense(_) | Self::LateInteraction(_) | Self::Sparse(_) => Ok(()),
        }
    }

    /// # Errors
    /// Late interaction, which has several vectors a text.
    pub fn one_vector(&self) -> Result<()> {
        match self {
            Self::Dense(_) | Self::Sparse(_) => Ok(()),
            Self::LateInteraction(_) => Err(Error::SeveralVectors),
        }
    }

    /// Whether all that sets the sides apart are their prompts and lengths, so that texts of both may share a pass.
    pub(crate) fn sides_alike(&self) -> bool {
        match self {
            Self::Dense(_) | Self::Sparse(_) => true,
            Self::LateInteraction(_) => false,
        }
    }

    /// Whether vectors depend on how many of a text's tokens are its prompt's.
    pub(crate) fn skips_prompt(&self) -> bool {
        match self {
            Self::Dense(settings) => !settings.include_prompt,
            Self::LateInteraction(_) | Self::Sparse(_) => false,
        }
    }

    /// How many tokens of a text of `max_len` may come from the text and its special tokens.
    pub(crate) fn room(&self, side: Side, max_len: usize) -> usize {
        match self {
            Self::Dense(_) | Self::Sparse(_) => max_len,
            Self::LateInteraction(late) => late.room(side, max_len),
        }
    }

    /// Adds the tokens that this kind puts into texts.
    pub(crate) fn mark(&self, side: Side, max_len: usize, texts: &mut [Encoding]) {
        match self {
            Self::Dense(_) | Self::Sparse(_) => {}
            Self::LateInteraction(late) => texts.iter_mut().for_each(|text| late.mark(side, max_len, text)),
        }
    }

    /// How many vectors each text has.
    pub fn counts(&self, side: Side, texts: &[&Encoding]) -> Vec<usize> {
        match self {
            Self::Dense(_) | Self::Sparse(_) => vec![1; texts.len()],
            Self::LateInteraction(late) => late.counts(side, texts),
        }
    }

    /// The vectors of texts, text after text: [vectors, dim], f32. `skip`: how many leading tokens of each are its prompt's,
    /// where those do not count.
    ///
    /// # Errors
    /// Out of memory, with what to do about it.
    pub(crate) fn encode(
        &self,
        tower: &Tower,
        (side, skip): (Side, usize),
        texts: &[&Encoding],
        device: Device,
        mode: Mode,
    ) -> Result<Tensor> {
        let remedy = "use smaller batches (`batch.tokens`), gradient caching, or shorter texts";
        catch("the encoder", remedy, || {
            let pairs = texts.iter().map(|e| (e.ids.as_slice(), e.type_ids.as_slice()));
            let batch = PackedTokens::new(pairs, device);
            Ok(match self {
                Self::Dense(settings) => settings.encode(tower, &batch, skip, mode),
                Self::LateInteraction(late) => late.encode(tower, side, texts, batch, mode),
                Self::Sparse(config) => config.encode(tower, &batch, mode)?,
            })
        })
    }

    /// The vectors that are compared by dot product, whatever the similarity: unit vectors under cosine.
    pub(crate) fn comparable(&self, vectors: &Tensor) -> Tensor {
        match self {
            Self::Dense(settings) => settings.comparable(vectors),
            Self::LateInteraction(_) | Self::Sparse(_) => vectors.shallow_clone(),
        }
    }

    /// Scores [queries, passages] of vectors that [`Representation::encode`] gave, with where each text's begin: inner
    /// products of what is comparable, or MaxSim. Those that `wanted` leaves out may be 0.
    pub(crate) fn score(
        &self,
        (queries, q): (&Tensor, &Segments),
        (passages, p): (&Tensor, &Segments),
        wanted: Option<&[bool]>,
    ) -> Tensor {
        match self {
            Self::Dense(_) | Self::Sparse(_) => {
                self.comparable(queries).matmul(&self.comparable(passages).transpose(0, 1))
            }
            Self::LateInteraction(_) => maxsim(queries, q, passages, p, wanted),
        }
    }
}
