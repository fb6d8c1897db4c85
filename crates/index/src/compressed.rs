//! A scan over rows of which less is kept: bytes, signs or centroids instead of numbers, the first numbers instead of
//! all, and where wanted a second look at what was found by rows of a finer form.
//!
//! | form | bytes of a row of 384 | error |
//! |---|---|---|
//! | [`Form::Int8`] | 388 | hardly ever a different ranking |
//! | [`Form::Pq`], 48 parts | 48 | for a first stage |
//! | [`Form::Binary`] | 52 | for a first stage |
//!
//! `benches/results` has what each costs in nDCG@10 on real embeddings.

mod bits;
mod codes;
mod config;
mod int8;
mod pq;

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::codes::{Codes, rescore};
pub use self::config::{
    BinaryConfig, BinaryQuery, CompressionConfig, Form, PqConfig, RescoreConfig, RescoreRows,
};
use crate::rows::{MAX_ROWS, prepare};
use crate::store::{MANIFEST, Manifest, OpenOptions, Reader, Settings, Writer, kind};
use crate::{
    Error, Hit, IdMap, IndexKind, Result, SearchParams, Similarity, VectorFile, VectorIndex, VectorIndexMut,
    Vectors,
};

const CODES: &str = "codes.bin";
const RESCORE: &str = "rescore.bin";

/// The name of its settings, in a config and in the manifest.
const SETTINGS: &str = "compressed";

/// What a compressed index says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    dim: usize,
    similarity: Similarity,
    requested: Settings,
}

/// A compressed index.
#[derive(Debug)]
pub struct CompressedIndex {
    config: CompressionConfig,
    dim: usize,
    similarity: Similarity,
    codes: Codes,
    finer: Option<Codes>,
}

/// Bytes that an index takes for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RowBytes {
    /// What every search scans, and wants in memory.
    pub scanned: usize,
    /// What is kept to score a few rows again.
    pub rescored: usize,
}

impl CompressedIndex {
    /// An empty index.
    pub fn new(config: &CompressionConfig, similarity: Similarity, dim: usize) -> Result<Self> {
        config.validate(dim)?;
        let codes = Codes::new(&config.form, config.width(dim), similarity)?;
        let finer = match &config.rescore {
            Some(rescore) => Some(Codes::new(&rescore.rows.into(), dim, similarity)?),
            None => None,
        };
        Ok(Self { config: config.clone(), dim, similarity, codes, finer })
    }

    /// Opens a saved index. With [`OpenOptions::on_disk`], rows that are plain numbers stay in their file.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Self> {
        let kind = kind(dir)?;
        if kind != IndexKind::Compressed {
            let problem = format!("is a {kind} index, not a compressed one");
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        }
        let reader: Reader<Header> = Reader::open(dir)?;
        let Header { dim, similarity, requested } = reader.manifest.header.clone();
        let settings: Option<CompressionConfig> = reader.settings(&requested, SETTINGS)?;
        let Some(config) = settings else {
            return Err(reader.corrupt(MANIFEST, "its settings are of another kind of index"));
        };
        config.validate(dim)?;
        let codes = Codes::read(&reader, CODES, &config.form, config.width(dim), similarity, options)?;
        let finer = match &config.rescore {
            Some(rescore) => {
                Some(Codes::read(&reader, RESCORE, &rescore.rows.into(), dim, similarity, options)?)
            }
            None => None,
        };
        Ok(Self { config, dim, similarity, codes, finer })
    }

    /// Writes an index of the vectors of a file without holding them; returns its bytes.
    pub(crate) fn write(
        dir: &Path,
        config: &CompressionConfig,
        similarity: Similarity,
        vectors: &VectorFile,
        ids: Option<&IdMap>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<usize> {
        vectors.check_rows()?;
        let (dim, rows) = (vectors.dim(), vectors.len());
        let index = Self::new(config, similarity, dim)?;
        let requested = Settings::new(SETTINGS, config)?;
        let header = Header { dim, similarity, requested };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::Compressed, rows, header))?;
        let Self { mut codes, mut finer, .. } = Self::new(config, similarity, dim)?;
        codes.learn(rows, |chosen| {
            let mut drawn = Vec::with_capacity(chosen.len() * config.width(dim));
            for &row in chosen {
                let vector = vectors.pick(&[row])?;
                let prepared = prepare(Vectors::of(&vector, dim), dim, similarity);
                drawn.extend_from_slice(&index.cut(&prepared.map_err(|e| e.counted_from(row))?)?);
            }
            Ok(drawn)
        })?;
        writer.file(CODES, |out| {
            let blocks = |take: &mut dyn FnMut(&[f32]) -> Result<()>| {
                let mut done = 0;
                vectors.blocks(|block| {
                    take(&index.cut(&prepare(block, dim, similarity)?)?)?;
                    done += block.len();
                    progress(done, rows);
                    Ok(())
                })
            };
            codes.write_blocks(blocks, out)
        })?;
        if let Some(finer) = &mut finer {
            writer.file(RESCORE, |out| {
                let blocks = |take: &mut dyn FnMut(&[f32]) -> Result<()>| {
                    vectors.blocks(|block| take(&prepare(block, dim, similarity)?))
                };
                finer.write_blocks(blocks, out)
            })?;
        }
        writer.ids(ids, rows)?;
        writer.finish()?;
        let RowBytes { scanned, rescored } = index.row_bytes();
        Ok(rows * (scanned + rescored))
    }

    /// The settings it was made with.
    pub fn config(&self) -> &CompressionConfig {
        &self.config
    }

    /// Bytes of a row, which [`bytes`](VectorIndex::bytes) adds up. The 256 centroids of a product quantisation, `1024 d`
    /// bytes in all, are not counted.
    pub fn row_bytes(&self) -> RowBytes {
        let of = |form: &Form, dim: usize| match form {
            Form::F32 => dim * 4,
            Form::F16 => dim * 2,
            Form::Int8 => dim + 4,
            Form::Binary(_) => dim.div_ceil(64) * 8 + 4,
            Form::Pq(pq) => pq.parts,
        };
        RowBytes {
            scanned: of(&self.config.form, self.config.width(self.dim)),
            rescored: self.config.rescore.as_ref().map_or(0, |rescore| of(&rescore.rows.into(), self.dim)),
        }
    }

    /// The numbers of prepared vectors that are scanned.
    fn cut<'a>(&self, prepared: &'a [f32]) -> Result<Cow<'a, [f32]>> {
        let width = self.config.width(self.dim);
        if width == self.dim {
            return Ok(Cow::Borrowed(prepared));
        }
        let cut: Vec<f32> = prepared.chunks_exact(self.dim).flat_map(|row| &row[..width]).copied().collect();
        Ok(Cow::Owned(prepare(Vectors::new(&cut, width)?, width, self.similarity)?.into_owned()))
    }
}

impl VectorIndex for CompressedIndex {
    fn kind(&self) -> IndexKind {
        IndexKind::Compressed
    }

    fn len(&self) -> usize {
        self.codes.len()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn bytes(&self) -> usize {
        let RowBytes { scanned, rescored } = self.row_bytes();
        self.len() * (scanned + rescored)
    }

    fn similarity(&self) -> Similarity {
        self.similarity
    }

    fn search(&self, queries: Vectors<'_>, params: &SearchParams<'_>) -> Result<Vec<Vec<Hit>>> {
        let queries = prepare(queries, self.dim, self.similarity)?;
        let cut = self.cut(&queries)?;
        let scan = |k| self.codes.scan(&cut, self.config.width(self.dim), k, params.filter);
        match (&self.finer, &self.config.rescore) {
            (Some(finer), Some(config)) => {
                let wanted = params.ef.unwrap_or(params.k.saturating_mul(config.factor)).max(params.k);
                rescore(finer, &queries, self.dim, scan(wanted)?, params.k)
            }
            _ => scan(params.k),
        }
    }

    /// The finest there is of a row; where that is its first numbers alone, the others are 0.
    fn row(&self, id: u32) -> Result<Vec<f32>> {
        if id as usize >= self.len() {
            return Err(Error::NoSuchRow { id, len: self.len() });
        }
        let mut row = self.finer.as_ref().unwrap_or(&self.codes).decode(id)?;
        row.resize(self.dim, 0.0);
        Ok(row)
    }

    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let requested = Settings::new(SETTINGS, &self.config)?;
        let header = Header { dim: self.dim, similarity: self.similarity, requested };
        let mut writer = Writer::new(dir, Manifest::new(self.kind(), self.len(), header))?;
        writer.file(CODES, |out| self.codes.write(out))?;
        if let Some(finer) = &self.finer {
            writer.file(RESCORE, |out| finer.write(out))?;
        }
        writer.ids(ids, self.len())?;
        writer.finish()
    }
}

impl VectorIndexMut for CompressedIndex {
    fn add_with_progress(
        &mut self,
        vectors: Vectors<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Range<u32>> {
        let prepared = prepare(vectors, self.dim, self.similarity)?;
        let cut = self.cut(&prepared)?;
        let (first, rows) = (self.len(), self.len() + vectors.len());
        if rows > MAX_ROWS {
            return Err(Error::TooManyRows { rows, limit: MAX_ROWS });
        }
        // All or none: whatever can fail does so before anything is appended.
        self.codes.check(&cut)?;
        if let Some(finer) = &self.finer {
            finer.check(&prepared)?;
        }
        self.codes.append(&cut);
        if let Some(finer) = &mut self.finer {
            finer.append(&prepared);
        }
        progress(vectors.len(), vectors.len());
        Ok(first as u32..rows as u32)
    }
}
