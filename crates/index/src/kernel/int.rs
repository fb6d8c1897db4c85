//! Inner products of integers and of bits: plain loops, which the compiler turns into wide instructions once they are
//! compiled for the machine at hand (hence the structs: what is dispatched has to be a [`WithSimd`], and what it calls
//! has to be inlined into it). For products of bytes it misses the one instruction that matters, the sum of two
//! products of 16 bits, so that there is said by name.

use pulp::{Simd, WithSimd};

use super::ARCH;

/// Queries lie this many numbers apart, or a multiple of it.
pub(crate) const PAD: usize = 16;

/// The inner product of a query of up to 16 bits, padded with zeros, and a row of bytes.
pub(crate) fn dot_i8(query: &[i16], row: &[i8]) -> i32 {
    let mut out = [0];
    block_i8(query, row, row.len(), &mut out);
    out[0]
}

/// `out[q * n_rows + r]` becomes the inner product of query `q` and row `r`. Queries are padded with zeros to whole
/// multiples of [`PAD`]; rows are not. The sums have to fit.
pub(crate) fn block_i8(queries: &[i16], rows: &[i8], dim: usize, out: &mut [i32]) {
    let block = BlockI8 { queries, rows, dim, out };
    #[cfg(target_arch = "x86_64")]
    match *ARCH {
        pulp::Arch::V3(simd) => return simd.vectorize(avx2::Pairs { simd, block }),
        pulp::Arch::V4(simd) => return (*simd).vectorize(avx2::Pairs { simd: *simd, block }),
        _ => {}
    }
    ARCH.dispatch(block);
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
        let (n, stride) = (rows.len() / dim, dim.next_multiple_of(PAD));
        for (r, row) in rows.chunks_exact(dim).enumerate() {
            for (q, query) in queries.chunks_exact(stride).enumerate() {
                let mut sum = 0;
                for (&a, &b) in query.iter().zip(row) {
                    sum += i32::from(a) * i32::from(b);
                }
                out[q * n + r] = sum;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::bytemuck::{cast_slice, cast_slice_mut};
    use pulp::x86::V3;
    use pulp::{NullaryFnOnce, i16x16};

    use super::{BlockI8, PAD};

    /// A block whose products are summed in pairs.
    pub(super) struct Pairs<'a> {
        pub(super) simd: V3,
        pub(super) block: BlockI8<'a>,
    }

    impl NullaryFnOnce for Pairs<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, block: BlockI8 { queries, rows, dim, out } } = self;
            let (n, stride) = (rows.len() / dim, dim.next_multiple_of(PAD));
            let n_queries = queries.len() / stride;
            // Each row is widened once for all queries.
            let mut wide = vec![simd.splat_i16x16(0); stride / PAD];
            let queries: &[i16x16] = cast_slice(queries);
            let query = |q: usize| &queries[q * stride / PAD..(q + 1) * stride / PAD];
            for (r, row) in rows.chunks_exact(dim).enumerate() {
                let numbers: &mut [i16] = cast_slice_mut(&mut wide);
                for (number, &code) in numbers.iter_mut().zip(row) {
                    *number = i16::from(code);
                }
                let mut q = 0;
                while q + 4 <= n_queries {
                    let sums = tile(simd, [query(q), query(q + 1), query(q + 2), query(q + 3)], &wide);
                    for (i, sum) in sums.into_iter().enumerate() {
                        out[(q + i) * n + r] = sum;
                    }
                    q += 4;
                }
                while q < n_queries {
                    out[q * n + r] = tile(simd, [query(q)], &wide)[0];
                    q += 1;
                }
            }
        }
    }

    /// Plain loops over indexes, as in the kernel of floats.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    fn tile<const Q: usize>(simd: V3, mut queries: [&[i16x16]; Q], row: &[i16x16]) -> [i32; Q] {
        let mut sums = [simd.splat_i32x8(0); Q];
        for i in 0..Q {
            queries[i] = &queries[i][..row.len()];
        }
        for at in 0..row.len() {
            for i in 0..Q {
                let pairs = simd.multiply_wrapping_add_adjacent_i16x16(queries[i][at], row[at]);
                sums[i] = simd.wrapping_add_i32x8(sums[i], pairs);
            }
        }
        let mut out = [0; Q];
        for i in 0..Q {
            let lanes: [i32; 8] = pulp::cast(sums[i]);
            out[i] = lanes.iter().sum();
        }
        out
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
        for dim in [1usize, 7, 16, 33, 384] {
            let stride = dim.next_multiple_of(PAD);
            let number = |at: usize| if at % stride < dim { rng.random_range(-32767..=32767) } else { 0 };
            let queries: Vec<i16> = (0..5 * stride).map(number).collect();
            let rows: Vec<i8> = (0..9 * dim).map(|_| rng.random_range(-127..=127)).collect();
            let (mut out, mut plain) = (vec![0; 45], vec![0; 45]);
            block_i8(&queries, &rows, dim, &mut out);
            ARCH.dispatch(BlockI8 { queries: &queries, rows: &rows, dim, out: &mut plain });
            assert_eq!(out, plain);
            for (q, query) in queries.chunks(stride).enumerate() {
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
