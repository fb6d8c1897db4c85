//! Linking new rows into a graph, in parallel and yet the same way every time.
//!
//! Rows are taken in batches that are small against the graph. Within a batch every row looks for its neighbours in
//! the graph as it was before (in parallel, reading only) and among the rows before it in the batch (by their exact
//! products). Then the new links are made, row by row of those that get them. No step depends on the order in which
//! threads run. The scheme is ParlayANN's (Manohar et al., arXiv 2305.04359).
//!
//! Neighbours are chosen by the paper's heuristic (algorithm 4): one that is nearer to a chosen neighbour than to the
//! row itself is left out, so that links spread over directions.

use std::ops::Range;
use std::sync::Mutex;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::graph::{Graph, MAX_LAYERS, Scratch, Space};
use crate::topk::compare;
use crate::{Hit, HnswConfig};

/// Rows linked at a time, once the graph is large enough.
const BATCH: usize = 512;

/// A batch is at most this share of the graph it is linked into.
const SHARE: usize = 16;

/// Chosen neighbours that a further one is compared with at a time.
const COMPARED: usize = 4;

/// Links the rows `ids`, which follow those of the graph, into it.
pub(crate) fn insert(
    graph: &mut Graph,
    space: Space<'_>,
    ids: Range<u32>,
    config: &HnswConfig,
    pool: &Mutex<Vec<Scratch>>,
    progress: &dyn Fn(usize, usize),
) {
    let total = ids.len();
    let mut next = ids.start;
    while next < ids.end {
        let size = (graph.len() / SHARE).clamp(1, BATCH) as u32;
        let batch = next..ids.end.min(next + size);
        next = batch.end;
        insert_batch(graph, space, batch, config, pool);
        progress((next - ids.start) as usize, total);
    }
}

/// The layer a row goes to: the paper's `floor(-ln(u) / ln(m))`. It depends on the seed and the row alone.
fn level(config: &HnswConfig, id: u32) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(u64::from(id));
    let uniform: f64 = 1.0 - rng.random::<f64>();
    let level = -uniform.ln() / (config.m as f64).ln() * config.level_scale;
    (level as usize).min(MAX_LAYERS - 1)
}

/// A row's links on the layers it lives on, from 0 up.
type Links = Vec<Vec<Hit>>;

fn insert_batch(
    graph: &mut Graph,
    space: Space<'_>,
    batch: Range<u32>,
    config: &HnswConfig,
    pool: &Mutex<Vec<Scratch>>,
) {
    let levels: Vec<usize> = batch.clone().map(|id| level(config, id)).collect();
    let found: Vec<Links> = {
        let (graph, levels) = (&*graph, &levels);
        batch
            .clone()
            .into_par_iter()
            .with_min_len(4)
            .map(|id| {
                with_scratch(pool, |scratch| {
                    neighbours(graph, space, id, batch.start, levels, config, scratch)
                })
            })
            .collect()
    };

    for (&level, links) in levels.iter().zip(&found) {
        let id = graph.push(level);
        for (layer, links) in links.iter().enumerate() {
            graph.set_links(id, layer, &links.iter().map(|hit| hit.id).collect::<Vec<_>>());
        }
        if graph.entry().is_none_or(|entry| graph.level(entry) < level) {
            graph.set_entry(id);
        }
    }

    // The way back: each linked row takes the new ones in, and where it has too many it chooses anew.
    let mut back: Vec<(usize, u32, u32)> = Vec::new();
    for (id, links) in batch.zip(&found) {
        for (layer, links) in links.iter().enumerate() {
            back.extend(links.iter().map(|to| (layer, to.id, id)));
        }
    }
    back.par_sort_unstable();
    let groups: Vec<&[(usize, u32, u32)]> = back.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).collect();
    let renewed: Vec<Vec<u32>> = {
        let graph = &*graph;
        groups
            .par_iter()
            .map(|group| {
                let (layer, row, _) = group[0];
                let mut links = graph.links(row, layer).to_vec();
                links.extend(group.iter().map(|&(.., id)| id));
                if links.len() > graph.width(layer) {
                    let mut scores = Vec::new();
                    space.scores(space.point(row), &links, &mut scores);
                    let mut hits: Vec<Hit> =
                        links.iter().zip(&scores).map(|(&id, &score)| Hit { id, score }).collect();
                    hits.sort_unstable_by(|a, b| compare(b, a));
                    links = select(space, &hits, graph.width(layer)).iter().map(|hit| hit.id).collect();
                }
                links
            })
            .collect()
    };
    for (group, links) in groups.iter().zip(&renewed) {
        graph.set_links(group[0].1, group[0].0, links);
    }
}

/// The rows that a new row will link to, layer by layer.
fn neighbours(
    graph: &Graph,
    space: Space<'_>,
    id: u32,
    batch: u32,
    levels: &[usize],
    config: &HnswConfig,
    scratch: &mut Scratch,
) -> Links {
    let query = space.point(id);
    let level = levels[(id - batch) as usize];
    let peers: Vec<u32> = (batch..id).collect();
    let mut scores = Vec::new();
    space.scores(query, &peers, &mut scores);

    let mut links = vec![Vec::new(); level + 1];
    let mut start = graph.descend(space, query, level, scratch);
    for layer in (0..=level).rev() {
        let mut hits = match start {
            Some(start) if layer <= graph.top() => {
                graph.search_layer(space, query, start, config.ef_construction, layer, |_| true, scratch)
            }
            _ => Vec::new(),
        };
        if let Some(&nearest) = hits.first() {
            start = Some(nearest);
        }
        let peers = peers.iter().zip(&scores).zip(levels).filter(|(_, peer_level)| **peer_level >= layer);
        hits.extend(peers.map(|((&id, &score), _)| Hit { id, score }));
        hits.sort_unstable_by(|a, b| compare(b, a));
        hits.truncate(config.ef_construction);
        links[layer] = select(space, &hits, graph.m());
    }
    links
}

/// The heuristic: of hits in descending order, those that are nearer to the row than to any one chosen before.
fn select(space: Space<'_>, hits: &[Hit], most: usize) -> Vec<Hit> {
    if hits.len() <= most {
        return hits.to_vec();
    }
    let mut chosen: Vec<Hit> = Vec::with_capacity(most);
    let mut ids: Vec<u32> = Vec::with_capacity(most);
    let mut scores = Vec::new();
    for hit in hits {
        let point = space.point(hit.id);
        // A few at a time: what leaves a hit out is mostly among the nearest.
        let apart = ids.chunks(COMPARED).all(|ids| {
            space.scores(point, ids, &mut scores);
            scores.iter().all(|&to_chosen| to_chosen < hit.score)
        });
        if apart {
            ids.push(hit.id);
            chosen.push(*hit);
            if chosen.len() == most {
                break;
            }
        }
    }
    chosen
}

/// Lends a scratch from the pool.
pub(crate) fn with_scratch<T>(pool: &Mutex<Vec<Scratch>>, run: impl FnOnce(&mut Scratch) -> T) -> T {
    // A poisoned pool holds buffers that the next search resets anyway.
    let lend = || pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut scratch = lend().pop().unwrap_or_default();
    let result = run(&mut scratch);
    lend().push(scratch);
    result
}
