//! A graph from nothing by the crate `hnsw_rs`, copied into this crate's flat form.
//!
//! What makes `hnsw_rs` 0.3.5 panic, or end the process, is ruled out before it is called: `m` above 255
//! ([`HnswConfig::validate`]), vectors of differing widths, NaN and infinity ([`rows`](crate::rows)), negative
//! distances (below). Its own dump is not used: it is tied to the machine, has no checksum, and panics where it is
//! damaged. Neither is its search, which takes locks and one allocation per candidate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anndists::dist::distances::{DistL2, Distance};
use hnsw_rs::hnsw::{Hnsw, Neighbour};

use super::graph::{Graph, MAX_LAYERS, Space};
use crate::{Error, HnswBuilder, HnswConfig, Result};

/// Rows given to `hnsw_rs` at a time: between two calls, progress is told.
const BATCH: usize = 2048;

/// The distance between rows of one length, by which they are ordered as by the inner product. Being the square root
/// of a sum of squares it is never negative, which `1 - dot` can be by rounding and on which `hnsw_rs` would panic.
#[derive(Clone, Copy, Default)]
struct Chord;

impl Distance<f32> for Chord {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        DistL2.eval(a, b)
    }
}

pub(crate) fn build(
    space: Space<'_>,
    rows: usize,
    config: &HnswConfig,
    progress: &dyn Fn(usize, usize),
) -> Result<Graph> {
    // The guard is for what is not foreseen: a library that panics must not take a day's work with it.
    catch_unwind(AssertUnwindSafe(|| build_unguarded(space, rows, config, progress))).map_err(|panic| {
        let problem = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "no message".to_owned());
        Error::Builder { problem }
    })
}

fn build_unguarded(
    space: Space<'_>,
    rows: usize,
    config: &HnswConfig,
    progress: &dyn Fn(usize, usize),
) -> Graph {
    let hnsw: Hnsw<'_, f32, Chord> = Hnsw::new(config.m, rows, MAX_LAYERS, config.ef_construction, Chord);
    let (data, dim) = (space.data, space.dim);
    let row = |id: usize| &data[id * dim..(id + 1) * dim];

    // Alone, the first row makes the entry that all others start from; threads would race for it.
    hnsw.insert_slice((row(0), 0));
    let mut done = 1;
    while done < rows {
        let end = rows.min(done + BATCH);
        match config.builder {
            HnswBuilder::HnswRsSerial => (done..end).for_each(|id| hnsw.insert_slice((row(id), id))),
            HnswBuilder::HnswRs | HnswBuilder::Native => {
                hnsw.parallel_insert_slice(&(done..end).map(|id| (row(id), id)).collect());
            }
        }
        done = end;
        progress(done, rows);
    }
    copy(&hnsw, rows, config)
}

fn copy(hnsw: &Hnsw<'_, f32, Chord>, rows: usize, config: &HnswConfig) -> Graph {
    // Points come layer by layer, the graph takes them in the order of their ids.
    let mut points: Vec<Option<(u8, Vec<Vec<Neighbour>>)>> = vec![None; rows];
    for point in hnsw.get_point_indexation() {
        let mut links = point.get_neighborhood_id();
        let level = point.get_point_id().0;
        // `hnsw_rs` also notes links on layers that a point does not live on; no walk meets them.
        links.truncate(level as usize + 1);
        points[point.get_origin_id()] = Some((level, links));
    }
    let levels: Vec<u8> = points.iter().map(|point| point.as_ref().map_or(0, |point| point.0)).collect();
    let mut graph = Graph::new(config.m);
    for &level in &levels {
        let id = graph.push(level.into());
        if graph.entry().is_none_or(|entry| graph.level(entry) < level.into()) {
            graph.set_entry(id);
        }
    }
    let mut ids = Vec::new();
    for (id, point) in points.iter().enumerate() {
        for (layer, links) in point.iter().flat_map(|point| point.1.iter().enumerate()) {
            ids.clear();
            let lives_here = |link: &&Neighbour| usize::from(levels[link.d_id]) >= layer && link.d_id != id;
            ids.extend(links.iter().filter(lives_here).map(|link| link.d_id as u32));
            graph.set_links(id as u32, layer, &ids);
        }
    }
    graph
}
