//! Search over texts as weights of words, as a model gives them (SPLADE: Formal et al., 2021, arXiv 2107.05720): a text's
//! score is the inner product of its weights and the query's.
//!
//! The search is that of the lexical index (`impacts.rs`) over other impacts; nothing is left out or rounded, so the hits
//! are those of the dense product. Texts are kept as they came; when some come or go, the inverted index is made anew at
//! the next search.

mod file;
mod vectors;

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;

pub use vectors::SparseVectors;

use crate::impacts::postings::{Postings, Sorting};
use crate::impacts::search::{self, Scratch};
use crate::store::{Manifest, Reader, Writer};
use crate::{Error, Hit, IdMap, IndexKind, Result, SearchParams};
use file::Header;

/// An index over weights of words.
///
/// ```
/// use ragduet_index::{SearchParams, SparseIndex, SparseVectors};
///
/// let mut texts = SparseVectors::new(4);
/// texts.push_dense(&[0.0, 1.5, 0.0, 0.5])?;
/// texts.push_dense(&[2.0, 0.0, 0.0, 0.25])?;
/// let mut index = SparseIndex::new(4);
/// index.add(&texts)?;
/// let mut query = SparseVectors::new(4);
/// query.push_dense(&[0.0, 0.0, 0.0, 1.0])?;
/// let hits = index.search(&query, &SearchParams::top(1))?;
/// assert_eq!((hits[0][0].id, hits[0][0].score), (0, 0.5));
/// # Ok::<(), ragduet_index::Error>(())
/// ```
#[derive(Debug)]
pub struct SparseIndex {
    texts: SparseVectors,
    removed: Vec<bool>,
    /// Made by the first search behind a change.
    postings: OnceLock<Postings>,
}

impl SparseIndex {
    /// An empty index over `dim` words.
    pub fn new(dim: usize) -> Self {
        Self::of(SparseVectors::new(dim), Vec::new())
    }

    fn of(texts: SparseVectors, removed: Vec<bool>) -> Self {
        Self { texts, removed, postings: OnceLock::new() }
    }

    /// Opens a saved index.
    ///
    /// # Errors
    /// A directory that holds none; damaged files.
    pub fn open(dir: &Path) -> Result<Self> {
        let reader = Reader::<Header>::open(dir)?;
        if reader.manifest.kind != IndexKind::Sparse {
            let problem = format!("is a {} index, not a sparse one", reader.manifest.kind);
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        }
        let (texts, removed) = file::read(&reader)?;
        Ok(Self::of(texts, removed))
    }

    /// How many words there are.
    pub fn dim(&self) -> usize {
        self.texts.dim()
    }

    /// How many texts were added; their ids are `0..len`. Removed ones count.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether no text was added.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// How many texts there are that were not removed.
    pub fn live(&self) -> usize {
        self.removed.iter().filter(|removed| !**removed).count()
    }

    /// Bytes of the inverted index; the texts' own weights, of which it is made again when texts come or go, are as many
    /// again.
    pub fn bytes(&self) -> usize {
        self.postings().bytes()
    }

    /// The texts' weights.
    pub fn texts(&self) -> &SparseVectors {
        &self.texts
    }

    /// Appends texts and returns their ids: all are added or none.
    ///
    /// # Errors
    /// Weights of another number of words; more texts than an index holds.
    pub fn add(&mut self, texts: &SparseVectors) -> Result<Range<u32>> {
        let before = self.len();
        self.texts.append(texts)?;
        self.removed.resize(self.len(), false);
        self.postings.take();
        Ok(before as u32..self.len() as u32)
    }

    /// Removes texts: all or none. Their ids are not given again. Removing one twice changes nothing.
    ///
    /// # Errors
    /// An id that was never given.
    pub fn remove(&mut self, ids: &[u32]) -> Result<()> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.len()) {
            return Err(Error::NoSuchRow { id, len: self.len() });
        }
        self.postings.take();
        for &id in ids {
            self.removed[id as usize] = true;
        }
        Ok(())
    }

    /// The hits of each query, best first; equal scores are in ascending order of ids. Texts that share no word with a query
    /// do not come back, so there may be fewer hits than `k`. Queries are searched in parallel.
    ///
    /// # Errors
    /// Queries over another number of words.
    pub fn search(&self, queries: &SparseVectors, params: &SearchParams<'_>) -> Result<Vec<Vec<Hit>>> {
        if queries.dim() != self.dim() {
            return Err(Error::Dimension { expected: self.dim(), got: queries.dim() });
        }
        let postings = self.postings();
        let search = |scratch: &mut Scratch, row: usize| {
            let words: Vec<(u32, f32)> = queries.row(row).collect();
            search::search(postings, &words, params, scratch)
        };
        Ok((0..queries.len()).into_par_iter().map_init(Scratch::default, search).collect())
    }

    /// Writes the index as a directory, with external ids if there are any. An index that is there is replaced.
    ///
    /// # Errors
    /// Where it cannot be written; ids for other texts.
    pub fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let header = Header { dim: self.dim() };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::Sparse, self.len(), header))?;
        file::write(&self.texts, &self.removed, &mut writer)?;
        writer.ids(ids, self.len())?;
        writer.finish()
    }

    fn postings(&self) -> &Postings {
        self.postings.get_or_init(|| {
            let live = || (0..self.len()).filter(|&id| !self.removed[id]);
            let mut df = vec![0usize; self.dim()];
            live().for_each(|id| self.texts.row(id).for_each(|(word, _)| df[word as usize] += 1));
            let mut sorting = Sorting::new(df);
            for id in live() {
                self.texts.row(id).for_each(|(word, weight)| sorting.push(word as usize, id, weight));
            }
            sorting.finish(self.len(), live().count(), |_| 0.0)
        })
    }
}
