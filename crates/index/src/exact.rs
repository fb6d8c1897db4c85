//! The index that is never wrong: a scan over all rows. The oracle the others are measured against, and the faster
//! choice for mining (see [`cost`](crate::cost)).

use std::ops::Range;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rows::{Precision, Rows};
use crate::scan::scan;
use crate::store::{Manifest, OpenOptions, Reader, Settings, VECTORS, VectorHeader, Writer, kind};
use crate::{
    Error, Hit, IdMap, IndexKind, Result, SearchParams, Similarity, VectorFile, VectorIndex, VectorIndexMut,
    Vectors,
};

/// Exact index.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExactConfig {
    /// Storage precision of the vectors.
    pub precision: Precision,
}

/// An exact index.
#[derive(Debug)]
pub struct ExactIndex {
    rows: Rows,
}

impl ExactIndex {
    /// An empty index.
    pub fn new(config: &ExactConfig, similarity: Similarity, dim: usize) -> Result<Self> {
        Ok(Self { rows: Rows::new(dim, similarity, config.precision)? })
    }

    /// Opens a saved index. One that holds a graph opens too: its vectors are all that is needed, which gives the
    /// exact index of the same rows.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Self> {
        let kind = kind(dir)?;
        if !matches!(kind, IndexKind::Exact | IndexKind::Hnsw) {
            let problem = format!("is a {kind} index, which keeps no vectors to scan");
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        }
        Ok(Self { rows: Reader::<VectorHeader>::open(dir)?.rows(options)? })
    }

    /// Writes an index of the vectors of a file without holding them; returns its bytes.
    pub(crate) fn write(
        dir: &Path,
        config: &ExactConfig,
        similarity: Similarity,
        vectors: &VectorFile,
        ids: Option<&IdMap>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<usize> {
        vectors.check_rows()?;
        let mut rows = Rows::new(vectors.dim(), similarity, config.precision)?;
        let header = VectorHeader::new(&rows, Settings::new("exact", config)?, serde_json::json!({}));
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::Exact, vectors.len(), header))?;
        writer.file(VECTORS, |out| rows.write_blocks(vectors, out, progress))?;
        writer.ids(ids, vectors.len())?;
        writer.finish()?;
        Ok(vectors.len() * vectors.dim() * config.precision.bytes())
    }
}

impl VectorIndex for ExactIndex {
    fn kind(&self) -> IndexKind {
        IndexKind::Exact
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn similarity(&self) -> Similarity {
        self.rows.similarity()
    }

    fn search(&self, queries: Vectors<'_>, params: &SearchParams<'_>) -> Result<Vec<Vec<Hit>>> {
        let queries = self.rows.prepare(queries)?;
        scan(&self.rows, &queries, params.k, params.filter)
    }

    fn row(&self, id: u32) -> Result<Vec<f32>> {
        self.rows.row(id)
    }

    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let config = ExactConfig { precision: self.rows.precision() };
        let actual = serde_json::json!({});
        let header = VectorHeader::new(&self.rows, Settings::new("exact", &config)?, actual);
        let manifest = Manifest::new(self.kind(), self.len(), header);
        let mut writer = Writer::new(dir, manifest)?;
        writer.file(VECTORS, |out| self.rows.write(out))?;
        writer.ids(ids, self.len())?;
        writer.finish()
    }
}

impl VectorIndexMut for ExactIndex {
    fn add_with_progress(
        &mut self,
        vectors: Vectors<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Range<u32>> {
        let added = self.rows.add(vectors)?;
        progress(vectors.len(), vectors.len());
        Ok(added)
    }
}
