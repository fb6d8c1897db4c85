//! Product quantisation (Jégou, Douze and Schmid, 2011): a row is cut into parts, and of each part only the nearest of
//! 256 centroids is noted.
//!
//! Queries are not quantised: each gets a table of its products with all centroids, and a row's score is the sum of
//! as many table entries as it has parts.
//!
//! The centroids are learnt by k-means from the first rows that are added, so those should be many (some thousands)
//! and like the ones to come. The same rows give the same centroids, however many threads there are.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::bits::{Floats, floats};
use super::config::PqConfig;
use crate::scan::Scored;
use crate::{Result, kernel};

/// Centroids of a part: what a byte can tell apart.
const CENTROIDS: usize = 256;

/// Rows that k-means looks at, for each centroid.
const ROWS_PER_CENTROID: usize = 64;

/// Rows encoded at a time.
const BLOCK: usize = 512;

/// The codes of rows, and what they stand for.
#[derive(Debug)]
pub(crate) struct Pq {
    dim: usize,
    config: PqConfig,
    /// For each part its centroids one after the other; empty until the first rows come.
    centroids: Vec<f32>,
    codes: Vec<u8>,
}

/// Queries as tables of products.
pub(crate) struct PqQueries<'a> {
    rows: &'a Pq,
    /// For each query and part the products with all centroids.
    tables: Vec<[f32; CENTROIDS]>,
}

impl Pq {
    pub(crate) fn new(dim: usize, config: PqConfig) -> Self {
        Self { dim, config, centroids: Vec::new(), codes: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.codes.len() / self.config.parts
    }

    /// The numbers of a part; parts differ by at most one.
    fn part(&self, part: usize) -> Range<usize> {
        part * self.dim / self.config.parts..(part + 1) * self.dim / self.config.parts
    }

    /// A part's centroids, one after the other.
    fn centroids(&self, part: usize) -> &[f32] {
        let numbers = self.part(part);
        &self.centroids[numbers.start * CENTROIDS..numbers.end * CENTROIDS]
    }

    pub(crate) fn append(&mut self, rows: &[f32]) {
        if self.centroids.is_empty() && !rows.is_empty() {
            let dim = self.dim;
            let (n, chosen) = (rows.len() / dim, self.choose(rows.len() / dim));
            self.learn_of(n, &gather(rows, dim, &chosen));
        }
        let (dim, parts) = (self.dim, self.config.parts);
        let first = self.codes.len();
        self.codes.resize(first + rows.len() / dim * parts, 0);
        let mut codes = std::mem::take(&mut self.codes);
        codes[first..].par_chunks_mut(BLOCK * parts).zip(rows.par_chunks(BLOCK * dim)).for_each(
            |(codes, rows)| {
                for part in 0..parts {
                    let points = column(rows, dim, self.part(part));
                    let nearest = nearest(&points, self.centroids(part), self.part(part).len());
                    for (codes, code) in codes.chunks_exact_mut(parts).zip(nearest) {
                        codes[part] = code;
                    }
                }
            },
        );
        self.codes = codes;
    }

    /// Learns from `n` rows; `pick` gives those of some numbers, in that order.
    pub(crate) fn learn(&mut self, n: usize, pick: impl FnOnce(&[usize]) -> Result<Vec<f32>>) -> Result<()> {
        let drawn = pick(&self.choose(n))?;
        self.learn_of(n, &drawn);
        Ok(())
    }

    /// The rows that k-means looks at.
    fn choose(&self, n: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        sample(&mut rng, n, n.min(CENTROIDS * ROWS_PER_CENTROID)).into_vec()
    }

    /// Learns the centroids from the rows that were chosen of `n`.
    fn learn_of(&mut self, n: usize, drawn: &[f32]) {
        if n < CENTROIDS * 16 {
            tracing::warn!(
                rows = n,
                "few rows to learn centroids from; add more at once for a better product quantisation"
            );
        }
        // In the order drawn they are the first centroids; where there are fewer, some stand twice.
        let first: Vec<usize> = (0..CENTROIDS).map(|at| at % (drawn.len() / self.dim)).collect();
        self.centroids = (0..self.config.parts)
            .into_par_iter()
            .flat_map_iter(|part| {
                let numbers = self.part(part);
                let width = numbers.len();
                k_means(&column(drawn, self.dim, numbers), width, &first, self.config.rounds)
            })
            .collect();
    }

    pub(crate) fn decode(&self, id: usize) -> Vec<f32> {
        let codes = &self.codes[id * self.config.parts..(id + 1) * self.config.parts];
        codes
            .iter()
            .enumerate()
            .flat_map(|(part, &code)| {
                let width = self.part(part).len();
                &self.centroids(part)[usize::from(code) * width..(usize::from(code) + 1) * width]
            })
            .copied()
            .collect()
    }

    /// Queries, made ready to be compared with the rows: a KiB each for every part.
    pub(crate) fn queries(&self, queries: &[f32]) -> PqQueries<'_> {
        let parts = self.config.parts;
        let mut tables = vec![[0.0; CENTROIDS]; queries.len() / self.dim * parts];
        if !self.centroids.is_empty() {
            tables.par_chunks_exact_mut(parts).zip(queries.par_chunks_exact(self.dim)).for_each(
                |(tables, query)| {
                    for (part, table) in tables.iter_mut().enumerate() {
                        let numbers = self.part(part);
                        kernel::block(&query[numbers.clone()], self.centroids(part), numbers.len(), table);
                    }
                },
            );
        }
        PqQueries { rows: self, tables }
    }

    pub(crate) fn clear(&mut self) {
        self.codes.clear();
    }

    pub(crate) fn write_centroids(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        floats(out, &self.centroids)
    }

    pub(crate) fn write_codes(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        out.write_all(&self.codes)
    }

    /// Centroids and codes of so many rows; `None` if the bytes do not fit.
    pub(crate) fn read(bytes: &[u8], dim: usize, config: PqConfig, rows: usize) -> Option<Self> {
        let mut rest = Floats(bytes);
        let centroids = if rows == 0 { Vec::new() } else { rest.take(dim.checked_mul(CENTROIDS)?)? };
        let codes = rest.0.to_vec();
        let fits = rows.checked_mul(config.parts) == Some(codes.len());
        fits.then_some(Self { dim, config, centroids, codes })
    }
}

impl Scored for PqQueries<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn queries(&self) -> usize {
        self.tables.len() / self.rows.config.parts
    }

    fn row_bytes(&self) -> usize {
        self.rows.config.parts
    }

    fn score(&self, queries: Range<usize>, rows: Range<usize>, out: &mut [f32]) {
        let parts = self.rows.config.parts;
        let codes = &self.rows.codes[rows.start * parts..rows.end * parts];
        for (query, out) in queries.zip(out.chunks_exact_mut(rows.len())) {
            let tables = &self.tables[query * parts..(query + 1) * parts];
            for (out, codes) in out.iter_mut().zip(codes.chunks_exact(parts)) {
                *out = sum(tables, codes);
            }
        }
    }
}

/// The sum of the entries that the codes name, in four chains.
#[inline]
fn sum(tables: &[[f32; CENTROIDS]], codes: &[u8]) -> f32 {
    let mut sums = [0.0; 4];
    let (tables4, codes4) = (tables.chunks_exact(4), codes.chunks_exact(4));
    let rest = tables4.remainder().iter().zip(codes4.remainder());
    for (tables, codes) in tables4.zip(codes4) {
        for at in 0..4 {
            sums[at] += tables[at][usize::from(codes[at])];
        }
    }
    let rest: f32 = rest.map(|(table, &code)| table[usize::from(code)]).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// Some rows, in this order.
fn gather(rows: &[f32], dim: usize, chosen: &[usize]) -> Vec<f32> {
    chosen.iter().flat_map(|&row| &rows[row * dim..(row + 1) * dim]).copied().collect()
}

/// Some numbers of each row.
fn column(rows: &[f32], dim: usize, numbers: Range<usize>) -> Vec<f32> {
    rows.chunks_exact(dim).flat_map(|row| &row[numbers.clone()]).copied().collect()
}

/// The nearest centroid of each point; of equally near ones the first.
fn nearest(points: &[f32], centroids: &[f32], width: usize) -> Vec<u8> {
    // |x - c|^2 = |x|^2 - 2 (x c - |c|^2 / 2)
    let half: Vec<f32> = centroids.chunks_exact(width).map(|c| kernel::dot(c, c) / 2.0).collect();
    let mut products = vec![0.0; points.len() / width * CENTROIDS];
    kernel::block(points, centroids, width, &mut products);
    products
        .chunks_exact(CENTROIDS)
        .map(|products| {
            let mut best = (f32::NEG_INFINITY, 0);
            for (at, (&product, &half)) in products.iter().zip(&half).enumerate() {
                let nearness = product - half;
                if nearness > best.0 {
                    best = (nearness, at as u8);
                }
            }
            best.1
        })
        .collect()
}

/// Lloyd's rounds. A centroid without points stays where it was.
fn k_means(points: &[f32], width: usize, first: &[usize], rounds: usize) -> Vec<f32> {
    let mut centroids: Vec<f32> =
        first.iter().flat_map(|&at| &points[at * width..(at + 1) * width]).copied().collect();
    for _ in 0..rounds {
        let mut sums = vec![0.0f64; centroids.len()];
        let mut counts = [0usize; CENTROIDS];
        for points in points.chunks(BLOCK * width) {
            for (point, code) in points.chunks_exact(width).zip(nearest(points, &centroids, width)) {
                let code = usize::from(code);
                counts[code] += 1;
                for (sum, &number) in sums[code * width..].iter_mut().zip(point) {
                    *sum += f64::from(number);
                }
            }
        }
        for (at, (centroid, sums)) in
            centroids.chunks_exact_mut(width).zip(sums.chunks_exact(width)).enumerate()
        {
            if counts[at] > 0 {
                for (number, sum) in centroid.iter_mut().zip(sums) {
                    *number = (sum / counts[at] as f64) as f32;
                }
            }
        }
    }
    centroids
}
