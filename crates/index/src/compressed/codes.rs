//! Rows in one of the forms there are, and what all forms can do: take rows, be scanned, score a few rows, say what a
//! row was, be written and read.
//!
//! On disk rows of one form are one file, little-endian: plain numbers row after row; for bytes and signs the scales
//! of all rows (`f32`) and then their codes (`i8`; words of `u64`); for product quantisation the centroids (`f32`,
//! part by part; none if there is no row) and then a byte for each row and part.

use rayon::prelude::*;

use super::bits::Bits;
use super::config::Form;
use super::int8::Int8;
use super::pq::Pq;
use crate::rows::Rows;
use crate::scan::{scan, scan_all};
use crate::store::Reader;
use crate::{Hit, IdFilter, OpenOptions, Result, Similarity, kernel};

/// Queries whose tables of product quantisation are in memory at a time.
const PQ_QUERIES: usize = 256;

/// The rows of an index in one form.
#[derive(Debug)]
pub(crate) enum Codes {
    Numbers(Rows),
    Int8(Int8),
    Bits(Bits),
    Pq(Pq),
}

impl Codes {
    /// No rows, of `dim` numbers.
    pub(crate) fn new(form: &Form, dim: usize, similarity: Similarity) -> Result<Self> {
        Ok(match form {
            Form::F32 => Self::Numbers(Rows::new(dim, similarity, crate::Precision::F32)?),
            Form::F16 => Self::Numbers(Rows::new(dim, similarity, crate::Precision::F16)?),
            Form::Int8 => Self::Int8(Int8::new(dim)),
            Form::Binary(config) => Self::Bits(Bits::new(dim, config.query)),
            Form::Pq(config) => Self::Pq(Pq::new(dim, config.clone())),
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Numbers(rows) => rows.len(),
            Self::Int8(rows) => rows.len(),
            Self::Bits(rows) => rows.len(),
            Self::Pq(rows) => rows.len(),
        }
    }

    /// Whether prepared rows can be appended.
    pub(crate) fn check(&self, rows: &[f32]) -> Result<()> {
        match self {
            Self::Numbers(own) => own.check(rows),
            Self::Int8(_) | Self::Bits(_) | Self::Pq(_) => Ok(()),
        }
    }

    /// Appends prepared rows that were [checked](Self::check).
    pub(crate) fn append(&mut self, rows: &[f32]) {
        match self {
            Self::Numbers(own) => own.append(rows),
            Self::Int8(own) => own.append(rows),
            Self::Bits(own) => own.append(rows),
            Self::Pq(own) => own.append(rows),
        }
    }

    /// The best `k` rows for each of the prepared queries.
    pub(crate) fn scan(
        &self,
        queries: &[f32],
        dim: usize,
        k: usize,
        filter: Option<&IdFilter>,
    ) -> Result<Vec<Vec<Hit>>> {
        Ok(match self {
            Self::Numbers(rows) => scan(rows, queries, k, filter)?,
            Self::Int8(rows) => scan_all(&rows.queries(queries), k, filter),
            Self::Bits(rows) => scan_all(&rows.queries(queries), k, filter),
            Self::Pq(rows) => queries
                .chunks(PQ_QUERIES * dim)
                .flat_map(|queries| scan_all(&rows.queries(queries), k, filter))
                .collect(),
        })
    }

    /// Gives hits the score that this form says.
    pub(crate) fn score_again(&self, query: &[f32], hits: &mut [Hit]) -> Result<()> {
        match self {
            Self::Numbers(rows) => {
                let mut row = vec![0.0; query.len()];
                for hit in hits {
                    rows.copy(hit.id as usize..hit.id as usize + 1, &mut row)?;
                    hit.score = kernel::dot(query, &row);
                }
            }
            Self::Int8(rows) => {
                let query = rows.queries(query);
                hits.iter_mut().for_each(|hit| hit.score = query.one(0, hit.id as usize));
            }
            Self::Bits(_) | Self::Pq(_) => {
                for hit in hits {
                    hit.score = kernel::dot(query, &self.decode(hit.id)?);
                }
            }
        }
        Ok(())
    }

    /// What a row was, as far as its form knows.
    pub(crate) fn decode(&self, id: u32) -> Result<Vec<f32>> {
        Ok(match self {
            Self::Numbers(rows) => rows.row(id)?,
            Self::Int8(rows) => rows.decode(id as usize),
            Self::Bits(rows) => rows.decode(id as usize),
            Self::Pq(rows) => rows.decode(id as usize),
        })
    }

    pub(crate) fn write(&self, out: &mut dyn std::io::Write) -> Result<()> {
        self.write_scales(out)?;
        self.write_codes(out)
    }

    /// What stands before the codes of all rows: their scales, or the centroids.
    fn write_scales(&self, out: &mut dyn std::io::Write) -> Result<()> {
        match self {
            Self::Numbers(_) => {}
            Self::Int8(rows) => rows.write_scales(out)?,
            Self::Bits(rows) => rows.write_scales(out)?,
            Self::Pq(rows) => rows.write_centroids(out)?,
        }
        Ok(())
    }

    fn write_codes(&self, out: &mut dyn std::io::Write) -> Result<()> {
        match self {
            Self::Numbers(rows) => rows.write(out)?,
            Self::Int8(rows) => rows.write_codes(out)?,
            Self::Bits(rows) => rows.write_codes(out)?,
            Self::Pq(rows) => rows.write_codes(out)?,
        }
        Ok(())
    }

    /// Forgets its rows, not what it has learnt.
    fn clear(&mut self) {
        match self {
            Self::Numbers(rows) => rows.clear(),
            Self::Int8(rows) => rows.clear(),
            Self::Bits(rows) => rows.clear(),
            Self::Pq(rows) => rows.clear(),
        }
    }

    /// Writes the file of rows that come in blocks and are not held: the scales in a first pass over them, the codes in
    /// a second one. `blocks` hands all of them over, prepared, each time it is called.
    pub(crate) fn write_blocks(
        &mut self,
        mut blocks: impl FnMut(&mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()>,
        out: &mut dyn std::io::Write,
    ) -> Result<()> {
        match self {
            Self::Int8(_) | Self::Bits(_) => blocks(&mut |rows| {
                self.clear();
                self.append(rows);
                self.write_scales(out)
            })?,
            Self::Numbers(_) | Self::Pq(_) => self.write_scales(out)?,
        }
        blocks(&mut |rows| {
            self.clear();
            self.check(rows)?;
            self.append(rows);
            self.write_codes(out)
        })
    }

    /// Learns what rows are coded by, of `rows` of them; `pick` gives those of some numbers, in that order.
    pub(crate) fn learn(
        &mut self,
        rows: usize,
        pick: impl FnOnce(&[usize]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        match self {
            Self::Pq(own) if rows > 0 => own.learn(rows, pick),
            _ => Ok(()),
        }
    }

    /// The rows of a file. Plain numbers may stay in it.
    pub(crate) fn read<H: serde::de::DeserializeOwned>(
        reader: &Reader<H>,
        name: &str,
        form: &Form,
        dim: usize,
        similarity: Similarity,
        options: &OpenOptions,
    ) -> Result<Self> {
        if let Some(precision) = form.precision() {
            return Ok(Self::Numbers(reader.vectors(
                name,
                precision,
                reader.manifest.count,
                dim,
                similarity,
                options,
            )?));
        }
        let (bytes, rows) = (reader.read(name)?, reader.manifest.count);
        let codes = match form {
            Form::F32 | Form::F16 => None,
            Form::Int8 => Int8::read(&bytes, dim, rows).map(Self::Int8),
            Form::Binary(config) => Bits::read(&bytes, dim, config.query, rows).map(Self::Bits),
            Form::Pq(config) => Pq::read(&bytes, dim, config.clone(), rows).map(Self::Pq),
        };
        codes.ok_or_else(|| {
            reader.corrupt(name, format!("its {} bytes are not {rows} rows of {dim} numbers", bytes.len()))
        })
    }
}

/// Scores what was found for each query again and keeps the best `k`.
pub(crate) fn rescore(
    codes: &Codes,
    queries: &[f32],
    dim: usize,
    found: Vec<Vec<Hit>>,
    k: usize,
) -> Result<Vec<Vec<Hit>>> {
    found
        .into_par_iter()
        .zip(queries.par_chunks_exact(dim))
        .map(|(mut hits, query)| {
            codes.score_again(query, &mut hits)?;
            hits.sort_unstable_by(|a, b| crate::topk::compare(b, a));
            hits.truncate(k);
            Ok(hits)
        })
        .collect()
}
