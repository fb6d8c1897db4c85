//! Index of the corpus by the passage encoder of some step; saved, so that a resumed run searches the same.

use crate::corpus::Corpus;
use crate::{Error, Result};
use ragduet_index::{Hit, IdMap, IndexConfig, SearchParams, VectorIndexMut, Vectors};
use ragduet_retriever::{BiEncoder, EncodeSettings, Side, encode_texts};
use std::path::Path;

/// Index of the corpus.
pub struct RefreshedIndex {
    index: Box<dyn VectorIndexMut>,
    /// The step whose passage encoder it was made with.
    pub step: u64,
}

impl std::fmt::Debug for RefreshedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RefreshedIndex({:?}, {} rows, step {})", self.index.kind(), self.index.len(), self.step)
    }
}

impl RefreshedIndex {
    /// Without rows, for `model`'s embeddings.
    ///
    /// # Errors
    /// Settings of the index that cannot be.
    pub fn empty(model: &BiEncoder, config: &IndexConfig) -> Result<Self> {
        // Encoded texts are comparable by dot product, whatever the model's similarity.
        let dot = ragduet_index::Similarity::Dot;
        Ok(Self { index: ragduet_index::build(config, dot, model.dim() as usize)?, step: 0 })
    }

    /// Encodes all texts with the passage encoder as it is.
    ///
    /// # Errors
    /// Those of the encoder; settings of the index that cannot be.
    pub fn build(
        model: &BiEncoder,
        texts: &[String],
        config: &IndexConfig,
        encode: &EncodeSettings,
        step: u64,
    ) -> Result<Self> {
        let rows = encode_texts(model, Side::Passage, texts, encode, &mut |_, _| ())?;
        let mut made = Self { step, ..Self::empty(model, config)? };
        made.index.add(Vectors::new(&rows, model.dim() as usize)?)?;
        Ok(made)
    }

    /// The `k` best rows of each query ([n * dim], comparable by dot product), best first.
    pub fn search(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Hit>>> {
        Ok(self.index.search(Vectors::new(queries, self.index.dim())?, &SearchParams::top(k))?)
    }

    /// A row's embedding.
    pub fn row(&self, row: u32) -> Result<Vec<f32>> {
        Ok(self.index.row(row)?)
    }

    /// Whether the index is of this corpus and this model.
    ///
    /// # Errors
    /// Where it is not, what differs.
    pub fn check(&self, model: &BiEncoder, corpus: &Corpus) -> Result<()> {
        if self.index.dim() as i64 != model.dim() {
            return Err(Error::Unusable(format!(
                "the retriever gives {} numbers per text but the index holds {}",
                model.dim(),
                self.index.dim()
            )));
        }
        if self.index.len() != corpus.len() {
            return Err(Error::Unusable(format!(
                "the index has {} passages and the corpus {}: it has changed since",
                self.index.len(),
                corpus.len()
            )));
        }
        Ok(())
    }

    /// Writes the index, passages by name.
    pub fn save(&self, dir: &Path, corpus: &Corpus) -> Result<()> {
        Ok(self.index.save_with_ids(dir, Some(&IdMap::from_ids(corpus.ids())?))?)
    }

    /// Reads an index again.
    pub fn open(dir: &Path, step: u64) -> Result<Self> {
        Ok(Self { index: ragduet_index::open(dir)?, step })
    }
}
