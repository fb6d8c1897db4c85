//! Lexical search: BM25 over an inverted index of terms.
//!
//! Whatever does not depend on the query is computed before it comes (`impacts/postings.rs`), so that a search only adds
//! numbers, and only those that can matter (`impacts/search.rs`). Texts are kept as terms and counts (`documents.rs`); when
//! some are added or removed, the frequencies of terms and the mean length change, and with them every number: they
//! are computed anew at the next search.
//!
//! Why not tantivy: its constants are fixed and its lengths are rounded. Impacts are computed at the first search after
//! a change; a search is MaxScore over windows of 4,096 ids, in one order of terms, so a score depends neither on `k`
//! nor on pruning. A window looks up single texts only where that is cheaper than adding a whole term. Files hold
//! counts, not scores.

mod analysis;
mod config;
mod documents;
mod file;
mod scoring;

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;

pub use analysis::Stemmer;
pub use config::{Bm25Variant, LexicalConfig, Stopwords, Words};

use analysis::Analyzer;
use documents::Documents;
use file::Header;

use crate::impacts::postings::Postings;
use crate::impacts::search::{self, Scratch};
use crate::store::{Manifest, Reader, Writer};
use crate::{Error, Hit, IdMap, IndexKind, Result, SearchParams};

/// A lexical index.
///
/// ```
/// use ragduet_index::{LexicalConfig, LexicalIndex, SearchParams};
///
/// let mut index = LexicalIndex::new(&LexicalConfig::default())?;
/// index.add(&["cats purr", "dogs bark", "a dog and a cat"])?;
/// let hits = index.search(&["Who is barking?"], &SearchParams::top(2))?;
/// assert_eq!(hits[0][0].id, 1);
/// # Ok::<(), ragduet_index::Error>(())
/// ```
#[derive(Debug)]
pub struct LexicalIndex {
    config: LexicalConfig,
    documents: Documents,
    /// Made by the first search behind a change.
    postings: OnceLock<Postings>,
}

impl LexicalIndex {
    /// An empty index.
    pub fn new(config: &LexicalConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self::of(config.clone(), Documents::default()))
    }

    fn of(config: LexicalConfig, documents: Documents) -> Self {
        Self { config, documents, postings: OnceLock::new() }
    }

    /// Opens a saved index.
    pub fn open(dir: &Path) -> Result<Self> {
        let reader = Reader::<Header>::open(dir)?;
        let documents = file::read(&reader)?;
        let config = reader.manifest.header.requested;
        config.validate()?;
        Ok(Self::of(config, documents))
    }

    /// Its settings.
    pub fn config(&self) -> &LexicalConfig {
        &self.config
    }

    /// How many texts were added; their ids are `0..len`. Removed ones count.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Bytes of the postings; the texts' own terms, of which they are made again when texts come or go, are as many again.
    pub fn bytes(&self) -> usize {
        self.postings().bytes()
    }

    /// Whether no text was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many texts there are that were not removed.
    pub fn live(&self) -> usize {
        self.documents.removed.iter().filter(|removed| !**removed).count()
    }

    /// Appends texts and returns their ids: all are added or none. Texts are analysed in parallel. The search that
    /// follows computes all scores anew, so add many at a time.
    pub fn add<S: AsRef<str> + Sync>(&mut self, texts: &[S]) -> Result<Range<u32>> {
        self.postings.take();
        self.documents.add(&Analyzer::new(&self.config), texts)
    }

    /// Removes texts: all or none. Their ids are not given again, and scores are from now on as if they had never been
    /// added. Removing one twice changes nothing.
    pub fn remove(&mut self, ids: &[u32]) -> Result<()> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.len()) {
            return Err(Error::NoSuchRow { id, len: self.len() });
        }
        self.postings.take();
        for &id in ids {
            self.documents.removed[id as usize] = true;
        }
        Ok(())
    }

    /// The hits of each query, best first; equal scores are in ascending order of ids. Texts that share no term with a
    /// query do not come back, nor do those that share only terms which the variant gives no weight, so there may be
    /// fewer hits than `k`. A term that a query has twice counts twice. Queries are searched in parallel.
    pub fn search<S: AsRef<str> + Sync>(
        &self,
        queries: &[S],
        params: &SearchParams<'_>,
    ) -> Result<Vec<Vec<Hit>>> {
        let (analyzer, postings) = (Analyzer::new(&self.config), self.postings());
        let search = |scratch: &mut Scratch, query: &S| {
            let terms: Vec<(u32, f32)> = (self.terms(&analyzer, query.as_ref()).into_iter())
                .map(|(term, count)| (term, count as f32))
                .collect();
            search::search(postings, &terms, params, scratch)
        };
        Ok(queries.par_iter().map_init(Scratch::default, search).collect())
    }

    /// What each distinct term of a query adds to the score of a text, in the order of the query. The sum is the score;
    /// terms that no text has are left out.
    pub fn explain(&self, query: &str, id: u32) -> Result<Vec<(String, f64)>> {
        if id as usize >= self.len() {
            return Err(Error::NoSuchRow { id, len: self.len() });
        }
        let postings = self.postings();
        let terms = self.terms(&Analyzer::new(&self.config), query);
        let part = |(term, count): (u32, u32)| {
            let posting = postings.of_term(term);
            let impact = posting.texts.binary_search(&id).map_or(0.0, |at| f64::from(posting.impacts[at]));
            let name = self.documents.vocabulary.id(term).unwrap_or_default().to_owned();
            (name, f64::from(count) * (posting.absent + impact))
        };
        Ok(terms.into_iter().map(part).collect())
    }

    /// Writes the index as a directory, with external ids if there are any. An index that is there is replaced.
    pub fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let header = Header { requested: self.config.clone() };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::Lexical, self.len(), header))?;
        file::write(&self.documents, &mut writer)?;
        writer.ids(ids, self.len())?;
        writer.finish()
    }

    /// Writes the index as a directory. An index that is there is replaced.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_with_ids(dir, None)
    }

    fn postings(&self) -> &Postings {
        self.postings.get_or_init(|| scoring::postings(&self.config, &self.documents))
    }

    /// The distinct terms of a query that the index knows, and how often the query has them.
    fn terms(&self, analyzer: &Analyzer<'_>, query: &str) -> Vec<(u32, u32)> {
        let mut terms: Vec<(u32, u32)> = Vec::new();
        analyzer.terms(query, |term| {
            let Some(term) = self.documents.vocabulary.row(term) else { return };
            match terms.iter_mut().find(|(other, _)| *other == term) {
                Some((_, count)) => *count += 1,
                None => terms.push((term, 1)),
            }
        });
        terms
    }
}
