//! Vectors to test with: random directions around random centres, as embeddings of texts on some topics are.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// `n` unit vectors in clusters of about 100; `stream` draws other vectors around the same centres.
pub fn clustered(n: usize, dim: usize, clusters: usize, stream: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let centres: Vec<f32> = (0..clusters * dim).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut out = vec![0.0; n * dim];
    out.par_chunks_mut(dim).enumerate().for_each(|(i, row)| {
        let mut rng = ChaCha8Rng::seed_from_u64(stream);
        rng.set_stream(i as u64);
        let centre = rng.random_range(0..clusters);
        for (x, c) in row.iter_mut().zip(&centres[centre * dim..]) {
            // Twice a uniform's deviation: rows of a cluster have cosines of some 0.5.
            *x = c + rng.random_range(-1.0f32..1.0);
        }
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    });
    out
}
