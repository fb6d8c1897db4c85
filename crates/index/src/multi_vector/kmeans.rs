//! Centroids of token vectors: spherical k-means, the same for any number of threads.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::panel::Panel;
use crate::{Vectors, kernel};

/// Vectors that are compared with centroids at a time, and the bytes of centroids they are compared with: together
/// they fit the second-level cache.
const BLOCK: usize = 128;
const CENTROID_BYTES: usize = 128 << 10;

/// The nearest centroid of each vector, and the inner product with it. Of equally near ones it is the first.
pub(super) fn assign(vectors: Vectors<'_>, centroids: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let dim = vectors.dim();
    let mut nearest = vec![0; vectors.len()];
    let mut products = vec![0.0; vectors.len()];
    let per_block = (CENTROID_BYTES / (dim * 4)).max(16);
    vectors
        .data()
        .par_chunks(BLOCK * dim)
        .zip(nearest.par_chunks_mut(BLOCK))
        .zip(products.par_chunks_mut(BLOCK))
        .for_each(|((vectors, nearest), products)| {
            let panel = Panel::new(vectors, dim);
            let (mut best, mut arg) = ([f32::NEG_INFINITY; BLOCK], [0; BLOCK]);
            let (best, arg) = (&mut best[..panel.width()], &mut arg[..panel.width()]);
            for (block, centroids) in centroids.chunks(per_block * dim).enumerate() {
                panel.raise_with_rows(centroids, (block * per_block) as u32, best, arg);
            }
            nearest.copy_from_slice(&arg[..panel.len()]);
            products.copy_from_slice(&best[..panel.len()]);
        });
    (nearest, products)
}

/// `k` centroids of length 1, at most one for each vector.
pub(super) fn train(vectors: Vectors<'_>, k: usize, iterations: usize, seed: u64) -> Vec<f32> {
    let (n, dim) = (vectors.len(), vectors.dim());
    let k = k.min(n);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut first = rand::seq::index::sample(&mut rng, n, k).into_vec();
    first.sort_unstable();
    let mut centroids = vec![0.0; k * dim];
    for (centroid, &row) in centroids.chunks_exact_mut(dim).zip(&first) {
        centroid.copy_from_slice(vectors.row(row));
        scale(centroid);
    }
    for _ in 0..iterations {
        let (nearest, products) = assign(vectors, &centroids);
        let members = members(&nearest, k);
        // Centroids that no vector is near to start anew at the vectors that are worst represented.
        let mut empty: Vec<usize> = (0..k).filter(|&c| members.of(c).is_empty()).collect();
        let mut worst: Vec<u32> = if empty.is_empty() { Vec::new() } else { (0..n as u32).collect() };
        worst.sort_by(|&a, &b| products[a as usize].total_cmp(&products[b as usize]).then_with(|| a.cmp(&b)));
        empty.reverse();
        centroids.par_chunks_exact_mut(dim).enumerate().for_each(|(c, centroid)| {
            let rows = members.of(c);
            if rows.is_empty() {
                return;
            }
            centroid.fill(0.0);
            for &row in rows {
                for (sum, number) in centroid.iter_mut().zip(vectors.row(row as usize)) {
                    *sum += number;
                }
            }
            // Vectors that cancel out have no direction: the first of them stands for them.
            if kernel::dot(centroid, centroid) < 1e-12 {
                centroid.copy_from_slice(vectors.row(rows[0] as usize));
            }
            scale(centroid);
        });
        for row in worst {
            let Some(c) = empty.pop() else { break };
            let centroid = &mut centroids[c * dim..(c + 1) * dim];
            centroid.copy_from_slice(vectors.row(row as usize));
            scale(centroid);
        }
    }
    centroids
}

/// Which rows belong to which centroid, in ascending order.
struct Members {
    ends: Vec<usize>,
    rows: Vec<u32>,
}

impl Members {
    fn of(&self, centroid: usize) -> &[u32] {
        let start = if centroid == 0 { 0 } else { self.ends[centroid - 1] };
        &self.rows[start..self.ends[centroid]]
    }
}

fn members(nearest: &[u32], k: usize) -> Members {
    let mut ends = vec![0; k];
    for &c in nearest {
        ends[c as usize] += 1;
    }
    let mut start = 0;
    for end in &mut ends {
        (start, *end) = (start + *end, start);
    }
    let mut rows = vec![0; nearest.len()];
    for (row, &c) in nearest.iter().enumerate() {
        let next = &mut ends[c as usize];
        rows[*next] = row as u32;
        *next += 1;
    }
    Members { ends, rows }
}

fn scale(vector: &mut [f32]) {
    let length = kernel::dot(vector, vector).sqrt();
    vector.iter_mut().for_each(|number| *number /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_found_whatever_the_threads() {
        let mut data = Vec::new();
        for i in 0..900 {
            let mut row = [0.01 * (i % 7) as f32, 0.02 * (i % 5) as f32, 0.0];
            row[i % 3] += 1.0;
            scale(&mut row);
            data.extend(row);
        }
        let vectors = Vectors::new(&data, 3).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(vectors, 12, 5, 3))
        };
        let centroids = run(1);
        assert_eq!(centroids, run(4));
        let (nearest, products) = assign(vectors, &centroids);
        assert!(products.iter().all(|&product| product > 0.99));
        let members = members(&nearest, 12);
        assert_eq!((0..12).map(|c| members.of(c).len()).sum::<usize>(), 900);
        assert_eq!(train(vectors, 5000, 1, 0).len(), 2700);
    }
}
