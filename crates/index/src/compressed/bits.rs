//! Rows as signs: one bit a number, and one scale a row.
//!
//! With `s` the signs of a row `x` of `d` numbers, `a s` with `a = sum |x| / d` is what signs can say of it (Rastegari
//! et al., arXiv 1603.05279); under the cosine the scale ranks rows better than the signs alone do, and under the
//! inner product it is what is left of their lengths.
//!
//! A query of *numbers* is rounded to `PLANES` bits, which lie in planes as the rows' bits do: `sum q s` is then a
//! matter of a few `and`s and population counts (as in RaBitQ, Gao and Long, arXiv 2405.12497). A query of *signs*
//! takes one `xor`.

use std::ops::Range;

use rayon::prelude::*;

use super::config::BinaryQuery;
use crate::kernel::int::{block_hamming, block_planes};
use crate::scan::Scored;

/// Bits of a query's numbers.
pub(crate) const PLANES: usize = 6;

/// The signs of rows.
#[derive(Debug)]
pub(crate) struct Bits {
    pub(crate) dim: usize,
    query: BinaryQuery,
    scales: Vec<f32>,
    /// A row's bits, from the lowest of its first word; those beyond the last number are 0.
    words: Vec<u64>,
}

/// Queries as bits.
pub(crate) struct BitsQueries<'a> {
    rows: &'a Bits,
    /// Per query one row of words (signs) or `PLANES` of them (numbers; the last plane counts negative).
    words: Vec<u64>,
    /// What a unit of a query's number is worth.
    scales: Vec<f32>,
    /// The sum of a query's numbers, in these units.
    sums: Vec<i32>,
}

impl Bits {
    pub(crate) fn new(dim: usize, query: BinaryQuery) -> Self {
        Self { dim, query, scales: Vec::new(), words: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.scales.len()
    }

    fn per_row(&self) -> usize {
        self.dim.div_ceil(64)
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.per_row() * 8 + 4
    }

    pub(crate) fn append(&mut self, rows: &[f32]) {
        let (dim, per_row, first) = (self.dim, self.per_row(), self.len());
        self.scales.par_extend(rows.par_chunks_exact(dim).map(mean_size));
        self.words.resize(self.scales.len() * per_row, 0);
        self.words[first * per_row..]
            .par_chunks_exact_mut(per_row)
            .zip(rows.par_chunks_exact(dim))
            .for_each(|(words, row)| signs(row, words));
    }

    pub(crate) fn decode(&self, id: usize) -> Vec<f32> {
        let words = &self.words[id * self.per_row()..];
        let scale = self.scales[id];
        (0..self.dim).map(|at| if words[at / 64] >> (at % 64) & 1 == 1 { scale } else { -scale }).collect()
    }

    /// Queries, made ready to be compared with the rows.
    pub(crate) fn queries(&self, queries: &[f32]) -> BitsQueries<'_> {
        let per_row = self.per_row();
        let mut words = Vec::new();
        let (scales, sums): (Vec<f32>, Vec<i32>) = match self.query {
            BinaryQuery::Signs => {
                words.resize(queries.len() / self.dim * per_row, 0);
                let queries = queries.par_chunks_exact(self.dim);
                words
                    .par_chunks_exact_mut(per_row)
                    .zip(queries)
                    .map(|(words, query)| {
                        signs(query, words);
                        (mean_size(query), self.dim as i32)
                    })
                    .unzip()
            }
            BinaryQuery::Numbers => {
                words.resize(queries.len() / self.dim * per_row * PLANES, 0);
                let queries = queries.par_chunks_exact(self.dim);
                words
                    .par_chunks_exact_mut(per_row * PLANES)
                    .zip(queries)
                    .map(|(words, query)| planes(query, per_row, words))
                    .unzip()
            }
        };
        BitsQueries { rows: self, words, scales, sums }
    }

    pub(crate) fn clear(&mut self) {
        self.scales.clear();
        self.words.clear();
    }

    pub(crate) fn write_scales(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        floats(out, &self.scales)
    }

    pub(crate) fn write_codes(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(1 << 16);
        for chunk in self.words.chunks(1 << 13) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|word| word.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Scales and codes of so many rows; `None` if the bytes do not fit.
    pub(crate) fn read(bytes: &[u8], dim: usize, query: BinaryQuery, rows: usize) -> Option<Self> {
        let mut rest = Floats(bytes);
        let scales = rest.take(rows)?;
        let (words, over) = rest.0.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let fits = over.is_empty() && rows.checked_mul(dim.div_ceil(64)) == Some(words.len());
        fits.then_some(Self { dim, query, scales, words })
    }
}

impl Scored for BitsQueries<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn queries(&self) -> usize {
        self.scales.len()
    }

    fn row_bytes(&self) -> usize {
        self.rows.row_bytes()
    }

    fn score(&self, queries: Range<usize>, rows: Range<usize>, out: &mut [f32]) {
        let per_row = self.rows.per_row();
        let words = &self.rows.words[rows.start * per_row..rows.end * per_row];
        let row_scales = &self.rows.scales[rows.clone()];
        let mut counts = vec![0; rows.len()];
        for (query, out) in queries.zip(out.chunks_exact_mut(rows.len())) {
            let (scale, sum) = (self.scales[query], self.sums[query]);
            // Both leave 2 * (the sum over the numbers whose bit is set) in `counts`, less a constant.
            match self.rows.query {
                BinaryQuery::Signs => {
                    block_hamming(&self.words[query * per_row..(query + 1) * per_row], words, &mut counts);
                    // d - 2 h: numbers whose signs agree less those whose do not.
                    counts.iter_mut().for_each(|count| *count = sum - 2 * *count);
                }
                BinaryQuery::Numbers => {
                    let at = query * per_row * PLANES;
                    block_planes::<PLANES>(
                        &self.words[at..at + per_row * PLANES],
                        words,
                        per_row,
                        &mut counts,
                    );
                    // Signs are 2 b - 1.
                    counts.iter_mut().for_each(|count| *count = 2 * *count - sum);
                }
            }
            for ((out, &count), &row_scale) in out.iter_mut().zip(&counts).zip(row_scales) {
                *out = count as f32 * (scale * row_scale);
            }
        }
    }
}

fn mean_size(row: &[f32]) -> f32 {
    row.iter().map(|number| number.abs()).sum::<f32>() / row.len() as f32
}

fn signs(row: &[f32], words: &mut [u64]) {
    for (word, numbers) in words.iter_mut().zip(row.chunks(64)) {
        *word = numbers.iter().enumerate().fold(0, |bits, (at, &x)| bits | u64::from(x > 0.0) << at);
    }
}

/// A query's numbers as two's complement, bit by bit; returns their unit and their sum.
fn planes(query: &[f32], per_row: usize, words: &mut [u64]) -> (f32, i32) {
    let most = (1 << (PLANES - 1)) as f32 - 1.0;
    let unit = query.iter().fold(0.0f32, |most, number| most.max(number.abs())) / most;
    let mut sum = 0;
    for (at, &number) in query.iter().enumerate() {
        let code = if unit > 0.0 { (number / unit).round().clamp(-most, most) as i32 } else { 0 };
        sum += code;
        for plane in 0..PLANES {
            words[plane * per_row + at / 64] |= (code >> plane & 1) as u64 * (1 << (at % 64));
        }
    }
    (unit, sum)
}

/// Writes numbers, little-endian.
pub(crate) fn floats(out: &mut dyn std::io::Write, numbers: &[f32]) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(1 << 16);
    for chunk in numbers.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|number| number.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Bytes that begin with little-endian numbers.
pub(crate) struct Floats<'a>(pub(crate) &'a [u8]);

impl Floats<'_> {
    /// The next `count` numbers, if there are so many and all of them are finite.
    pub(crate) fn take(&mut self, count: usize) -> Option<Vec<f32>> {
        let (head, rest) = self.0.split_at_checked(count.checked_mul(4)?)?;
        self.0 = rest;
        let numbers: Vec<f32> =
            head.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }
}
