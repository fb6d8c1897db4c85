//! What a search reads: for each term the texts that have it, ascending, and what it adds to their scores (Lù, "BM25S",
//! 2024: scores are computed when texts come in, not when they are asked for).
//!
//! Texts are cut into windows of [`WINDOW`] ids. A term with many texts knows for each window where it begins and its
//! greatest impact there, so that a search can leave out windows that cannot hold a hit.

use rayon::prelude::*;

/// Ids per window: the scores of one, as `f32`, take half of a first-level cache.
pub(crate) const WINDOW: usize = 4096;

/// A term with fewer texts per window than this has no windows of its own: it is short enough to be walked.
const TEXTS_PER_WINDOW: usize = 4;

/// One window of one term.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stretch {
    /// Where the window begins among the term's texts.
    pub(crate) start: u32,
    /// The greatest impact in it; 0 where it holds no text.
    pub(crate) bound: f32,
}

/// What one term adds to which texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Posting<'a> {
    pub(crate) texts: &'a [u32],
    pub(crate) impacts: &'a [f32],
    /// The greatest impact.
    pub(crate) bound: f32,
    /// The term's windows, if it has enough texts for that, and one more to end the last.
    pub(crate) stretches: Option<&'a [Stretch]>,
    /// What the term adds to every text, also to those that do not have it.
    pub(crate) absent: f64,
}

/// All terms' impacts.
#[derive(Debug)]
pub(crate) struct Postings {
    /// Where each term's texts end.
    ends: Vec<usize>,
    texts: Vec<u32>,
    impacts: Vec<f32>,
    terms: Vec<Term>,
    pub(crate) live: usize,
}

#[derive(Debug, Clone, Default)]
struct Term {
    bound: f32,
    absent: f64,
    stretches: Option<Box<[Stretch]>>,
}

/// Impacts being sorted by term: a counting sort, so it must be known how many texts each term has.
pub(crate) struct Sorting {
    /// How many texts each term has.
    df: Vec<usize>,
    next: Vec<usize>,
    texts: Vec<u32>,
    impacts: Vec<f32>,
}

impl Sorting {
    /// `df`: how many texts each term has.
    pub(crate) fn new(df: Vec<usize>) -> Self {
        let mut next = Vec::with_capacity(df.len());
        let mut size = 0;
        for df in &df {
            next.push(size);
            size += df;
        }
        Self { df, next, texts: vec![0; size], impacts: vec![0.0; size] }
    }

    /// What a term adds to a text, at least 0. The texts of a term come in ascending order, as many as were announced.
    pub(crate) fn push(&mut self, term: usize, text: usize, impact: f32) {
        let at = &mut self.next[term];
        self.texts[*at] = text as u32;
        self.impacts[*at] = impact;
        *at += 1;
    }

    /// All postings over `ids` texts, of which `live` can be found. `absent`: what a term adds also to texts without it.
    pub(crate) fn finish(self, ids: usize, live: usize, absent: impl Fn(usize) -> f64 + Sync) -> Postings {
        let Self { df, next: ends, texts, impacts } = self;
        let windows = ids.div_ceil(WINDOW);
        let terms = (df.par_iter().zip(&ends).enumerate())
            .map(|(term, (df, end))| {
                let range = end - df..*end;
                let impacts = &impacts[range.clone()];
                Term {
                    bound: impacts.iter().copied().fold(0.0, f32::max),
                    absent: absent(term),
                    stretches: (*df > windows * TEXTS_PER_WINDOW)
                        .then(|| stretches(&texts[range], impacts, windows)),
                }
            })
            .collect();
        Postings { ends, texts, impacts, terms, live }
    }
}

impl Postings {
    pub(crate) fn bytes(&self) -> usize {
        self.ends.len() * size_of::<usize>() + self.texts.len() * 4 + self.impacts.len() * 4
    }

    pub(crate) fn of_term(&self, term: u32) -> Posting<'_> {
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
