//! An index over what a model makes of texts. Its kind follows from the model's representation.

use crate::biencoder::BiEncoder;
use crate::encode::{
    EncodeProgress, EncodeSettings, TokenVectors, encode_sparse, encode_stream, encode_texts,
};
use crate::representation::{Representation, Side};
use crate::{Error, Result};
use ragduet_index::{
    Hit, IdMap, IndexConfig, IndexKind, MultiSearchParams, MultiVectorConfig, MultiVectorIndex, MultiVectors,
    OpenOptions, SearchParams, SparseIndex, VectorIndex, Vectors, build, build_multi_vector, kind, open,
    open_multi_vector,
};
use std::path::Path;

/// An index for each kind of representation.
pub enum ModelIndex {
    /// One vector a text.
    Dense(Box<dyn VectorIndex>),
    /// One vector a token.
    LateInteraction(Box<dyn MultiVectorIndex>),
    /// Weights of words.
    Sparse(Box<SparseIndex>),
}

impl ModelIndex {
    /// Encodes passages and indexes them: as `single` says where there is one vector a text, as `many` for token vectors.
    ///
    /// # Errors
    /// The stream's, the encoder's, the index's.
    pub fn build(
        model: &BiEncoder,
        passages: impl Iterator<Item = Result<String>> + Send,
        single: &IndexConfig,
        many: &MultiVectorConfig,
        encode: &EncodeSettings,
        progress: EncodeProgress<'_>,
    ) -> Result<Self> {
        let dim = model.dim() as usize;
        Ok(match model.representation() {
            Representation::Dense(_) => {
                let mut index = build(single, model.similarity().into(), dim)?;
                let mut all = Vec::new();
                encode_stream(model, Side::Passage, passages, encode, progress, |rows| {
                    all.extend_from_slice(rows);
                    Ok(())
                })?;
                index.add(Vectors::new(&all, dim)?)?;
                Self::Dense(index)
            }
            Representation::LateInteraction(_) => {
                let vectors = TokenVectors::stream(model, Side::Passage, passages, encode, progress)?;
                let offsets = vectors.offsets();
                let vectors = MultiVectors::new(&vectors.rows, &offsets, dim)?;
                Self::LateInteraction(build_multi_vector(many, vectors)?)
            }
            Representation::Sparse(_) => {
                let mut index = SparseIndex::new(dim);
                index.add(&encode_sparse(model, Side::Passage, passages, encode, progress)?)?;
                Self::Sparse(Box::new(index))
            }
        })
    }

    /// Reads a saved index.
    ///
    /// # Errors
    /// A folder that holds none, or one over words (BM25), which no model made; damaged files.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(match kind(dir)? {
            IndexKind::Exact | IndexKind::Hnsw | IndexKind::Compressed => Self::Dense(open(dir)?),
            IndexKind::MultiVector => Self::LateInteraction(open_multi_vector(dir, &OpenOptions::default())?),
            IndexKind::Sparse => Self::Sparse(Box::new(SparseIndex::open(dir)?)),
            IndexKind::Lexical => {
                let why = "an index over words (BM25), which no model made";
                return Err(Error::Unusable(format!("{}: {why}", dir.display())));
            }
        })
    }

    /// Writes the index as a folder, with the names of its rows. An index that is there is replaced.
    ///
    /// # Errors
    /// A folder that is something else, or cannot be written; names for other rows.
    pub fn save(&self, dir: &Path, ids: &IdMap) -> Result<()> {
        match self {
            Self::Dense(index) => index.save_with_ids(dir, Some(ids))?,
            Self::LateInteraction(index) => index.save_with_ids(dir, Some(ids))?,
            Self::Sparse(index) => index.save_with_ids(dir, Some(ids))?,
        }
        Ok(())
    }

    /// Whether the index can hold what a model makes of texts.
    ///
    /// # Errors
    /// Another kind of index, or one over vectors of another size.
    pub fn check(&self, model: &BiEncoder) -> Result<()> {
        let right_kind = match (model.representation(), self) {
            (Representation::Dense(_), Self::Dense(_))
            | (Representation::LateInteraction(_), Self::LateInteraction(_))
            | (Representation::Sparse(_), Self::Sparse(_)) => true,
            (
                Representation::Dense(_) | Representation::LateInteraction(_) | Representation::Sparse(_),
                _,
            ) => false,
        };
        if !right_kind {
            return Err(Error::Unusable(
                "late interaction goes with a multi-vector index, a sparse model with a sparse one, one vector a text with \
                 the others"
                    .into(),
            ));
        }
        let (numbers, held) = (model.dim(), self.dim());
        if numbers as usize != held {
            return Err(Error::Unusable(format!(
                "the model gives {numbers} numbers per vector but the index holds {held}: it was built with another model"
            )));
        }
        Ok(())
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        match self {
            Self::Dense(index) => index.dim(),
            Self::LateInteraction(index) => index.dim(),
            Self::Sparse(index) => index.dim(),
        }
    }

    /// Passages, removed ones included.
    pub fn len(&self) -> usize {
        match self {
            Self::Dense(index) => index.len(),
            Self::LateInteraction(index) => index.len(),
            Self::Sparse(index) => index.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it keeps for a passage.
    pub fn bytes_per_passage(&self) -> f64 {
        match self {
            Self::Dense(index) => index.bytes() as f64 / index.len().max(1) as f64,
            Self::LateInteraction(index) => index.bytes_per_passage(),
            Self::Sparse(index) => index.bytes() as f64 / index.live().max(1) as f64,
        }
    }

    /// The best passages of each question, encoded by the model that [`ModelIndex::check`] accepts.
    ///
    /// # Errors
    /// The encoder's, the index's.
    pub fn search(
        &self,
        model: &BiEncoder,
        questions: &[String],
        params: &SearchParams<'_>,
        encode: &EncodeSettings,
    ) -> Result<Vec<Vec<Hit>>> {
        Ok(match self {
            Self::Dense(index) => {
                let queries = encode_texts(model, Side::Query, questions, encode, &mut |_, _| ())?;
                index.search(Vectors::new(&queries, index.dim())?, params)?
            }
            Self::LateInteraction(index) => {
                let queries = TokenVectors::encode(model, Side::Query, questions, encode, &mut |_, _| ())?;
                let offsets = queries.offsets();
                let queries = MultiVectors::new(&queries.rows, &offsets, index.dim())?;
                index.search(queries, &MultiSearchParams::top(params.k))?
            }
            Self::Sparse(index) => {
                let texts = questions.iter().map(|t| Ok(t.clone()));
                let queries = encode_sparse(model, Side::Query, texts, encode, &mut |_, _| ())?;
                index.search(&queries, params)?
            }
        })
    }
}
