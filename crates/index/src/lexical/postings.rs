//! What a search reads: for each term the texts that have it, ascending, and what it adds to their scores (Lù, "BM25S",
//! 2024: scores are computed when texts come in, not when they are asked for).
//!
//! Texts are cut into windows of [`WINDOW`] ids. A term with many texts knows for each window where it begins and its
//! greatest impact there, so that a search can leave out windows that cannot hold a hit.

use rayon::prelude::*;

use super::config::LexicalConfig;
use super::documents::Documents;
use super::scoring::Scorer;

/// Ids per window: the scores of one, as `f32`, take half of a first-level cache.
pub(super) const WINDOW: usize = 4096;

/// A term with fewer texts per window than this has no windows of its own: it is short enough to be walked.
const TEXTS_PER_WINDOW: usize = 4;

/// One window of one term.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stretch {
    /// Where the window begins among the term's texts.
    pub(super) start: u32,
    /// The greatest impact in it; 0 where it holds no text.
    pub(super) bound: f32,
}

/// What one term adds to which texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Posting<'a> {
    pub(super) texts: &'a [u32],
    pub(super) impacts: &'a [f32],
    /// The greatest impact.
    pub(super) bound: f32,
    /// The term's windows, if it has enough texts for that, and one more to end the last.
    pub(super) stretches: Option<&'a [Stretch]>,
    /// What the term adds to every text, also to those that do not have it.
    pub(super) absent: f64,
}

/// All terms' impacts.
#[derive(Debug)]
pub(super) struct Postings {
    /// Where each term's texts end.
    ends: Vec<usize>,
    texts: Vec<u32>,
    impacts: Vec<f32>,
    terms: Vec<Term>,
    pub(super) live: usize,
}

#[derive(Debug, Clone, Default)]
struct Term {
    bound: f32,
    absent: f64,
    stretches: Option<Box<[Stretch]>>,
}

impl Postings {
    pub(super) fn new(config: &LexicalConfig, documents: &Documents) -> Self {
        let live_ids = || (0..documents.len()).filter(|&id| !documents.removed[id]);
        let live = live_ids().count();
        let lengths: Vec<f64> =
            (0..documents.len()).into_par_iter().map(|id| documents.length_of(id)).collect();
        let total: f64 = live_ids().map(|id| lengths[id]).sum();
        let scorer = Scorer::new(config, live, total / live.max(1) as f64);

        let mut df = vec![0usize; documents.vocabulary.len()];
        for id in live_ids() {
            documents.terms_of(id).for_each(|(term, _)| df[term as usize] += 1);
        }
        // A term that tells nothing has no impacts.
        let idf: Vec<f64> = df.iter().map(|&df| if df == 0 { 0.0 } else { scorer.idf(df) }).collect();
        df.iter_mut().zip(&idf).filter(|(_, idf)| **idf <= 0.0).for_each(|(df, _)| *df = 0);

        // A counting sort of (text, term) by term; texts are visited in ascending order and so stay.
        let mut next = Vec::with_capacity(df.len());
        let mut size = 0;
        for df in &df {
            next.push(size);
            size += df;
        }
        let (mut texts, mut impacts) = (vec![0u32; size], vec![0f32; size]);
        for id in live_ids() {
            let norm = scorer.norm(lengths[id]);
            for (term, count) in documents.terms_of(id) {
                let term = term as usize;
                if idf[term] > 0.0 {
                    texts[next[term]] = id as u32;
                    impacts[next[term]] = (idf[term] * scorer.gain(f64::from(count), norm)) as f32;
                    next[term] += 1;
                }
            }
        }
        let ends = next;
        let windows = documents.len().div_ceil(WINDOW);
        let terms = (df.par_iter().zip(&ends).zip(&idf))
            .map(|((df, end), idf)| {
                let range = end - df..*end;
                let impacts = &impacts[range.clone()];
                Term {
                    bound: impacts.iter().copied().fold(0.0, f32::max),
                    absent: idf.max(0.0) * scorer.absent(),
                    stretches: (*df > windows * TEXTS_PER_WINDOW)
                        .then(|| stretches(&texts[range], impacts, windows)),
                }
            })
            .collect();
        Self { ends, texts, impacts, terms, live }
    }

    pub(super) fn bytes(&self) -> usize {
        self.ends.len() * size_of::<usize>() + self.texts.len() * 4 + self.impacts.len() * 4
    }

    pub(super) fn of_term(&self, term: u32) -> Posting<'_> {
        let term = term as usize;
        let range = if term == 0 { 0 } else { self.ends[term - 1] }..self.ends[term];
        let Term { bound, absent, stretches } = &self.terms[term];
        Posting {
            texts: &self.texts[range.clone()],
            impacts: &self.impacts[range],
            bound: *bound,
            stretches: stretches.as_deref(),
            absent: *absent,
        }
    }
}

/// Where each window begins among a term's texts, and its greatest impact.
fn stretches(texts: &[u32], impacts: &[f32], windows: usize) -> Box<[Stretch]> {
    let mut stretches = vec![Stretch::default(); windows + 1];
    for (&text, &impact) in texts.iter().zip(impacts) {
        let stretch = &mut stretches[text as usize / WINDOW];
        stretch.bound = stretch.bound.max(impact);
    }
    let mut at = 0;
    for (window, stretch) in stretches.iter_mut().enumerate() {
        stretch.start = at as u32;
        while texts.get(at).is_some_and(|&text| (text as usize) < (window + 1) * WINDOW) {
            at += 1;
        }
    }
    stretches.into()
}
