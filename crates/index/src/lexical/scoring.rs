//! The formulas of BM25: what one term of a query adds to the score of one text.
//!
//! With N texts, of which df have the term, tf occurrences in a text of l terms, and a mean length of avg:
//!
//! | variant | idf | tf's part, with n = 1 − b + b · l / avg |
//! |---|---|---|
//! | lucene | ln(1 + (N − df + ½) / (df + ½)) | tf / (tf + k1 n) |
//! | robertson | max(0, ln((N − df + ½) / (df + ½))) | tf / (tf + k1 n) |
//! | atire | ln(N / df) | (k1 + 1) tf / (tf + k1 n) |
//! | bm25l | ln((N + 1) / (df + ½)) | (k1 + 1) (c + δ) / (k1 + c + δ), c = tf / n |
//! | bm25plus | ln((N + 1) / df) | (k1 + 1) tf / (tf + k1 n) + δ |
//!
//! In the last two a text *without* the term has a part as well, that of tf = 0. It is the same for all texts, so an
//! impact is what a text with the term has beyond it, and a search adds it once. (Kamphuis et al., ECIR 2020; Lù,
//! "BM25S", 2024.) Lucene itself rounds lengths to one byte; these are exact.

use rayon::prelude::*;

use super::config::{Bm25Variant, LexicalConfig};
use super::documents::Documents;
use crate::impacts::postings::{Postings, Sorting};

/// The impacts of all terms.
pub(super) fn postings(config: &LexicalConfig, documents: &Documents) -> Postings {
    let live_ids = || (0..documents.len()).filter(|&id| !documents.removed[id]);
    let live = live_ids().count();
    let lengths: Vec<f64> = (0..documents.len()).into_par_iter().map(|id| documents.length_of(id)).collect();
    let total: f64 = live_ids().map(|id| lengths[id]).sum();
    let scorer = Scorer::new(config, live, total / live.max(1) as f64);

    let mut df = vec![0usize; documents.vocabulary.len()];
    for id in live_ids() {
        documents.terms_of(id).for_each(|(term, _)| df[term as usize] += 1);
    }
    // A term that tells nothing has no impacts.
    let idf: Vec<f64> = df.iter().map(|&df| if df == 0 { 0.0 } else { scorer.idf(df) }).collect();
    df.iter_mut().zip(&idf).filter(|(_, idf)| **idf <= 0.0).for_each(|(df, _)| *df = 0);

    let mut sorting = Sorting::new(df);
    for id in live_ids() {
        let norm = scorer.norm(lengths[id]);
        for (term, count) in documents.terms_of(id) {
            let idf = idf[term as usize];
            if idf > 0.0 {
                sorting.push(term as usize, id, (idf * scorer.gain(f64::from(count), norm)) as f32);
            }
        }
    }
    sorting.finish(documents.len(), live, |term| idf[term].max(0.0) * scorer.absent())
}

/// The formulas of one variant over one corpus.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scorer {
    variant: Bm25Variant,
    k1: f64,
    b: f64,
    delta: f64,
    texts: f64,
    mean_length: f64,
}

impl Scorer {
    pub(super) fn new(config: &LexicalConfig, texts: usize, mean_length: f64) -> Self {
        let &LexicalConfig { variant, k1, b, delta, .. } = config;
        Self { variant, k1, b, delta, texts: texts as f64, mean_length }
    }

    /// How much a term tells that `df` texts have, at least one.
    pub(super) fn idf(&self, df: usize) -> f64 {
        let (texts, df) = (self.texts, df as f64);
        match self.variant {
            Bm25Variant::Lucene => (1.0 + (texts - df + 0.5) / (df + 0.5)).ln(),
            Bm25Variant::Robertson => ((texts - df + 0.5) / (df + 0.5)).ln().max(0.0),
            Bm25Variant::Atire => (texts / df).ln(),
            Bm25Variant::Bm25l => ((texts + 1.0) / (df + 0.5)).ln(),
            Bm25Variant::Bm25plus => ((texts + 1.0) / df).ln(),
        }
    }

    /// The n of the formulas, for a text of this length.
    pub(super) fn norm(&self, length: f64) -> f64 {
        1.0 - self.b + self.b * length / self.mean_length
    }

    /// tf's part beyond that of a text without the term. Never negative.
    pub(super) fn gain(&self, tf: f64, norm: f64) -> f64 {
        let saturated = tf / (tf + self.k1 * norm);
        match self.variant {
            Bm25Variant::Lucene | Bm25Variant::Robertson => saturated,
            Bm25Variant::Atire | Bm25Variant::Bm25plus => (self.k1 + 1.0) * saturated,
            Bm25Variant::Bm25l => (self.bm25l(tf / norm) - self.absent()).max(0.0),
        }
    }

    /// tf's part for a text without the term.
    pub(super) fn absent(&self) -> f64 {
        match self.variant {
            Bm25Variant::Lucene | Bm25Variant::Robertson | Bm25Variant::Atire => 0.0,
            Bm25Variant::Bm25l => self.bm25l(0.0),
            Bm25Variant::Bm25plus => self.delta,
        }
    }

    fn bm25l(&self, c: f64) -> f64 {
        let shifted = c + self.delta;
        // 0 / 0 where k1 and δ are 0.
        if shifted == 0.0 { 0.0 } else { (self.k1 + 1.0) * shifted / (self.k1 + shifted) }
    }
}
