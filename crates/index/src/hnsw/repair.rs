//! Can every row be found? A report, and the mending of what it finds.
//!
//! HNSW gives no guarantee: pruning can take a row's last incoming link, and then no search ever returns it (found in
//! most implementations; for `hnsw_rs` fixed in 0.3.5). Two tests: a walk over the whole of layer 0 proves which rows
//! *can* be reached; searching for a row's own vector shows which *are* found.

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::HnswIndex;
use super::insert::with_scratch;
use crate::topk::compare;
use crate::{Hit, VectorIndex};

/// How an audit is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditOptions {
    /// Search for so many rows, drawn at random; `None` searches for all.
    pub sample: Option<usize>,
    /// Seeds the draw.
    pub seed: u64,
    /// How widely to look; `None` takes the index's own setting.
    pub ef: Option<usize>,
}

/// The outcome of an audit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfAudit {
    /// Rows in the index.
    pub rows: usize,
    /// Rows that no walk from the entry reaches. No search that walks can return them.
    pub unreachable: Vec<u32>,
    /// Rows that were searched for.
    pub searched: usize,
    /// Rows that a search for their own vector did not return, nor anything as near.
    pub missed: Vec<u32>,
}

impl SelfAudit {
    /// The share of the rows searched for that were found.
    pub fn self_recall(&self) -> f64 {
        if self.searched == 0 { 1.0 } else { 1.0 - self.missed.len() as f64 / self.searched as f64 }
    }
}

impl HnswIndex {
    /// Looks for rows that cannot be, or are not, found.
    pub fn audit(&self, options: &AuditOptions) -> SelfAudit {
        let rows = self.len();
        let ids: Vec<u32> = match options.sample {
            Some(count) if count < rows => {
                let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
                let mut ids: Vec<u32> = sample(&mut rng, rows, count).iter().map(|id| id as u32).collect();
                ids.sort_unstable();
                ids
            }
            _ => (0..rows as u32).collect(),
        };
        let ef = options.ef.unwrap_or(self.config.ef_search).max(1);
        let missed = ids.par_iter().copied().filter(|&id| !self.finds(id, ef)).collect();
        SelfAudit { rows, unreachable: self.graph.unreachable(), searched: ids.len(), missed }
    }

    /// Links every unreachable row to the nearest that can be reached, and returns how many links that took. Runs by
    /// itself after a build.
    pub fn repair(&mut self) -> usize {
        let lost = self.graph.unreachable();
        let mut seen = vec![true; self.len()];
        lost.iter().for_each(|&id| seen[id as usize] = false);
        let mut links = 0;
        for &id in &lost {
            // A row mended before may have led here.
            if seen[id as usize] {
                continue;
            }
            let space = self.space();
            let ef = self.config.ef_construction;
            let found = with_scratch(&self.pool, |scratch| {
                self.graph.search(space, space.point(id), ef, |other| other != id, scratch)
            });
            // A search may come down from an upper layer right among rows that are cut off with this one: a link from
            // one of those would lead nowhere.
            let mut linked =
                found.iter().any(|near| seen[near.id as usize] && self.graph.add_link(near.id, 0, id));
            if !linked {
                // None of them, or all full: whatever can be reached, the nearest first.
                linked = self.nearest(id, &seen).iter().any(|&near| self.graph.add_link(near, 0, id));
            }
            links += usize::from(linked);
            self.graph.reach(id, &mut seen);
        }
        if links > 0 {
            tracing::info!(rows = lost.len(), links, "rows that no search could reach were linked");
        }
        links
    }

    /// The rows among `of`, nearest to a row first.
    fn nearest(&self, id: u32, of: &[bool]) -> Vec<u32> {
        let space = self.space();
        let ids: Vec<u32> = (0..of.len() as u32).filter(|&other| of[other as usize]).collect();
        let mut scores = Vec::new();
        space.scores(space.point(id), &ids, &mut scores);
        let mut hits: Vec<Hit> = ids.iter().zip(&scores).map(|(&id, &score)| Hit { id, score }).collect();
        hits.sort_unstable_by(|a, b| compare(b, a));
        hits.into_iter().map(|hit| hit.id).collect()
    }

    /// Links every row that an audit missed from the nearest row that its search did find, and returns how many links
    /// that took. A later audit says whether it was enough; rows are missed only where many lie close together.
    pub fn mend(&mut self, audit: &SelfAudit) -> usize {
        let mut links = 0;
        let ef = self.config.ef_search;
        let rows = self.len();
        for &id in audit.missed.iter().filter(|&&id| (id as usize) < rows) {
            let space = self.space();
            let found = with_scratch(&self.pool, |scratch| {
                self.graph.search(space, space.point(id), ef, |other| other != id, scratch)
            });
            links += usize::from(found.iter().any(|near| self.graph.add_link(near.id, 0, id)));
        }
        links
    }

    /// Whether a search for a row returns it, or something as near (a duplicate). In the space in which rows have one
    /// length, nothing is nearer to a row than itself.
    fn finds(&self, id: u32, ef: usize) -> bool {
        let space = self.space();
        let query = space.point(id);
        let mut own = Vec::new();
        space.scores(query, &[id], &mut own);
        let found =
            with_scratch(&self.pool, |scratch| self.graph.search(space, query, ef, |_| true, scratch));
        found.first().is_some_and(|nearest| nearest.score >= own[0]) || found.iter().any(|hit| hit.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hnsw::graph::Graph;
    use crate::{HnswConfig, Similarity, VectorIndexMut, Vectors};

    #[test]
    fn rows_that_only_an_upper_layer_leads_to_are_linked_from_those_that_can_be_reached() {
        let rows = [1.0f32, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9];
        let mut index = HnswIndex::new(&HnswConfig::default(), Similarity::Cosine, 2).unwrap();
        index.add(Vectors::new(&rows, 2).unwrap()).unwrap();
        // 0 and 1 lead to each other, and so do 2 and 3; between the two there is a link of layer 1 alone.
        let mut graph = Graph::new(index.config.m);
        for (level, links) in [(1, [1]), (0, [0]), (1, [3]), (0, [2])] {
            let id = graph.push(level);
            graph.set_links(id, 0, &links);
        }
        graph.set_links(0, 1, &[2]);
        graph.set_links(2, 1, &[0]);
        graph.set_entry(0);
        index.graph = graph;
        assert_eq!(index.audit(&AuditOptions::default()).unreachable, [2, 3]);
        assert_eq!(index.repair(), 1);
        assert_eq!(index.audit(&AuditOptions::default()).unreachable, [0u32; 0]);
        assert_eq!(index.repair(), 0);
    }
}
