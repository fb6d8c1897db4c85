//! MaxSim with every passage: the oracle that compressed indexes are measured against.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::panel::Panel;
use super::spans::{LENGTHS, Spans};
use super::{MultiHeader, MultiVectorConfig, MultiVectorIndex};
use crate::rows::Rows;
use crate::store::{Manifest, OpenOptions, Reader, VECTORS, Writer};
use crate::topk::TopK;
use crate::{
    Error, ExactConfig, Hit, IdMap, IndexKind, MultiSearchParams, MultiVectors, Result, Similarity,
    VectorFile, Vectors,
};

/// Queries that share one pass over the passages; bounds the heaps.
const QUERIES: usize = 64;
/// Numbers of a block of passages, which stays in the second-level cache while all queries meet it.
const BLOCK_BYTES: usize = 256 << 10;

/// An exact multi-vector index: `s(q, d) = sum over i of max over j of q_i . d_j`, with the vectors as they are given.
#[derive(Debug)]
pub struct ExactMultiVectorIndex {
    rows: Rows,
    spans: Spans,
}

impl ExactMultiVectorIndex {
    /// An empty index.
    pub fn new(config: &ExactConfig, dim: usize) -> Result<Self> {
        Ok(Self { rows: Rows::new(dim, Similarity::Dot, config.precision)?, spans: Spans::default() })
    }

    /// Opens a saved index.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Self> {
        let reader: Reader<MultiHeader> = MultiHeader::open(dir)?;
        let MultiVectorConfig::Exact(config) = &reader.manifest.header.requested else {
            let problem = "is a compressed index".to_owned();
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        };
        let MultiHeader { dim, tokens, .. } = reader.manifest.header;
        let rows = reader.vectors(VECTORS, config.precision, tokens, dim, Similarity::Dot, options)?;
        let spans = Spans::read(&reader, tokens)?;
        Ok(Self { rows, spans })
    }

    /// The vectors of a file, `lengths` of each passage, left there.
    ///
    /// # Errors
    /// Lengths that do not add up to the vectors.
    pub fn of_file(vectors: VectorFile, lengths: &[u32]) -> Result<Self> {
        Spans::check_lengths(lengths, vectors.len())?;
        let mut spans = Spans::default();
        spans.add(0, lengths.iter().map(|&length| length as usize));
        Ok(Self { rows: vectors.into_rows(Similarity::Dot), spans })
    }

    /// Writes an index of the vectors of a file without holding them.
    pub(crate) fn write(
        dir: &Path,
        config: &ExactConfig,
        vectors: &VectorFile,
        lengths: &[u32],
        ids: Option<&IdMap>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<()> {
        Spans::check_lengths(lengths, vectors.len())?;
        let header = MultiHeader {
            dim: vectors.dim(),
            tokens: vectors.len(),
            centroids: 0,
            requested: MultiVectorConfig::Exact(config.clone()),
        };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::MultiVector, lengths.len(), header))?;
        let mut rows = Rows::new(vectors.dim(), Similarity::Dot, config.precision)?;
        writer.file(VECTORS, |out| rows.write_blocks(vectors, out, progress))?;
        writer.file(LENGTHS, |out| Spans::write_lengths(lengths, out))?;
        writer.ids(ids, lengths.len())?;
        writer.finish()
    }

    /// Rows as `f32`: borrowed where they are stored so, else converted into `scratch`.
    fn numbers<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        let dim = self.rows.dim();
        if let Some(all) = self.rows.as_f32() {
            return Ok(&all[rows.start * dim..rows.end * dim]);
        }
        scratch.resize(rows.len() * dim, 0.0);
        self.rows.copy(rows, scratch)?;
        Ok(scratch)
    }

    /// The best of passages `ids` for each query.
    fn scan(&self, queries: &[Panel], ids: Range<u32>, params: &MultiSearchParams<'_>) -> Result<Vec<TopK>> {
        let k = params.k.min(self.spans.live());
        let mut top = vec![TopK::new(k); queries.len()];
        let width = queries.iter().map(Panel::width).max().unwrap_or(0);
        let (mut scratch, mut best) = (Vec::new(), vec![0.0; width]);
        let dim = self.rows.dim();
        let mut next = ids.start;
        let mut block: Vec<(u32, Range<usize>)> = Vec::new();
        while next < ids.end {
            block.clear();
            while next < ids.end {
                let span = self.spans.get(next);
                if !span.is_empty() && params.filter.is_none_or(|filter| filter.allows(next)) {
                    let start = block.first().map_or(span.start, |(_, first)| first.start);
                    if !block.is_empty() && (span.end - start) * dim * 4 > BLOCK_BYTES {
                        break;
                    }
                    block.push((next, span));
                }
                next += 1;
            }
            let (Some(first), Some(last)) = (block.first(), block.last()) else { continue };
            let start = first.1.start;
            let numbers = self.numbers(start..last.1.end, &mut scratch)?;
            for (query, top) in queries.iter().zip(&mut top) {
                let best = &mut best[..query.width()];
                for (id, span) in &block {
                    best.fill(f32::NEG_INFINITY);
                    query.raise(&numbers[(span.start - start) * dim..(span.end - start) * dim], best);
                    top.push(Hit { id: *id, score: query.sum(best) });
                }
            }
        }
        Ok(top)
    }
}

impl MultiVectorIndex for ExactMultiVectorIndex {
    fn config(&self) -> MultiVectorConfig {
        MultiVectorConfig::Exact(ExactConfig { precision: self.rows.precision() })
    }

    fn len(&self) -> usize {
        self.spans.len()
    }

    fn live(&self) -> usize {
        self.spans.live()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn tokens(&self) -> usize {
        self.spans.live_rows()
    }

    fn bytes(&self) -> usize {
        self.tokens() * self.dim() * self.rows.precision().bytes() + self.len() * 4
    }

    fn search(&self, queries: MultiVectors<'_>, params: &MultiSearchParams<'_>) -> Result<Vec<Vec<Hit>>> {
        self.rows.prepare(queries.vectors())?;
        let panels: Vec<Panel> = queries.sets().map(|query| Panel::new(query.data(), self.dim())).collect();
        let n = self.len() as u32;
        let share = (self.len().div_ceil(4 * rayon::current_num_threads()).max(1)) as u32;
        let parts: Vec<Range<u32>> = (0..n).step_by(share as usize).map(|at| at..n.min(at + share)).collect();
        let mut hits = Vec::with_capacity(panels.len());
        for panels in panels.chunks(QUERIES) {
            let found: Vec<Vec<TopK>> = parts
                .par_iter()
                .map(|part| self.scan(panels, part.clone(), params))
                .collect::<Result<_>>()?;
            let mut top = vec![TopK::new(params.k.min(self.live())); panels.len()];
            for part in found {
                for (top, part) in top.iter_mut().zip(part) {
                    top.merge(part);
                }
            }
            hits.extend(top.into_iter().map(TopK::into_sorted));
        }
        // A query without vectors is similar to nothing.
        for (hits, panel) in hits.iter_mut().zip(&panels) {
            if panel.len() == 0 {
                hits.clear();
            }
        }
        Ok(hits)
    }

    fn score(&self, query: Vectors<'_>, ids: &[u32]) -> Result<Vec<f32>> {
        self.rows.prepare(query)?;
        let panel = Panel::new(query.data(), self.dim());
        ids.par_iter()
            .map_init(
                || (Vec::new(), vec![0.0; panel.width()]),
                |(scratch, best), &id| {
                    let numbers = self.numbers(self.spans.check(id)?, scratch)?;
                    best.fill(f32::NEG_INFINITY);
                    panel.raise(numbers, best);
                    Ok(panel.sum(best))
                },
            )
            .collect()
    }

    fn passage(&self, id: u32) -> Result<Vec<f32>> {
        let mut scratch = Vec::new();
        Ok(self.numbers(self.spans.check(id)?, &mut scratch)?.to_vec())
    }

    fn add(&mut self, passages: MultiVectors<'_>) -> Result<Range<u32>> {
        self.spans.check_room(passages.len())?;
        let first = self.rows.len();
        self.rows.add(passages.vectors())?;
        Ok(self.spans.add(first, passages.lengths()))
    }

    fn remove(&mut self, ids: &[u32]) -> Result<usize> {
        ids.iter().try_for_each(|&id| self.spans.check(id).map(drop))?;
        Ok(ids.iter().filter(|&&id| !self.spans.remove(id).is_empty()).count())
    }

    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let header =
            MultiHeader { dim: self.dim(), tokens: self.tokens(), centroids: 0, requested: self.config() };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::MultiVector, self.len(), header))?;
        writer.file(VECTORS, |out| {
            self.spans.live_ranges().into_iter().try_for_each(|rows| self.rows.write_range(rows, out))
        })?;
        writer.file(LENGTHS, |out| self.spans.write(out))?;
        writer.ids(ids, self.len())?;
        writer.finish()
    }
}
