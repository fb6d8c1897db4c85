//! Hierarchical navigable small worlds (Malkov and Yashunin, arXiv 1603.09320): approximate search by walking a
//! graph of neighbours.
//!
//! An empty index is filled by `hnsw_rs` or by this crate ([`HnswBuilder`]); rows added to a graph are linked by this
//! crate; searching is always this crate's. Where walking cannot pay, a search scans instead and is exact: when the
//! index is small, when a filter lets few rows through, and when a walk came back with too few hits.
//!
//! Under the unscaled inner product rows are linked by it, as hnswlib and faiss do, always by this crate's builder.
//! Extending rows to one length, by which the inner product becomes a distance (Bachrach et al., RecSys 2014), was tried:
//! the added number then decides who neighbours whom, while a query has none of it, and at lengths that scatter by 40 %
//! recall@10 was 0.24.
//!
//! *Invariant:* after a build every row can be reached ([`HnswIndex::audit`] proves it, [`HnswIndex::repair`] is what
//! makes it so).
//!
//! A graph made by `hnsw_rs` is copied into flat arrays after the build; search, saving, loading, adding and repair are
//! this crate's, because its dump is native-endian, unchecked and borrows its reader. Its parallel build depends on how
//! threads race, so a training run that mines through a graph uses the native builder, which gives the same graph every
//! time: resume must be exact.

mod bulk;
mod config;
mod file;
mod graph;
mod insert;
mod repair;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use rayon::prelude::*;

pub use self::config::{HnswBuilder, HnswConfig};
use self::graph::{Graph, Query, Scratch, Space};
use self::insert::with_scratch;
pub use self::repair::{AuditOptions, SelfAudit};
use crate::rows::{Precision, Rows};
use crate::scan::scan;
use crate::store::{Manifest, OpenOptions, Reader, Settings, VECTORS, VectorHeader, Writer};
use crate::{
    Error, Hit, IdMap, IndexKind, Result, SearchParams, Similarity, VectorFile, VectorIndex, VectorIndexMut,
    Vectors,
};

/// The name of its settings, in a config and in the manifest.
const SETTINGS: &str = "hnsw";

/// An HNSW index.
pub struct HnswIndex {
    config: HnswConfig,
    rows: Rows,
    graph: Graph,
    pool: Mutex<Vec<Scratch>>,
}

impl fmt::Debug for HnswIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HnswIndex")
            .field("config", &self.config)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl HnswIndex {
    /// An empty index.
    pub fn new(config: &HnswConfig, similarity: Similarity, dim: usize) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config: config.clone(),
            rows: Rows::new(dim, similarity, Precision::F32)?,
            graph: Graph::new(config.m),
            pool: Mutex::default(),
        })
    }

    /// An index of the vectors of a file.
    pub(crate) fn of_file(
        config: &HnswConfig,
        similarity: Similarity,
        vectors: &VectorFile,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self> {
        let mut index = Self::new(config, similarity, vectors.dim())?;
        vectors.check_rows()?;
        vectors.blocks(|block| index.rows.add(block).map(drop))?;
        index.link(progress)?;
        Ok(index)
    }

    /// Opens a saved index.
    pub fn open(dir: &Path) -> Result<Self> {
        let reader: Reader<VectorHeader> = Reader::open(dir)?;
        let settings: Option<HnswConfig> = reader.settings(&reader.manifest.header.requested, SETTINGS)?;
        let Some(config) = settings else {
            let problem = "its vectors have no graph; open it as an exact index".to_owned();
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        };
        config.validate()?;
        let rows = reader.rows(&OpenOptions::default())?;
        if rows.precision() != Precision::F32 {
            return Err(reader.corrupt(VECTORS, "a graph's vectors are f32"));
        }
        let graph = file::read(&reader)?;
        if graph.m() != config.m {
            return Err(reader.corrupt(file::GRAPH, format!("its m is {}, not {}", graph.m(), config.m)));
        }
        Ok(Self { config, rows, graph, pool: Mutex::default() })
    }

    /// The settings it was made with.
    pub fn config(&self) -> &HnswConfig {
        &self.config
    }

    /// Changes how widely a search looks where it does not say so itself.
    pub fn set_ef_search(&mut self, ef_search: usize) -> Result<()> {
        let config = HnswConfig { ef_search, ..self.config.clone() };
        config.validate()?;
        self.config = config;
        Ok(())
    }

    fn space(&self) -> Space<'_> {
        // A graph's rows are always in memory as f32: `new` and `open` see to it.
        Space { data: self.rows.as_f32().unwrap_or_default(), dim: self.rows.dim() }
    }

    /// Makes or extends the graph for all rows that it does not have yet.
    fn link(&mut self, progress: &dyn Fn(usize, usize)) -> Result<()> {
        let mut graph = std::mem::replace(&mut self.graph, Graph::new(self.config.m));
        let (first, rows) = (graph.len() as u32, self.rows.len());
        // `hnsw_rs` links by a distance, which the unscaled inner product is not.
        let by_distance = self.rows.similarity() == Similarity::Cosine;
        if first == 0 && rows > 0 && by_distance && self.config.builder != HnswBuilder::Native {
            graph = bulk::build(self.space(), rows, &self.config, progress)?;
        } else {
            insert::insert(&mut graph, self.space(), first..rows as u32, &self.config, &self.pool, progress);
        }
        self.graph = graph;
        // Looking for unreachable rows takes a walk over the whole graph: not for every handful of rows. Under the inner
        // product one long row takes the links of many.
        if !by_distance || rows - first as usize >= rows / 10 {
            self.repair();
        }
        Ok(())
    }

    /// Whether walking is cheaper than scanning the rows that the filter lets through.
    ///
    /// A walk that collects `ef` of the share `s` of rows that may be taken visits about `ef / s` rows and meets some
    /// `2 m` others at each; a scan takes `s n` steps.
    fn walk_pays(&self, ef: usize, allowed: usize) -> bool {
        let (n, allowed) = (self.len() as f64, allowed as f64);
        (ef * 2 * self.config.m) as f64 * n < allowed * allowed
    }

    /// Searches by walking, whatever it costs.
    fn walk(&self, queries: &[f32], params: &SearchParams<'_>, ef: usize) -> Vec<Vec<Hit>> {
        let space = self.space();
        queries
            .par_chunks_exact(self.rows.dim())
            .map(|vector| {
                let query = Query { vector };
                let mut hits = with_scratch(&self.pool, |scratch| match params.filter {
                    Some(filter) => self.graph.search(space, query, ef, |id| filter.allows(id), scratch),
                    None => self.graph.search(space, query, ef, |_| true, scratch),
                });
                hits.truncate(params.k);
                hits
            })
            .collect()
    }
}

impl VectorIndex for HnswIndex {
    fn kind(&self) -> IndexKind {
        IndexKind::Hnsw
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.graph.bytes()
    }

    fn similarity(&self) -> Similarity {
        self.rows.similarity()
    }

    fn search(&self, queries: Vectors<'_>, params: &SearchParams<'_>) -> Result<Vec<Vec<Hit>>> {
        let queries = self.rows.prepare(queries)?;
        let allowed = params.filter.map_or(self.len(), |filter| filter.count_allowed(self.len()));
        let ef = params.ef.unwrap_or(self.config.ef_search).max(params.k);
        if params.k == 0 || !self.walk_pays(ef, allowed) {
            return scan(&self.rows, &queries, params.k, params.filter);
        }
        let mut found = self.walk(&queries, params, ef);
        let wanted = params.k.min(allowed);
        let dim = self.dim();
        for (query, hits) in queries.chunks_exact(dim).zip(&mut found) {
            if hits.len() < wanted {
                *hits = scan(&self.rows, query, params.k, params.filter)?.pop().unwrap_or_default();
            }
        }
        Ok(found)
    }

    fn row(&self, id: u32) -> Result<Vec<f32>> {
        self.rows.row(id)
    }

    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let links: usize = (0..self.len() as u32).map(|id| self.graph.links(id, 0).len()).sum();
        let actual = serde_json::json!({
            "layers": self.graph.top() + 1,
            "mean_links": links as f64 / self.len().max(1) as f64,
        });
        let header = VectorHeader::new(&self.rows, Settings::new(SETTINGS, &self.config)?, actual);
        let manifest = Manifest::new(self.kind(), self.len(), header);
        let mut writer = Writer::new(dir, manifest)?;
        writer.file(VECTORS, |out| self.rows.write(out))?;
        writer.file(file::GRAPH, |out| file::write(&self.graph, out))?;
        writer.ids(ids, self.len())?;
        writer.finish()
    }
}

impl VectorIndexMut for HnswIndex {
    fn add_with_progress(
        &mut self,
        vectors: Vectors<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Range<u32>> {
        let added = self.rows.add(vectors)?;
        self.link(progress)?;
        Ok(added)
    }
}
