//! Inner products of integers and of bits: plain loops, which the compiler turns into wide multiplications and
//! population counts once they are compiled for the machine at hand (hence the structs: what is dispatched has to be
//! a [`WithSimd`], and what it calls has to be inlined into it).

use pulp::{Simd, WithSimd};

use super::ARCH;

/// The inner product of a query of up to 16 bits and a row of bytes.
pub(crate) fn dot_i8(query: &[i16], row: &[i8]) -> i32 {
    let mut out = [0];
    block_i8(query, row, row.len(), &mut out);
    out[0]
}

/// `out[q * n_rows + r]` becomes the inner product of query `q` and row `r`. The sums have to fit.
pub(crate) fn block_i8(queries: &[i16], rows: &[i8], dim: usize, out: &mut [i32]) {
    ARCH.dispatch(BlockI8 { queries, rows, dim, out });
}

/// `out[r]` becomes the number of bits in which a query and row `r` differ.
pub(crate) fn block_hamming(query: &[u64], rows: &[u64], out: &mut [i32]) {
    ARCH.dispatch(BlockHamming { query, rows, out });
}

/// `out[r]` becomes the sum of a query's numbers over the bits that are set in row `r`. The numbers are `P` planes of
/// `per_row` words, plane `p` worth `2^p`, the last one `-2^p`.
pub(crate) fn block_planes<const P: usize>(planes: &[u64], rows: &[u64], per_row: usize, out: &mut [i32]) {
    ARCH.dispatch(BlockPlanes::<P> { planes, rows, per_row, out });
}

struct BlockI8<'a> {
    queries: &'a [i16],
    rows: &'a [i8],
    dim: usize,
    out: &'a mut [i32],
}

impl WithSimd for BlockI8<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { queries, rows, dim, out } = self;
        let n = rows.len() / dim;
        for (r, row) in rows.chunks_exact(dim).enumerate() {
            for (q, query) in queries.chunks_exact(dim).enumerate() {
                let mut sum = 0;
                for (&a, &b) in query.iter().zip(row) {
                    // As products of 16 bits, which come in pairs.
                    sum += i32::from(a) * i32::from(i16::from(b));
                }
                out[q * n + r] = sum;
            }
        }
    }
}

struct BlockHamming<'a> {
    query: &'a [u64],
    rows: &'a [u64],
    out: &'a mut [i32],
}

impl WithSimd for BlockHamming<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { query, rows, out } = self;
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(query.len())) {
            let mut count = 0;
            for (&a, &b) in query.iter().zip(row) {
                count += (a ^ b).count_ones();
            }
            *out = count as i32;
        }
    }
}

struct BlockPlanes<'a, const P: usize> {
    planes: &'a [u64],
    rows: &'a [u64],
    per_row: usize,
    out: &'a mut [i32],
}

impl<const P: usize> WithSimd for BlockPlanes<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { planes, rows, per_row, out } = self;
        for (out, row) in out.iter_mut().zip(rows.chunks_exact(per_row)) {
            let mut sum = 0;
            for (plane, words) in planes.chunks_exact(per_row).enumerate() {
                let mut count = 0;
                for (&a, &b) in words.iter().zip(row) {
                    count += (a & b).count_ones();
                }
                let worth = if plane + 1 == P { -(1 << plane) } else { 1 << plane };
                sum += worth * count as i32;
            }
            *out = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn integers_are_summed_exactly() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for dim in [1, 7, 16, 33, 384] {
            let queries: Vec<i16> = (0..5 * dim).map(|_| rng.random_range(-32767..=32767)).collect();
            let rows: Vec<i8> = (0..9 * dim).map(|_| rng.random_range(-127..=127)).collect();
            let mut out = vec![0; 45];
            block_i8(&queries, &rows, dim, &mut out);
            for (q, query) in queries.chunks(dim).enumerate() {
                for (r, row) in rows.chunks(dim).enumerate() {
                    let sum: i64 = query.iter().zip(row).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum();
                    assert_eq!(i64::from(out[q * 9 + r]), sum);
                    assert_eq!(i64::from(dot_i8(query, row)), sum);
                }
            }
        }
    }

    #[test]
    fn bits_are_counted() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for per_row in [1, 2, 6] {
            let rows: Vec<u64> = (0..9 * per_row).map(|_| rng.random()).collect();
            let planes: Vec<u64> = (0..3 * per_row).map(|_| rng.random()).collect();
            let (mut counts, mut sums) = (vec![0; 9], vec![0; 9]);
            block_hamming(&planes[..per_row], &rows, &mut counts);
            block_planes::<3>(&planes, &rows, per_row, &mut sums);
            let bit = |words: &[u64], at: usize| (words[at / 64] >> (at % 64) & 1) as i32;
            for (r, row) in rows.chunks(per_row).enumerate() {
                let at = 0..per_row * 64;
                let number = |at| {
                    let plane = |p: usize| bit(&planes[p * per_row..], at);
                    plane(0) + 2 * plane(1) - 4 * plane(2)
                };
                assert_eq!(counts[r], at.clone().map(|at| bit(&planes, at) ^ bit(row, at)).sum::<i32>());
                assert_eq!(sums[r], at.map(|at| number(at) * bit(row, at)).sum::<i32>());
            }
        }
    }
}
