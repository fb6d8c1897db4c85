//! Rows as bytes: `x = scale * code`, with a scale for each row, and inner products of integers.
//!
//! A scale a row rather than a range a dimension: nothing has to be learnt from a sample, rows added later cannot
//! leave the range, and on embeddings of texts the error is smaller (a row's greatest number is nearer to the others
//! than the greatest of a whole corpus is; `benches/results` has the figures).
//!
//! A query has 15 bits a number (fewer where a sum could leave an `i32`), so that the rounding of the rows is all the
//! error there is.

use std::ops::Range;

use rayon::prelude::*;

use super::bits::{Floats, floats};
use crate::kernel::int::{PAD, block_i8, dot_i8};
use crate::scan::Scored;

/// The codes of rows.
#[derive(Debug)]
pub(crate) struct Int8 {
    pub(crate) dim: usize,
    scales: Vec<f32>,
    codes: Vec<i8>,
}

/// Queries as integers.
pub(crate) struct Int8Queries<'a> {
    rows: &'a Int8,
    codes: Vec<i16>,
    scales: Vec<f32>,
}

impl Int8 {
    pub(crate) fn new(dim: usize) -> Self {
        Self { dim, scales: Vec::new(), codes: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.scales.len()
    }

    pub(crate) fn append(&mut self, rows: &[f32]) {
        let (dim, first) = (self.dim, self.len());
        self.scales.par_extend(rows.par_chunks_exact(dim).map(|row| greatest(row) / 127.0));
        self.codes.resize(self.scales.len() * dim, 0);
        self.codes[first * dim..]
            .par_chunks_exact_mut(dim)
            .zip(rows.par_chunks_exact(dim))
            .zip(&self.scales[first..])
            .for_each(|((codes, row), &scale)| {
                for (code, &number) in codes.iter_mut().zip(row) {
                    *code = rounded(number, scale, 127.0) as i8;
                }
            });
    }

    pub(crate) fn decode(&self, id: usize) -> Vec<f32> {
        let scale = self.scales[id];
        self.row(id).iter().map(|&code| f32::from(code) * scale).collect()
    }

    fn row(&self, id: usize) -> &[i8] {
        &self.codes[id * self.dim..(id + 1) * self.dim]
    }

    /// How far apart the kernel wants queries.
    fn stride(&self) -> usize {
        self.dim.next_multiple_of(PAD)
    }

    /// Queries, made ready to be compared with the rows.
    pub(crate) fn queries(&self, queries: &[f32]) -> Int8Queries<'_> {
        // A sum of `dim` products with codes up to 127 fits an i32.
        let most = (i32::MAX as usize / (127 * self.dim)).clamp(1, i16::MAX as usize) as f32;
        let scales: Vec<f32> =
            queries.par_chunks_exact(self.dim).map(|query| greatest(query) / most).collect();
        let stride = self.stride();
        let mut codes = vec![0; scales.len() * stride];
        codes.par_chunks_exact_mut(stride).zip(queries.par_chunks_exact(self.dim)).zip(&scales).for_each(
            |((codes, query), &scale)| {
                for (code, &number) in codes.iter_mut().zip(query) {
                    *code = rounded(number, scale, most) as i16;
                }
            },
        );
        Int8Queries { rows: self, codes, scales }
    }

    pub(crate) fn clear(&mut self) {
        self.scales.clear();
        self.codes.clear();
    }

    pub(crate) fn write_scales(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        floats(out, &self.scales)
    }

    pub(crate) fn write_codes(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(1 << 16);
        for chunk in self.codes.chunks(1 << 16) {
            bytes.clear();
            bytes.extend(chunk.iter().map(|&code| code as u8));
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Scales and codes of so many rows; `None` if the bytes do not fit.
    pub(crate) fn read(bytes: &[u8], dim: usize, rows: usize) -> Option<Self> {
        let mut rest = Floats(bytes);
        let scales = rest.take(rows)?;
        let codes: Vec<i8> = rest.0.iter().map(|&byte| byte as i8).collect();
        (rows.checked_mul(dim) == Some(codes.len())).then_some(Self { dim, scales, codes })
    }
}

impl Int8Queries<'_> {
    /// The score of one query and one row.
    pub(crate) fn one(&self, query: usize, row: usize) -> f32 {
        let stride = self.rows.stride();
        let sum = dot_i8(&self.codes[query * stride..(query + 1) * stride], self.rows.row(row));
        sum as f32 * (self.scales[query] * self.rows.scales[row])
    }
}

impl Scored for Int8Queries<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn queries(&self) -> usize {
        self.scales.len()
    }

    fn row_bytes(&self) -> usize {
        self.rows.dim + 4
    }

    fn score(&self, queries: Range<usize>, rows: Range<usize>, out: &mut [f32]) {
        let (dim, stride) = (self.rows.dim, self.rows.stride());
        let mut sums = vec![0; out.len()];
        block_i8(
            &self.codes[queries.start * stride..queries.end * stride],
            &self.rows.codes[rows.start * dim..rows.end * dim],
            dim,
            &mut sums,
        );
        let row_scales = &self.rows.scales[rows.clone()];
        for ((out, sums), &scale) in
            out.chunks_exact_mut(rows.len()).zip(sums.chunks_exact(rows.len())).zip(&self.scales[queries])
        {
            for ((out, &sum), &row_scale) in out.iter_mut().zip(sums).zip(row_scales) {
                *out = sum as f32 * (scale * row_scale);
            }
        }
    }
}

fn greatest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |most, number| most.max(number.abs()))
}

/// A number in units of `scale`; a row of zeros has a scale of 0.
fn rounded(number: f32, scale: f32, most: f32) -> f32 {
    if scale > 0.0 { (number / scale).round().clamp(-most, most) } else { 0.0 }
}
