//! The graph and the search in it: links in flat arrays, nothing shared, nothing locked.
//!
//! Each row lives on the layers `0..=level(row)`, and each layer it lives on has a list of linked rows. A search
//! walks greedily down the upper layers and then keeps the best `ef` rows it meets on layer 0.
//!
//! Nearness while *building* has to be a metric, which the inner product of unscaled vectors is not. There each row
//! gets one more number, `sqrt(R^2 - |x|^2)` for an `R` no shorter than any row; then all rows have length `R`, and
//! the inner product orders them as the distance does (Bachrach et al. 2014). A query's additional number is 0, so
//! searching needs none of this.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::topk::{TopK, compare};
use crate::{Hit, kernel};

/// Places beyond the links that building makes, so that repairs never have to remove a link.
pub(crate) const SPARE: usize = 8;

/// Layers there can be.
pub(crate) const MAX_LAYERS: usize = 16;

const NO_UPPER: u32 = u32::MAX;

/// The links.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Graph {
    m: usize,
    levels: Vec<u8>,
    /// Per row a count and room for that many links.
    base: Vec<u32>,
    /// Which block of `upper` is the row's first.
    upper_at: Vec<u32>,
    /// Per row and upper layer a block of a count and room for that many links.
    upper: Vec<u32>,
    entry: Option<u32>,
}

/// The rows of a graph.
#[derive(Clone, Copy)]
pub(crate) struct Space<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) dim: usize,
}

impl<'a> Space<'a> {
    pub(crate) fn row(&self, id: u32) -> &'a [f32] {
        &self.data[id as usize * self.dim..(id as usize + 1) * self.dim]
    }

    /// A stored row as a point of the metric space.
    pub(crate) fn point(&self, id: u32) -> Query<'a> {
        Query { vector: self.row(id) }
    }

    /// Similarities of a query to some rows.
    pub(crate) fn scores(&self, query: Query<'_>, ids: &[u32], out: &mut Vec<f32>) {
        kernel::gather(query.vector, self.data, ids, out);
    }
}

/// What is searched for.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) vector: &'a [f32],
}

/// Memory that searches use again: which rows were visited, and buffers.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The number of the search that visited a row last.
    visited: Vec<u16>,
    search: u16,
    candidates: BinaryHeap<Best>,
    fresh: Vec<u32>,
    scores: Vec<f32>,
}

impl Scratch {
    fn begin(&mut self, rows: usize) {
        if self.visited.len() < rows {
            self.visited.resize(rows, 0);
        }
        self.search = self.search.wrapping_add(1);
        if self.search == 0 {
            self.visited.fill(0);
            self.search = 1;
        }
        self.candidates.clear();
    }

    fn visit(&mut self, id: u32) -> bool {
        std::mem::replace(&mut self.visited[id as usize], self.search) != self.search
    }
}

/// A hit ordered so that a max-heap has the best on top.
struct Best(Hit);

impl Ord for Best {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Best {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Best {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Best {}

impl Graph {
    pub(crate) fn new(m: usize) -> Self {
        Self { m, levels: vec![], base: vec![], upper_at: vec![], upper: vec![], entry: None }
    }

    /// Bytes of all links.
    pub(crate) fn bytes(&self) -> usize {
        self.levels.len() + (self.base.len() + self.upper_at.len() + self.upper.len()) * 4
    }

    pub(crate) fn len(&self) -> usize {
        self.levels.len()
    }

    pub(crate) fn m(&self) -> usize {
        self.m
    }

    pub(crate) fn entry(&self) -> Option<u32> {
        self.entry
    }

    pub(crate) fn set_entry(&mut self, id: u32) {
        self.entry = Some(id);
    }

    pub(crate) fn level(&self, id: u32) -> usize {
        self.levels[id as usize].into()
    }

    /// The highest layer, 0 if there is no row.
    pub(crate) fn top(&self) -> usize {
        self.entry.map_or(0, |entry| self.level(entry))
    }

    /// Links that building makes on a layer.
    pub(crate) fn width(&self, layer: usize) -> usize {
        if layer == 0 { 2 * self.m } else { self.m }
    }

    fn base_stride(&self) -> usize {
        1 + 2 * self.m + SPARE
    }

    fn upper_stride(&self) -> usize {
        1 + self.m + SPARE
    }

    /// A row without links.
    pub(crate) fn push(&mut self, level: usize) -> u32 {
        let id = self.len() as u32;
        self.levels.push(level as u8);
        self.base.resize(self.base.len() + self.base_stride(), 0);
        if level == 0 {
            self.upper_at.push(NO_UPPER);
        } else {
            self.upper_at.push((self.upper.len() / self.upper_stride()) as u32);
            self.upper.resize(self.upper.len() + level * self.upper_stride(), 0);
        }
        id
    }

    fn slot(&self, id: u32, layer: usize) -> (bool, usize, usize) {
        if layer == 0 {
            (false, id as usize * self.base_stride(), self.base_stride())
        } else {
            let stride = self.upper_stride();
            (true, (self.upper_at[id as usize] as usize + layer - 1) * stride, stride)
        }
    }

    /// The rows that a row links to on a layer it lives on.
    pub(crate) fn links(&self, id: u32, layer: usize) -> &[u32] {
        let (upper, at, _) = self.slot(id, layer);
        let array = if upper { &self.upper } else { &self.base };
        &array[at + 1..at + 1 + array[at] as usize]
    }

    /// Replaces a row's links; those that do not fit are left out.
    pub(crate) fn set_links(&mut self, id: u32, layer: usize, links: &[u32]) {
        let (upper, at, stride) = self.slot(id, layer);
        let array = if upper { &mut self.upper } else { &mut self.base };
        let links = &links[..links.len().min(stride - 1)];
        array[at] = links.len() as u32;
        array[at + 1..at + 1 + links.len()].copy_from_slice(links);
    }

    /// Adds one link if there is room.
    pub(crate) fn add_link(&mut self, from: u32, layer: usize, to: u32) -> bool {
        let (upper, at, stride) = self.slot(from, layer);
        let array = if upper { &mut self.upper } else { &mut self.base };
        let count = array[at] as usize;
        let room = count + 1 < stride;
        if room {
            array[at] += 1;
            array[at + 1 + count] = to;
        }
        room
    }

    /// The nearest row that a greedy walk from the entry finds, on layer `to` or from above it.
    pub(crate) fn descend(
        &self,
        space: Space<'_>,
        query: Query<'_>,
        to: usize,
        scratch: &mut Scratch,
    ) -> Option<Hit> {
        let entry = self.entry?;
        let mut scores = std::mem::take(&mut scratch.scores);
        space.scores(query, &[entry], &mut scores);
        let mut here = Hit { id: entry, score: scores[0] };
        for layer in (to + 1..=self.level(entry)).rev() {
            loop {
                let links = self.links(here.id, layer);
                space.scores(query, links, &mut scores);
                let hits = links.iter().zip(&scores).map(|(&id, &score)| Hit { id, score });
                match hits.max_by(compare) {
                    Some(best) if compare(&best, &here) == Ordering::Greater => here = best,
                    _ => break,
                }
            }
        }
        scratch.scores = scores;
        Some(here)
    }

    /// The best `ef` rows met on a layer, walking from `start`; only those that `accept` takes are kept, but all are
    /// walked through.
    pub(crate) fn search_layer(
        &self,
        space: Space<'_>,
        query: Query<'_>,
        start: Hit,
        ef: usize,
        layer: usize,
        accept: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> Vec<Hit> {
        let mut best = TopK::new(ef);
        scratch.begin(self.len());
        scratch.visit(start.id);
        scratch.candidates.push(Best(start));
        if accept(start.id) {
            best.push(start);
        }
        while let Some(Best(here)) = scratch.candidates.pop() {
            if best.is_full() && here.score < best.floor() {
                break;
            }
            let mut fresh = std::mem::take(&mut scratch.fresh);
            let mut scores = std::mem::take(&mut scratch.scores);
            fresh.clear();
            for &id in self.links(here.id, layer) {
                if scratch.visit(id) {
                    fresh.push(id);
                }
            }
            space.scores(query, &fresh, &mut scores);
            for (&id, &score) in fresh.iter().zip(&scores) {
                if !best.is_full() || score >= best.floor() {
                    scratch.candidates.push(Best(Hit { id, score }));
                    if accept(id) {
                        best.push(Hit { id, score });
                    }
                }
            }
            scratch.fresh = fresh;
            scratch.scores = scores;
        }
        best.into_sorted()
    }

    /// The best `ef` rows, best first.
    pub(crate) fn search(
        &self,
        space: Space<'_>,
        query: Query<'_>,
        ef: usize,
        accept: impl Fn(u32) -> bool,
        scratch: &mut Scratch,
    ) -> Vec<Hit> {
        match self.descend(space, query, 0, scratch) {
            Some(start) => self.search_layer(space, query, start, ef, 0, accept, scratch),
            None => Vec::new(),
        }
    }

    /// The rows that no walk over layer 0 from the entry reaches.
    pub(crate) fn unreachable(&self) -> Vec<u32> {
        let mut seen = vec![false; self.len()];
        if let Some(entry) = self.entry {
            self.reach(entry, &mut seen);
        }
        (0..self.len() as u32).filter(|&id| !seen[id as usize]).collect()
    }

    /// Marks all rows that a walk over layer 0 reaches from a row.
    pub(crate) fn reach(&self, from: u32, seen: &mut [bool]) {
        if std::mem::replace(&mut seen[from as usize], true) {
            return;
        }
        let mut open = vec![from];
        while let Some(here) = open.pop() {
            for &next in self.links(here, 0) {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    open.push(next);
                }
            }
        }
    }
}
