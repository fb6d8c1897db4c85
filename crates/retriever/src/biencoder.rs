//! The bi-encoder: a tower for queries and one for passages (usually the same), pooling, an optional projection,
//! normalisation.

use crate::error::catch;
use crate::late::Late;
use crate::loss::normalize;
use crate::sparse::SparseConfig;
use crate::{Error, Pooling, Result};
use ragduet_nn::peft::{Adapter, PeftConfig};
use ragduet_nn::{EncoderModel, Mode, PackedTokens};
use ragduet_text::{EncodeOptions, Encoding, Prompts, Tokenizer};
use ragduet_torch::{Compute, Device, Init, ParamBuilder, ParamStore, Tensor};
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

/// How two embeddings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// Of unit vectors.
    #[default]
    Cosine,
    /// As they are.
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

/// What makes embeddings of token states.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Token states to vector.
    pub pooling: Pooling,
    /// Whether embeddings have unit length.
    pub normalize: bool,
    /// How embeddings are compared.
    pub similarity: Similarity,
    /// Texts put in front.
    pub prompts: Prompts,
    /// Whether a prompt's tokens count in mean pooling.
    pub include_prompt: bool,
    /// Queries are cut to this many tokens, special ones included.
    pub max_query_tokens: usize,
    /// Passages likewise.
    pub max_passage_tokens: usize,
    /// A vector for each token instead of one for the text. Pooling then has nothing to do, and vectors have unit length.
    pub late: Option<Late>,
    /// A weight for every word of the vocabulary instead, from the masked language model's head that all towers then have.
    /// Pooling and unit length then have nothing to do.
    pub sparse: Option<SparseConfig>,
}

/// Activations of a projection, as sentence-transformers names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// tanh.
    Tanh,
}

/// A projection after pooling: y = act(x W^T + b).
#[derive(Debug)]
pub struct Dense {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) activation: DenseActivation,
    pub(crate) params: ParamStore,
}

impl Dense {
    /// From a builder at `linear`: `weight` [outputs, inputs], `bias` [outputs].
    pub(crate) fn build(
        b: ParamBuilder,
        (inputs, outputs): (i64, i64),
        bias: bool,
        activation: DenseActivation,
    ) -> Result<Self> {
        let at = b.at("linear");
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = at.get("weight", &[outputs, inputs], Init::Uniform(bound))?;
        let bias = if bias { Some(at.get("bias", &[outputs], Init::Uniform(bound))?) } else { None };
        let (params, _) = b.finish(|_| false, |_| false)?;
        Ok(Self { weight, bias, activation, params })
    }

    /// A new projection without bias or activation.
    pub fn fresh(inputs: i64, outputs: i64, device: Device) -> Result<Self> {
        // A fresh builder reports everything as missing only where there was a checkpoint.
        Self::build(ParamBuilder::fresh(device), (inputs, outputs), false, DenseActivation::Identity)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, self.bias.as_ref());
        match self.activation {
            DenseActivation::Identity => y,
            DenseActivation::Tanh => y.tanh(),
        }
    }

    /// Whether it learns.
    pub fn trains(&self) -> bool {
        self.weight.requires_grad()
    }

    /// Size of the result.
    pub fn outputs(&self) -> i64 {
        self.weight.size()[0]
    }
}

/// An encoder and what follows it.
#[derive(Debug)]
pub struct Tower {
    /// The transformer.
    pub model: EncoderModel,
    /// The projection, where there is one.
    pub dense: Option<Dense>,
    /// What acts over the transformer, where something does.
    pub adapter: Option<Adapter>,
    /// The folder that an adapter names as its base; empty for a transformer that is nowhere yet.
    pub base: String,
}

impl Tower {
    fn dim(&self) -> i64 {
        match (&self.model.mlm_head, &self.dense) {
            (Some(head), _) => head.words(),
            (None, Some(dense)) => dense.outputs(),
            (None, None) => self.model.encoder.hidden_size(),
        }
    }

    /// Puts a new adapter over the transformer, which no longer trains itself. Draws from the global generators.
    ///
    /// # Errors
    /// A transformer that has one, or that is in no folder that the adapter could name; settings that do not fit it.
    pub fn adapt(&mut self, config: &PeftConfig, device: Device) -> Result<()> {
        let why = if self.adapter.is_some() {
            "the base has an adapter: go on with it without [peft], or work it into its base (`ragduet merge`)"
        } else if self.model.mlm_head.is_some() {
            "a sparse model learns whole: leave [peft] out"
        } else if self.base.is_empty() {
            "an adapter goes over a trained model: give model.base"
        } else {
            self.model.params.set_trainable(|_| false);
            self.adapter = Some(Adapter::fresh(self.model.base(device)?, config)?);
            return Ok(());
        };
        Err(Error::Config { key: "peft".into(), why: why.into() })
    }

    /// The longest text: the encoder's positions but those that an adapter takes.
    pub(crate) fn max_tokens(&self) -> usize {
        let taken = self.adapter.as_ref().map_or(0, |a| a.config.places());
        self.model.encoder.max_tokens().saturating_sub(taken)
    }

    /// Works the adapter into the transformer, which is then one like any other, in no folder yet.
    ///
    /// # Errors
    /// An adapter that is no change of weights.
    pub fn merge(&mut self) -> Result<()> {
        if let Some(a) = &self.adapter {
            a.merge(&self.model.params)?;
            self.adapter = None;
            self.base.clear();
        }
        Ok(())
    }

    /// Number of scalars that do not train because an adapter does.
    pub(crate) fn resting(&self) -> u64 {
        if self.adapter.is_some() { self.model.params.count().0 } else { 0 }
    }

    /// What is trained and saved: the adapter's parameters in place of the transformer's, where there is one.
    fn parameters(&self, prefix: &str) -> impl Iterator<Item = (String, Tensor)> {
        let encoder = self.adapter.as_ref().map_or(&self.model.params, |a| &a.params).iter();
        let dense = self.dense.iter().flat_map(|d| d.params.iter().map(|(n, p)| (format!("dense.{n}"), p)));
        encoder
            .map(|(n, p)| (n.to_string(), p))
            .chain(dense)
            .map(move |(n, p)| (format!("{prefix}{n}"), p.tensor.shallow_clone()))
    }
}

/// Texts of one side to ids.
pub(crate) type TokenizeFn = Box<dyn Fn(&[String]) -> Result<Vec<Encoding>> + Send>;

/// A dense retriever.
#[derive(Debug)]
pub struct BiEncoder {
    /// The queries' tower, and the passages' where `passage_tower` is absent.
    pub query_tower: Tower,
    /// The passages' own tower.
    pub passage_tower: Option<Tower>,
    /// Text to ids, for both sides.
    pub tokenizer: Tokenizer,
    /// Pooling, prompts, lengths.
    pub settings: Settings,
    /// Where it runs.
    pub device: Device,
    /// In what precision.
    pub compute: Compute,
}

const QUERY_PREFIX: &str = "query_tower.";
const PASSAGE_PREFIX: &str = "passage_tower.";

impl BiEncoder {
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
        let soft = |t: &Tower| t.adapter.as_ref().is_some_and(|a| a.config.places() > 0);
        let unseen = |l: &Late| l.config.expand_queries && !l.config.attend_to_expansion;
        if self.late().is_some_and(unseen) && self.towers().any(soft) {
            let why = "prompts and prefixes are seen by all tokens, mask tokens of queries are not: set \
                       model.late_interaction.attend_to_expansion = true, or take another method";
            return Err(Error::Config { key: "peft".into(), why: why.into() });
        }
        if self.passage_tower.as_ref().is_some_and(|p| p.dim() != self.query_tower.dim()) {
            return Err(Error::Unusable("the two towers give embeddings of different sizes".into()));
        }
        Ok(self)
    }

    /// Size of an embedding.
    pub fn dim(&self) -> i64 {
        self.query_tower.dim()
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
        let late = self.settings.late.clone();
        How { side, prompt: self.prompt(side).to_string(), max_len: self.max_tokens(side), late }
    }

    /// How many leading tokens the mean leaves out.
    pub(crate) fn skipped(&self, side: Side) -> Result<usize> {
        let prompt = self.prompt(side);
        if self.settings.include_prompt || prompt.is_empty() {
            return Ok(0);
        }
        Ok(self.tokenizer.prefix_len(prompt, Some(self.max_tokens(side)))?)
    }

    /// Embeddings [texts, dim] in f32, on the device, normalised where the model says so.
    ///
    /// # Errors
    /// Out of memory, with what to do about it; a model with late interaction, which has several vectors a text.
    pub fn embed(&self, side: Side, texts: &[&Encoding], mode: Mode) -> Result<Tensor> {
        if self.late().is_some() {
            return Err(Error::SeveralVectors);
        }
        let skip = self.skipped(side)?;
        catch(
            "the encoder",
            "use smaller batches (`batch.tokens`), gradient caching, or shorter texts",
            || {
                let pairs = texts.iter().map(|e| (e.ids.as_slice(), e.type_ids.as_slice()));
                let batch = PackedTokens::new(pairs, self.device);
                let tower = self.tower(side);
                let mode = mode.with(tower.adapter.as_ref().map(|a| a.id));
                let states = tower.model.encoder.forward(&batch, mode);
                if let (Some(sparse), Some(head)) = (self.settings.sparse, &tower.model.mlm_head) {
                    return Ok(sparse.apply(head, &states, &batch.segments, mode));
                }
                let pooled = self.settings.pooling.apply(&states, &batch.segments, skip);
                let projected = match &tower.dense {
                    Some(dense) => dense.forward(&pooled),
                    None => pooled,
                };
                Ok(if self.settings.normalize { normalize(&projected) } else { projected })
            },
        )
    }

    /// The vectors that are compared by dot product, whatever the similarity: unit vectors under cosine.
    pub fn comparable(&self, embeddings: &Tensor) -> Tensor {
        if self.settings.similarity == Similarity::Cosine && !self.settings.normalize {
            normalize(embeddings)
        } else {
            embeddings.shallow_clone()
        }
    }
}

/// How texts of a side become ids.
struct How {
    side: Side,
    prompt: String,
    max_len: usize,
    late: Option<Late>,
}

impl How {
    fn tokenize(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Encoding>> {
        let room = self.late.as_ref().map_or(self.max_len, |l| l.room(self.side, self.max_len));
        let prefix = (!self.prompt.is_empty()).then_some(self.prompt.as_str());
        let options = EncodeOptions { max_len: Some(room), prefix, ..EncodeOptions::default() };
        let mut out = tokenizer.encode_batch(texts, &options)?;
        if let Some(late) = &self.late {
            out.iter_mut().for_each(|text| late.dress(self.side, self.max_len, text));
        }
        Ok(out)
    }
}
