//! Residual codec: a token vector is the number of its nearest centroid and, for each of its numbers, which of `2^bits`
//! buckets the difference falls into (Santhanam et al., ColBERTv2, arXiv 2112.01488).
//!
//! As in ColBERT's `collection_indexer` and `residual`, the buckets are cut at equal shares of the differences of
//! vectors held out from the training of the centroids, and a decoded vector is scaled to length 1. Unlike there, the
//! buckets are then moved to where they err least (Lloyd's algorithm on one number; equal shares spend most buckets
//! near zero and leave the tails to two wide ones). Within a byte the first number has the lowest bits.

use pulp::WithSimd;
use rayon::prelude::*;

use super::kmeans::assign;
use crate::kernel::ARCH;
use crate::{Error, Result, Vectors};

#[derive(Debug)]
pub(super) struct Codec {
    dim: usize,
    bits: u8,
    centroids: Vec<f32>,
    /// Where the buckets are cut, ascending; one fewer than there are buckets.
    cutoffs: Vec<f32>,
    /// What the buckets stand for.
    weights: Vec<f32>,
    /// The weights that each byte stands for, so many a byte as it has numbers.
    table: Vec<f32>,
}

impl Codec {
    pub(super) fn new(
        dim: usize,
        bits: u8,
        centroids: Vec<f32>,
        cutoffs: Vec<f32>,
        weights: Vec<f32>,
    ) -> Self {
        let per_byte = 8 / usize::from(bits);
        let mask = (1 << bits) - 1;
        let table = (0..256 * per_byte)
            .map(|i| weights[(i / per_byte) >> (i % per_byte * usize::from(bits)) & mask])
            .collect();
        Self { dim, bits, centroids, cutoffs, weights, table }
    }

    /// Buckets for the residuals of some vectors, of which there is one at least.
    pub(super) fn fit(bits: u8, centroids: Vec<f32>, held_out: Vectors<'_>) -> Self {
        let dim = held_out.dim();
        let (codes, _) = assign(held_out, &centroids);
        let mut residuals: Vec<f32> = held_out
            .rows()
            .zip(&codes)
            .flat_map(|(row, &code)| {
                let centroid = &centroids[code as usize * dim..][..dim];
                row.iter().zip(centroid).map(|(number, c)| number - c)
            })
            .collect();
        residuals.par_sort_unstable_by(f32::total_cmp);
        let buckets = 1usize << bits;
        let cutoffs = (1..buckets).map(|i| quantile(&residuals, i as f64 / buckets as f64)).collect();
        let weights = (0..buckets).map(|i| quantile(&residuals, (i as f64 + 0.5) / buckets as f64)).collect();
        let (cutoffs, weights) = settle(&residuals, cutoffs, weights);
        Self::new(dim, bits, centroids, cutoffs, weights)
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// How many centroids there are.
    pub(super) fn len(&self) -> usize {
        self.centroids.len() / self.dim
    }

    pub(super) fn cutoffs(&self) -> &[f32] {
        &self.cutoffs
    }

    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Bytes of one vector's residual.
    pub(super) fn row_bytes(&self) -> usize {
        row_bytes(self.dim, self.bits)
    }

    /// Encodes vectors of length 1.
    pub(super) fn encode(&self, vectors: Vectors<'_>) -> (Vec<u32>, Vec<u8>) {
        let (codes, _) = assign(vectors, &self.centroids);
        let per_byte = 8 / usize::from(self.bits);
        let mut bytes = vec![0; vectors.len() * self.row_bytes()];
        bytes
            .par_chunks_exact_mut(self.row_bytes())
            .zip(vectors.data().par_chunks_exact(self.dim))
            .zip(&codes)
            .with_min_len(64)
            .for_each(|((bytes, vector), &code)| {
                let centroid = &self.centroids[code as usize * self.dim..][..self.dim];
                let (numbers, centres) = (vector.chunks(per_byte), centroid.chunks(per_byte));
                for (byte, (numbers, centres)) in bytes.iter_mut().zip(numbers.zip(centres)) {
                    for (at, (number, centre)) in numbers.iter().zip(centres).enumerate() {
                        let residual = number - centre;
                        let bucket = self.cutoffs.partition_point(|&cut| cut < residual);
                        *byte |= (bucket << (at * usize::from(self.bits))) as u8;
                    }
                }
            });
        (codes, bytes)
    }

    /// Decodes vectors into `out`, whose length says how many numbers are wanted.
    pub(super) fn decode(&self, codes: &[u32], bytes: &[u8], out: &mut [f32]) {
        match self.bits {
            1 => ARCH.dispatch(Decode::<8> { codec: self, codes, bytes, out }),
            2 => ARCH.dispatch(Decode::<4> { codec: self, codes, bytes, out }),
            4 => ARCH.dispatch(Decode::<2> { codec: self, codes, bytes, out }),
            _ => ARCH.dispatch(Decode::<1> { codec: self, codes, bytes, out }),
        }
    }
}

/// Bytes of `dim` numbers of so many bits.
pub(super) fn row_bytes(dim: usize, bits: u8) -> usize {
    (dim * usize::from(bits)).div_ceil(8)
}

/// Between the ranks, linearly, as `torch.quantile` does.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    let rank = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    (f64::from(low) + (f64::from(high) - f64::from(low)) * rank.fract()) as f32
}

/// Moves buckets to where they err least: each stands for the mean of what falls into it, and two are cut midway
/// between what they stand for. A bucket into which nothing falls keeps its weight.
fn settle(sorted: &[f32], mut cutoffs: Vec<f32>, mut weights: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
    const ROUNDS: usize = 30;
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(sorted.iter().scan(0.0, |sum, &number| {
            *sum += f64::from(number);
            Some(*sum)
        }))
        .collect();
    for _ in 0..ROUNDS {
        let mut start = 0;
        for (bucket, weight) in weights.iter_mut().enumerate() {
            let end = match cutoffs.get(bucket) {
                Some(&cut) => sorted.partition_point(|&number| number <= cut),
                None => sorted.len(),
            };
            if end > start {
                *weight = ((sums[end] - sums[start]) / (end - start) as f64) as f32;
            }
            start = end.max(start);
        }
        for (cut, pair) in cutoffs.iter_mut().zip(weights.windows(2)) {
            *cut = f32::midpoint(pair[0], pair[1]);
        }
    }
    (cutoffs, weights)
}

/// Checks that all vectors are of length 1, up to what rounding to `f16` does to them.
pub(super) fn check_units(vectors: Vectors<'_>) -> Result<()> {
    vectors.data().par_chunks_exact(vectors.dim()).enumerate().try_for_each(|(row, vector)| {
        let length = crate::kernel::dot(vector, vector).sqrt();
        if (length - 1.0).abs() < 0.01 {
            return Ok(());
        }
        match vector.iter().position(|number| !number.is_finite()) {
            Some(column) => Err(Error::NotFinite { row, column, value: vector[column] }),
            None => Err(Error::NotUnit { row, length }),
        }
    })
}

/// Compiled for the machine's widest instructions; `PER` numbers a byte.
struct Decode<'a, const PER: usize> {
    codec: &'a Codec,
    codes: &'a [u32],
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl<const PER: usize> WithSimd for Decode<'_, PER> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { codec, codes, bytes, out } = self;
        let dim = codec.dim;
        let table = codec.table.as_chunks::<PER>().0;
        let rows = out.chunks_exact_mut(dim).zip(bytes.chunks_exact(codec.row_bytes()));
        for ((out, bytes), &code) in rows.zip(codes) {
            let centroid = &codec.centroids[code as usize * dim..][..dim];
            let (whole, rest) = out.as_chunks_mut::<PER>();
            let n = whole.len();
            for ((out, weights), byte) in whole.iter_mut().zip(centroid.as_chunks::<PER>().0).zip(bytes) {
                let residual = table[usize::from(*byte)];
                for at in 0..PER {
                    out[at] = weights[at] + residual[at];
                }
            }
            if let Some(byte) = bytes.get(n) {
                let numbers = rest.iter_mut().zip(&centroid[n * PER..]);
                for ((out, centre), residual) in numbers.zip(table[usize::from(*byte)]) {
                    *out = centre + residual;
                }
            }
            let scale = 1.0 / square(out).sqrt().max(1e-6);
            out.iter_mut().for_each(|number| *number *= scale);
        }
    }
}

/// The sum of squares in 16 parts, which compilers turn into wide instructions.
#[inline(always)]
fn square(numbers: &[f32]) -> f32 {
    let (whole, rest) = numbers.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for numbers in whole {
        for at in 0..16 {
            sums[at] += numbers[at] * numbers[at];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|number| number * number).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A codec whose only centroid is zero and whose buckets are whole numbers gives back the buckets.
        #[test]
        fn packing_loses_nothing(dim in 1usize..40, bits in prop::sample::select(vec![1u8, 2, 4, 8]), seed: u64) {
            let buckets = 1usize << bits;
            let codec = Codec::new(
                dim,
                bits,
                vec![0.0; dim],
                (0..buckets - 1).map(|i| i as f32 + 0.5).collect(),
                (0..buckets).map(|i| i as f32).collect(),
            );
            let mut state = seed;
            let mut rows = vec![0.0f32; dim * 3];
            for number in &mut rows {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *number = ((state >> 33) as usize % buckets) as f32;
            }
            let (codes, bytes) = codec.encode(Vectors::new(&rows, dim).unwrap());
            prop_assert_eq!((codes, bytes.len()), (vec![0; 3], 3 * row_bytes(dim, bits)));
            let mut out = vec![0.0; dim * 3];
            codec.decode(&[0; 3], &bytes, &mut out);
            for (row, out) in rows.chunks(dim).zip(out.chunks(dim)) {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                for (number, out) in row.iter().zip(out) {
                    prop_assert!((number - out * length).abs() < 1e-3 * length.max(1.0));
                }
            }
        }
    }

    #[test]
    fn buckets_settle_where_they_err_least() {
        // Two heaps of unequal size: equal shares cut the larger one, the best buckets are the heaps.
        let sorted: Vec<f32> = (0..900).map(|i| i as f32 * 1e-4).chain([5.0; 100]).collect();
        let (cutoffs, weights) = settle(&sorted, vec![0.05], vec![0.025, 0.07]);
        assert!((weights[0] - 0.04495).abs() < 1e-4 && (weights[1] - 5.0).abs() < 1e-5, "{weights:?}");
        assert!((cutoffs[0] - 2.5225).abs() < 1e-3);
        let nothing = settle(&[0.0; 5], vec![0.0, 0.0, 0.0], vec![0.0; 4]);
        assert_eq!(nothing, (vec![0.0; 3], vec![0.0; 4]));
    }

    #[test]
    fn quantiles_are_torchs() {
        // torch.quantile(torch.tensor([0., 1., 4., 9.]), torch.tensor([0., .25, .5, .9]))
        let sorted = [0.0, 1.0, 4.0, 9.0];
        for (share, expected) in [(0.0, 0.0), (0.25, 0.75), (0.5, 2.5), (0.9, 7.5)] {
            assert!((quantile(&sorted, share) - expected).abs() < 1e-6);
        }
        assert_eq!(quantile(&[3.0], 0.7), 3.0);
    }
}
