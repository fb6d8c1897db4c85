//! Texts to embeddings.

use crate::options::{folder, loading};
use crate::{Error, LoadOptions, Result};
use ragduet_retriever::recipe::build_model;
use ragduet_retriever::recipe::config::ModelConfig;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{
    BiEncoder, EncodeSettings, Representation, ScratchModel, Side, TokenVectors, encode_sparse, encode_texts,
};
use ragduet_torch::rng;
use ragduet_train::checkpoint::new_dir;
use std::path::Path;

/// A model that finds passages: dense (one vector per text), late interaction (one vector per token) or sparse (one weight
/// per vocabulary term).
///
/// All three are searched through an [`Index`](crate::Index). Embeddings of dense models come from [`Retriever::encode`].
///
/// ```no_run
/// use ragduet::Retriever;
///
/// let retriever = Retriever::load("sentence-transformers/all-MiniLM-L6-v2")?;
/// let queries = retriever.encode_queries(&["what causes tides?"])?;
/// let passages = retriever.encode_passages(&["The moon causes tides.", "Bees make honey."])?;
/// assert_eq!((passages.len(), passages.dim()), (2, 384));
/// let scores = queries.scores(&passages);   // [queries][passages]
/// assert!(scores[0][0] > scores[0][1]);
/// # Ok::<(), ragduet::Error>(())
/// ```
#[derive(Debug)]
pub struct Retriever {
    model: BiEncoder,
    /// The folder or id that it was loaded from.
    name: Option<String>,
    encode: EncodeSettings,
}

impl Retriever {
    /// Loads a sentence-transformers or PyLate folder (`best` of a training run is one), or a model of the Hugging Face hub
    /// (`org/name` or `org/name@revision`), on the device and in the precision that are fastest here.
    ///
    /// # Errors
    /// No such folder or model; one with parts that are not supported; a plain encoder, which does not say how it pools.
    pub fn load(id: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(id, &LoadOptions::default())
    }

    /// [`Retriever::load`] on a device and in a precision of choice.
    ///
    /// # Errors
    /// As there; a device that is not there.
    pub fn load_with(id: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Self::open(id.as_ref(), options, Overrides::default())
    }

    pub(crate) fn open(id: &Path, options: &LoadOptions, overrides: Overrides) -> Result<Self> {
        loading("retriever", id, || {
            let (device, compute) = options.resolve()?;
            let overrides = Overrides { bits: options.quantize.bits(), ..overrides };
            let model = st_dir::load(&folder(id)?, device, compute, &overrides)?;
            Ok(Self { name: Some(id.display().to_string()), ..Self::from(model) })
        })
    }

    /// A new dense model with random weights; its tokenizer is trained on `texts`. Queries are cut to 64 tokens, passages to
    /// 256. For training from nothing, and for trying things out.
    ///
    /// # Errors
    /// A size that cannot be, texts without words.
    pub fn from_scratch(size: &ScratchModel, texts: &[impl AsRef<str>], seed: u64) -> Result<Self> {
        let most = |tokens: i64| Some(size.max_positions.clamp(0, tokens) as usize);
        let config = ModelConfig {
            scratch: Some(size.clone()),
            max_query_tokens: most(64),
            max_passage_tokens: most(256),
            ..ModelConfig::default()
        };
        config.check()?;
        rng::seed(seed);
        let (device, compute) = LoadOptions::default().resolve()?;
        Ok(Self::from(build_model(&config, None, compute, device, || owned(texts))?))
    }

    /// Embeddings of passages: [`Retriever::encode_passages`].
    ///
    /// # Errors
    /// As there.
    pub fn encode(&self, texts: &[impl AsRef<str>]) -> Result<Embeddings> {
        self.encode_passages(texts)
    }

    /// Embeddings [texts, dim] of queries, with the model's query prompt and length limit in tokens.
    ///
    /// # Errors
    /// A model that is not dense; memory that runs out.
    pub fn encode_queries(&self, texts: &[impl AsRef<str>]) -> Result<Embeddings> {
        self.embed(Side::Query, texts)
    }

    /// Embeddings [texts, dim] of passages, with the model's passage prompt and length limit in tokens.
    ///
    /// # Errors
    /// A model that is not dense; memory that runs out.
    pub fn encode_passages(&self, texts: &[impl AsRef<str>]) -> Result<Embeddings> {
        self.embed(Side::Passage, texts)
    }

    fn embed(&self, side: Side, texts: &[impl AsRef<str>]) -> Result<Embeddings> {
        match self.model.representation() {
            Representation::Dense(_) => {}
            Representation::LateInteraction(_) => return Err(self.other("encode_tokens")),
            Representation::Sparse(_) => return Err(self.other("encode_terms")),
        }
        let values = encode_texts(&self.model, side, &owned(texts), &self.encode, &mut |_, _| ())?;
        Ok(Embeddings { values, dim: self.dim() })
    }

    /// Late interaction: the token vectors [tokens, dim] of each text, unit vectors that MaxSim compares.
    ///
    /// # Errors
    /// A model of another kind; memory that runs out.
    pub fn encode_tokens(&self, side: Side, texts: &[impl AsRef<str>]) -> Result<Vec<Embeddings>> {
        match self.model.representation() {
            Representation::LateInteraction(_) => {}
            Representation::Dense(_) => return Err(self.other("encode_queries or encode_passages")),
            Representation::Sparse(_) => return Err(self.other("encode_terms")),
        }
        let all = TokenVectors::encode(&self.model, side, &owned(texts), &self.encode, &mut |_, _| ())?;
        let dim = self.dim();
        let mut rest = all.rows.as_slice();
        let of_text = |&count: &usize| {
            let (own, others) = rest.split_at(count * dim);
            rest = others;
            Embeddings { values: own.to_vec(), dim }
        };
        Ok(all.counts.iter().map(of_text).collect())
    }

    /// Sparse retrieval: the vocabulary terms of each text whose weight is above 0, heaviest first.
    ///
    /// # Errors
    /// A model of another kind; memory that runs out.
    pub fn encode_terms(&self, side: Side, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<(String, f32)>>> {
        match self.model.representation() {
            Representation::Sparse(_) => {}
            Representation::Dense(_) => return Err(self.other("encode_queries or encode_passages")),
            Representation::LateInteraction(_) => return Err(self.other("encode_tokens")),
        }
        let texts = owned(texts).into_iter().map(Ok);
        let all = encode_sparse(&self.model, side, texts, &self.encode, &mut |_, _| ())?;
        let terms = |row: usize| {
            let mut terms: Vec<(u32, f32)> = all.row(row).collect();
            terms.sort_by(|a, b| b.1.total_cmp(&a.1));
            let tokenizer = &self.model.tokenizer;
            let word = |id: u32| tokenizer.id_to_token(id).unwrap_or_else(|| format!("[{id}]"));
            terms.into_iter().map(|(id, weight)| (word(id), weight)).collect()
        };
        Ok((0..all.len()).map(terms).collect())
    }

    fn other(&self, method: &str) -> Error {
        Error::Argument(format!(
            "the model is a {} retriever: take {method}, or search through an Index",
            self.model.representation().name()
        ))
    }

    /// Dimensions of a vector; of a sparse model the size of the vocabulary.
    pub fn dim(&self) -> usize {
        self.model.dim() as usize
    }

    /// The tokens of a forward pass (8192 if not set): fewer take less memory.
    pub fn set_batch_tokens(&mut self, tokens: u64) {
        self.encode.batch_tokens = tokens;
    }

    /// Writes the model as a sentence-transformers folder (late interaction as PyLate's).
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        new_dir(dir.as_ref(), |dir| Ok(st_dir::save(&self.model, dir)?))
    }

    /// The model itself, for what `ragduet-retriever` can do beyond this.
    pub fn model(&self) -> &BiEncoder {
        &self.model
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn settings(&self) -> &EncodeSettings {
        &self.encode
    }
}

/// A model that `ragduet-retriever` loaded or trained.
impl From<BiEncoder> for Retriever {
    fn from(model: BiEncoder) -> Self {
        Self { model, name: None, encode: EncodeSettings::default() }
    }
}

pub(crate) fn owned(texts: &[impl AsRef<str>]) -> Vec<String> {
    texts.iter().map(|t| t.as_ref().to_string()).collect()
}

/// Vectors [rows, dim] in f32. Their dot product is the model's similarity: vectors have unit length under cosine.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    values: Vec<f32>,
    dim: usize,
}

impl Embeddings {
    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// A vector.
    ///
    /// # Panics
    /// Without such a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// The vectors in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// All numbers, row after row.
    pub fn into_vec(self) -> Vec<f32> {
        self.values
    }

    /// The similarities of all vectors with all others: `scores[own row][other row]`.
    ///
    /// # Panics
    /// With vectors of other dimensions.
    pub fn scores(&self, others: &Self) -> Vec<Vec<f32>> {
        assert_eq!(self.dim, others.dim, "vectors of different models");
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum();
        self.rows().map(|a| others.rows().map(|b| dot(a, b)).collect()).collect()
    }
}
