//! The bi-encoder: a tower for queries and one for passages (usually the same), a tokenizer, and how texts are represented.

use crate::representation::{Representation, Side, Similarity};
use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_nn::{FrozenBase, Mode};
use ragduet_text::{EncodeOptions, Encoding, Prompts, Tokenizer};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Compute, Device, Tensor};

/// What is done with texts, whatever the encoder's weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What becomes of token states, and how texts are compared.
    pub representation: Representation,
    /// Texts put in front.
    pub prompts: Prompts,
    /// Queries are cut to this many tokens, special ones included.
    pub max_query_tokens: usize,
    /// Passages likewise.
    pub max_passage_tokens: usize,
}

/// Texts of one side to ids.
pub(crate) type TokenizeFn = Box<dyn Fn(&[String]) -> Result<Vec<Encoding>> + Send>;

/// A retriever that encodes queries and passages apart from one another.
#[derive(Debug)]
pub struct BiEncoder {
    /// The queries' tower, and the passages' where `passage_tower` is absent.
    pub query_tower: Tower,
    /// The passages' own tower.
    pub passage_tower: Option<Tower>,
    /// Text to ids, for both sides.
    pub tokenizer: Tokenizer,
    /// Representation, prompts, lengths.
    pub settings: Settings,
    /// Where it runs.
    pub device: Device,
    /// In what precision.
    pub compute: Compute,
}

const QUERY_PREFIX: &str = "query_tower.";
const PASSAGE_PREFIX: &str = "passage_tower.";

impl BiEncoder {
    /// The frozen weights of an adapted query encoder, for a second model over the same base.
    pub fn frozen_base(&self) -> Option<FrozenBase> {
        let tower = &self.query_tower;
        tower.adapter.as_ref().and_then(|_| FrozenBase::new(&tower.base, &tower.model.params))
    }

    /// Checks that tokenizer, encoder and settings fit together.
    pub(crate) fn check(self) -> Result<Self> {
        let encoder = &self.query_tower.model.encoder;
        let (rows, words) = (encoder.vocab_size(), self.tokenizer.vocab_size());
        if words > rows {
            return Err(Error::Unusable(format!(
                "the tokenizer has {words} tokens but the model embeds only {rows}: they do not belong together"
            )));
        }
        let longest = self.towers().map(Tower::max_tokens).min().unwrap_or(0);
        for (key, n) in [
            ("max_query_tokens", self.settings.max_query_tokens),
            ("max_passage_tokens", self.settings.max_passage_tokens),
        ] {
            if n > longest || n < 3 {
                let why = format!("{n} is not between 3 and the model's {longest} positions");
                return Err(Error::Config { key: format!("model.{key}"), why });
            }
        }
        let representation = self.representation();
        for tower in self.towers() {
            representation.check(tower)?;
        }
        if self.passage_tower.as_ref().is_some_and(|p| representation.dim(p) != self.dim()) {
            return Err(Error::Unusable("the two towers give embeddings of different sizes".into()));
        }
        Ok(self)
    }

    /// How texts are represented.
    pub fn representation(&self) -> &Representation {
        &self.settings.representation
    }

    /// How vectors are compared.
    pub fn similarity(&self) -> Similarity {
        self.representation().similarity()
    }

    /// Size of a vector.
    pub fn dim(&self) -> i64 {
        self.representation().dim(&self.query_tower)
    }

    /// Numbers of a vector in training, of which a folder's `truncate_dim` keeps fewer afterwards.
    pub fn trained_dim(&self) -> i64 {
        self.representation().trained_dim(&self.query_tower)
    }

    /// The tower of a side.
    pub fn tower(&self, side: Side) -> &Tower {
        match (side, &self.passage_tower) {
            (Side::Passage, Some(tower)) => tower,
            _ => &self.query_tower,
        }
    }

    /// Whether both sides share one tower.
    pub fn is_shared(&self) -> bool {
        self.passage_tower.is_none()
    }

    /// All parameters by name: the encoder's Hugging Face names (or peft's, of the adapter alone) and `dense.linear.*`;
    /// with two towers under `query_tower.` and `passage_tower.`.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        match &self.passage_tower {
            None => self.query_tower.parameters("").collect(),
            Some(passage) => {
                self.query_tower.parameters(QUERY_PREFIX).chain(passage.parameters(PASSAGE_PREFIX)).collect()
            }
        }
    }

    /// 0 for embeddings, 1.. for layers, None for what follows the encoder.
    pub fn depth_of(&self, parameter: &str) -> Option<usize> {
        let (side, bare) = match parameter.strip_prefix(PASSAGE_PREFIX) {
            Some(bare) => (Side::Passage, bare),
            None => (Side::Query, parameter.strip_prefix(QUERY_PREFIX).unwrap_or(parameter)),
        };
        // An adapter's parameters learn like those of the module they belong to.
        let bare = bare.strip_prefix("base_model.model.").unwrap_or(bare);
        self.tower(side).model.encoder.depth_of(bare)
    }

    /// How much faster than others an adapter's parameter learns.
    pub fn lr_scale(&self, parameter: &str) -> f64 {
        self.query_tower.adapter.as_ref().map_or(1.0, |a| a.config.lr_scale(parameter))
    }

    /// The towers there are.
    pub fn towers(&self) -> impl Iterator<Item = &Tower> {
        std::iter::once(&self.query_tower).chain(&self.passage_tower)
    }

    /// The same, to change them.
    pub fn towers_mut(&mut self) -> impl Iterator<Item = &mut Tower> {
        std::iter::once(&mut self.query_tower).chain(&mut self.passage_tower)
    }

    /// Number of transformer layers of a tower.
    pub fn layers(&self) -> usize {
        self.query_tower.model.encoder.layers()
    }

    fn prompt(&self, side: Side) -> &str {
        match side {
            Side::Query => &self.settings.prompts.query,
            Side::Passage => &self.settings.prompts.passage,
        }
    }

    /// The limit of a side, in tokens.
    pub fn max_tokens(&self, side: Side) -> usize {
        match side {
            Side::Query => self.settings.max_query_tokens,
            Side::Passage => self.settings.max_passage_tokens,
        }
    }

    /// Texts to ids: prompt in front, cut to the side's length.
    pub fn tokenize(&self, side: Side, texts: &[String]) -> Result<Vec<Encoding>> {
        self.tokenize_fn(side)(texts)
    }

    /// [`BiEncoder::tokenize`] without the tensors, so that another thread can run it.
    pub fn tokenize_fn(
        &self,
        side: Side,
    ) -> impl Fn(&[String]) -> Result<Vec<Encoding>> + Send + Sync + use<'_> {
        let (how, tokenizer) = (self.how(side), &self.tokenizer);
        move |texts| how.tokenize(tokenizer, texts)
    }

    /// The same over a copy of the tokenizer, for a thread that outlives borrows of the model.
    pub(crate) fn owned_tokenize_fn(&self, side: Side) -> TokenizeFn {
        let (how, tokenizer) = (self.how(side), self.tokenizer.clone());
        Box::new(move |texts| how.tokenize(&tokenizer, texts))
    }

    fn how(&self, side: Side) -> How {
        let representation = self.representation().clone();
        How { side, prompt: self.prompt(side).to_string(), max_len: self.max_tokens(side), representation }
    }

    /// How many leading tokens do not count in a vector.
    fn skipped(&self, side: Side) -> Result<usize> {
        let prompt = self.prompt(side);
        if prompt.is_empty() || !self.representation().skips_prompt() {
            return Ok(0);
        }
        Ok(self.tokenizer.prefix_len(prompt, Some(self.max_tokens(side)))?)
    }

    /// Whether queries and passages, once tokens, are encoded in one and the same way.
    pub(crate) fn encodes_sides_alike(&self) -> Result<bool> {
        Ok(self.is_shared()
            && self.representation().sides_alike()
            && self.skipped(Side::Query)? == self.skipped(Side::Passage)?)
    }

    /// One vector a text, [texts, dim] in f32, on the device.
    ///
    /// # Errors
    /// Out of memory, with what to do about it; a model with late interaction, which has several vectors a text.
    pub fn embed(&self, side: Side, texts: &[&Encoding], mode: Mode) -> Result<Tensor> {
        self.representation().one_vector()?;
        self.rows(side, texts, mode)
    }

    /// What the loss of a step and bulk encoding work on: [texts, dim], or with late interaction [vectors, dim], text after
    /// text. f32, on the device.
    ///
    /// # Errors
    /// Out of memory, with what to do about it.
    pub fn rows(&self, side: Side, texts: &[&Encoding], mode: Mode) -> Result<Tensor> {
        let from = (side, self.skipped(side)?);
        self.representation().encode(self.tower(side), from, texts, self.device, mode)
    }

    /// Where each text's rows begin and end in [`BiEncoder::rows`].
    pub fn row_segments(&self, side: Side, texts: &[&Encoding]) -> Segments {
        Segments::new(&self.representation().counts(side, texts), self.device)
    }

    /// Similarities [queries, passages] of rows as [`BiEncoder::rows`] gives them: inner products of what is comparable, or
    /// MaxSim. Those that `wanted` leaves out may be 0.
    pub fn similarities(
        &self,
        queries: (&Tensor, &Segments),
        passages: (&Tensor, &Segments),
        wanted: Option<&[bool]>,
    ) -> Tensor {
        self.representation().score(queries, passages, wanted)
    }

    /// The vectors that are compared by dot product, whatever the similarity: unit vectors under cosine.
    pub fn comparable(&self, embeddings: &Tensor) -> Tensor {
        self.representation().comparable(embeddings)
    }
}

/// How texts of a side become ids.
struct How {
    side: Side,
    prompt: String,
    max_len: usize,
    representation: Representation,
}

impl How {
    fn tokenize(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Encoding>> {
        let room = self.representation.room(self.side, self.max_len);
        let prefix = (!self.prompt.is_empty()).then_some(self.prompt.as_str());
        let options = EncodeOptions { max_len: Some(room), prefix, ..EncodeOptions::default() };
        let mut out = tokenizer.encode_batch(texts, &options)?;
        stand_in(tokenizer, &mut out)?;
        self.representation.mark(self.side, self.max_len, &mut out);
        Ok(out)
    }
}

/// Gives texts without any token the end token: tokenizers of decoders put none around a text, and a text without a token
/// has no state.
fn stand_in(tokenizer: &Tokenizer, texts: &mut [Encoding]) -> Result<()> {
    let empty = texts.iter().filter(|t| t.is_empty()).count();
    if empty == 0 {
        return Ok(());
    }
    let Some(id) = tokenizer.eos_id().or(tokenizer.pad_id()) else {
        return Err(Error::Unusable(format!(
            "{empty} texts are empty, and the tokenizer has no end token to stand for them: leave them out of the data"
        )));
    };
    tracing::warn!("{empty} empty texts: each is encoded as the tokenizer's end token alone");
    for text in texts.iter_mut().filter(|t| t.is_empty()) {
        *text = Encoding { ids: vec![id], type_ids: vec![0] };
    }
    Ok(())
}
