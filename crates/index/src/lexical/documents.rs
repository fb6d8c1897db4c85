//! What texts consist of: for each its distinct terms and how often they occur. All that has to be kept; everything
//! that a search needs is computed from it.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::analysis::Analyzer;
use crate::rows::MAX_ROWS;
use crate::{Error, IdMap, Result};

/// Texts whose terms are counted together by one thread.
const BATCH: usize = 512;

/// The texts of an index. *Invariant:* the terms of a text are distinct, ascending, and known to `vocabulary`.
#[derive(Debug, Clone, Default)]
pub(super) struct Documents {
    pub(super) vocabulary: IdMap,
    /// Where each text's terms end.
    pub(super) ends: Vec<usize>,
    pub(super) terms: Vec<u32>,
    /// How often each of `terms` occurs.
    pub(super) counts: Vec<u32>,
    pub(super) removed: Vec<bool>,
}

impl Documents {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn postings(&self, id: usize) -> Range<usize> {
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        start..self.ends[id]
    }

    /// The terms of a text and how often they occur.
    pub(super) fn terms_of(&self, id: usize) -> impl Iterator<Item = (u32, u32)> {
        let range = self.postings(id);
        self.terms[range.clone()].iter().copied().zip(self.counts[range].iter().copied())
    }

    /// The number of terms in a text, with repetitions.
    pub(super) fn length_of(&self, id: usize) -> f64 {
        self.counts[self.postings(id)].iter().map(|&count| f64::from(count)).sum()
    }

    /// Appends texts and returns their ids. Either all are added or none.
    pub(super) fn add<S: AsRef<str> + Sync>(
        &mut self,
        analyzer: &Analyzer<'_>,
        texts: &[S],
    ) -> Result<Range<u32>> {
        let first = self.len();
        let rows = first + texts.len();
        if rows > MAX_ROWS {
            return Err(Error::TooManyRows { rows, limit: MAX_ROWS });
        }
        let batches: Vec<Batch> =
            texts.par_chunks(BATCH).map(|texts| Batch::new(analyzer, texts)).collect::<Result<_>>()?;
        // Terms get their ids in the order in which they are first met, however texts are cut into batches.
        let mut ids_of_batches = Vec::with_capacity(batches.len());
        for batch in &batches {
            let id = |term| self.vocabulary.row(term).map_or_else(|| self.vocabulary.push(term), Ok);
            ids_of_batches.push(batch.vocabulary.iter().map(id).collect::<Result<Vec<u32>>>()?);
        }
        // Nothing can fail from here on.
        let mut of_text: Vec<(u32, u32)> = Vec::new();
        for (batch, ids) in batches.iter().zip(&ids_of_batches) {
            let mut start = 0;
            for &end in &batch.ends {
                of_text.clear();
                of_text
                    .extend(batch.terms[start..end].iter().map(|&(term, count)| (ids[term as usize], count)));
                of_text.sort_unstable();
                self.terms.extend(of_text.iter().map(|(term, _)| term));
                self.counts.extend(of_text.iter().map(|(_, count)| count));
                self.ends.push(self.terms.len());
                self.removed.push(false);
                start = end;
            }
        }
        Ok(first as u32..rows as u32)
    }
}

/// Texts with terms numbered among themselves.
struct Batch {
    vocabulary: IdMap,
    /// Where each text's terms end.
    ends: Vec<usize>,
    /// The distinct terms of each text and how often they occur.
    terms: Vec<(u32, u32)>,
}

impl Batch {
    fn new<S: AsRef<str>>(analyzer: &Analyzer<'_>, texts: &[S]) -> Result<Self> {
        let mut batch = Self { vocabulary: IdMap::new(), ends: Vec::new(), terms: Vec::new() };
        // What words become is looked up rather than computed again: words recur, and stemming is most of the work.
        let mut known: HashMap<&str, Option<u32>> = HashMap::new();
        let mut words = Vec::new();
        let mut counts: Vec<u32> = Vec::new();
        for text in texts {
            words.clear();
            analyzer.words(text.as_ref(), |word| words.push(word));
            let start = batch.terms.len();
            for &word in &words {
                let term = match known.get(word) {
                    Some(&term) => term,
                    None => {
                        let term = match analyzer.term(word) {
                            None => None,
                            Some(term) => Some(match batch.vocabulary.row(&term) {
                                Some(id) => id,
                                None => batch.vocabulary.push(&term)?,
                            }),
                        };
                        known.insert(word, term);
                        term
                    }
                };
                let Some(term) = term else { continue };
                counts.resize(batch.vocabulary.len(), 0);
                if counts[term as usize] == 0 {
                    batch.terms.push((term, 0));
                }
                counts[term as usize] += 1;
            }
            for (term, count) in &mut batch.terms[start..] {
                *count = std::mem::take(&mut counts[*term as usize]);
            }
            batch.ends.push(batch.terms.len());
        }
        Ok(batch)
    }
}
