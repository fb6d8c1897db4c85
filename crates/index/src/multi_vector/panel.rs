//! Products of a few vectors with many, for which the few are packed once: MaxSim and the search for centroids.
//!
//! `kernel` sums along the dimension, which ends in a sum across a register for every pair; with token vectors (some
//! 128 numbers) that is half of the work. Here 32 vectors stand side by side in a [`Panel`], a register holds one
//! number of each, and the products come out beside each other: the greatest of them is taken without storing them.
//!
//! *Invariant:* the sum for a pair of vectors is always formed in the same order, so that a score depends neither on
//! the batch nor on the place of a passage in it.

use pulp::{Simd, WithSimd};

use crate::kernel::ARCH;

/// Vectors side by side.
pub(super) const WIDTH: usize = 32;

type Line = [f32; WIDTH];

/// Vectors packed for products with many others.
pub(super) struct Panel {
    dim: usize,
    len: usize,
    /// `dim` lines for every 32 vectors; lines are filled up with zeros.
    lines: Vec<Line>,
}

impl Panel {
    pub(super) fn new(vectors: &[f32], dim: usize) -> Self {
        let len = vectors.len() / dim;
        let mut lines = vec![[0.0; WIDTH]; len.div_ceil(WIDTH) * dim];
        for (at, vector) in vectors.chunks_exact(dim).enumerate() {
            let lines = &mut lines[at / WIDTH * dim..][..dim];
            for (line, number) in lines.iter_mut().zip(vector) {
                line[at % WIDTH] = *number;
            }
        }
        Self { dim, len, lines }
    }

    /// Vectors packed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Vectors packed, with those that are only filling.
    pub(super) fn width(&self) -> usize {
        self.len.next_multiple_of(WIDTH)
    }

    /// Raises `best[i]` to the greatest inner product of vector `i` and a row; its length is [`Panel::width`].
    pub(super) fn raise(&self, rows: &[f32], best: &mut [f32]) {
        let best = best.as_chunks_mut().0;
        ARCH.dispatch(Best { panel: self, rows, first: 0, best, arg: &mut [] });
    }

    /// As [`Panel::raise`]; where the row at `r` is the greater, `arg[i]` becomes `first + r`.
    pub(super) fn raise_with_rows(&self, rows: &[f32], first: u32, best: &mut [f32], arg: &mut [u32]) {
        let (best, arg) = (best.as_chunks_mut().0, arg.as_chunks_mut().0);
        ARCH.dispatch(Best { panel: self, rows, first, best, arg });
    }

    /// `out[r * width + i]` becomes the inner product of row `r` and vector `i`.
    pub(super) fn products(&self, rows: &[f32], out: &mut [f32]) {
        let out = out.as_chunks_mut().0;
        ARCH.dispatch(Products { panel: self, rows, out });
    }

    /// The MaxSim score of which `best` holds the parts.
    pub(super) fn sum(&self, best: &[f32]) -> f32 {
        best[..self.len].iter().sum()
    }
}

/// Raises `best[i]` to the greatest of `table[row * width + i]` over some rows.
pub(super) fn raise_from(table: &[f32], width: usize, rows: &[u32], best: &mut [f32]) {
    let (table, best) = (table.as_chunks().0, best.as_chunks_mut().0);
    ARCH.dispatch(Table { table, panels: width / WIDTH, rows, best });
}

struct Best<'a> {
    panel: &'a Panel,
    rows: &'a [f32],
    first: u32,
    best: &'a mut [Line],
    /// Empty if it is not asked for.
    arg: &'a mut [[u32; WIDTH]],
}

impl WithSimd for Best<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sums, a line and a number have to fit the registers: 32 of 16 lanes, or 16 of 8 or of 4.
        match S::F32_LANES {
            16 => self.run::<S, 2, 8>(simd),
            8 => self.run::<S, 4, 2>(simd),
            4 => self.run::<S, 8, 1>(simd),
            _ => self.run::<S, WIDTH, 1>(simd),
        }
    }
}

impl Best<'_> {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    fn run<S: Simd, const P: usize, const R: usize>(self, simd: S) {
        let Self { panel, rows, first, best, arg } = self;
        for (at, (lines, best)) in panel.lines.chunks_exact(panel.dim).zip(best).enumerate() {
            let best = S::as_mut_simd_f32s(best).0;
            let mut top = [simd.splat_f32s(0.0); P];
            top.copy_from_slice(&best[..P]);
            if let Some(arg) = arg.get_mut(at) {
                let arg = S::as_mut_simd_u32s(arg).0;
                let mut which = [simd.splat_u32s(0); P];
                which.copy_from_slice(&arg[..P]);
                each_row::<S, P, R>(simd, lines, rows, |row, sums| {
                    let row = simd.splat_u32s(first + row as u32);
                    for p in 0..P {
                        let greater = simd.greater_than_f32s(sums[p], top[p]);
                        top[p] = simd.select_f32s(greater, sums[p], top[p]);
                        which[p] = simd.select_u32s(greater, row, which[p]);
                    }
                });
                arg[..P].copy_from_slice(&which);
            } else {
                each_row::<S, P, R>(simd, lines, rows, |_, sums| {
                    for p in 0..P {
                        top[p] = simd.max_f32s(sums[p], top[p]);
                    }
                });
            }
            best[..P].copy_from_slice(&top);
        }
    }
}

struct Products<'a> {
    panel: &'a Panel,
    rows: &'a [f32],
    out: &'a mut [Line],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 2, 8>(simd),
            8 => self.run::<S, 4, 2>(simd),
            4 => self.run::<S, 8, 1>(simd),
            _ => self.run::<S, WIDTH, 1>(simd),
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const R: usize>(self, simd: S) {
        let Self { panel, rows, out } = self;
        let panels = panel.width() / WIDTH;
        for (at, lines) in panel.lines.chunks_exact(panel.dim).enumerate() {
            each_row::<S, P, R>(simd, lines, rows, |row, sums| {
                S::as_mut_simd_f32s(&mut out[row * panels + at]).0[..P].copy_from_slice(sums);
            });
        }
    }
}

/// Hands over the products of each row with the vectors of one panel.
#[inline(always)]
fn each_row<S: Simd, const P: usize, const R: usize>(
    simd: S,
    lines: &[Line],
    rows: &[f32],
    mut take: impl FnMut(usize, &[S::f32s; P]),
) {
    let dim = lines.len();
    let n = rows.len() / dim;
    let mut row = 0;
    while row + R <= n {
        let sums = tile::<S, P, R>(simd, lines, &rows[row * dim..(row + R) * dim]);
        for (r, sums) in sums.iter().enumerate() {
            take(row + r, sums);
        }
        row += R;
    }
    while row < n {
        let sums = tile::<S, P, 1>(simd, lines, &rows[row * dim..(row + 1) * dim]);
        take(row, &sums[0]);
        row += 1;
    }
}

/// Plain loops over indexes: see `tile` in `kernel`.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn tile<S: Simd, const P: usize, const R: usize>(simd: S, lines: &[Line], rows: &[f32]) -> [[S::f32s; P]; R] {
    let dim = lines.len();
    let mut each: [&[f32]; R] = [&[]; R];
    for r in 0..R {
        // Slices of one length let the compiler drop the bounds checks below.
        each[r] = &rows[r * dim..][..dim];
    }
    let mut sums = [[simd.splat_f32s(0.0); P]; R];
    for k in 0..dim {
        let line = S::as_simd_f32s(&lines[k]).0;
        for r in 0..R {
            let number = simd.splat_f32s(each[r][k]);
            for p in 0..P {
                sums[r][p] = simd.mul_add_e_f32s(number, line[p], sums[r][p]);
            }
        }
    }
    sums
}

struct Table<'a> {
    table: &'a [Line],
    panels: usize,
    rows: &'a [u32],
    best: &'a mut [Line],
}

impl WithSimd for Table<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 2>(simd),
            8 => self.run::<S, 4>(simd),
            4 => self.run::<S, 8>(simd),
            _ => self.run::<S, WIDTH>(simd),
        }
    }
}

impl Table<'_> {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    fn run<S: Simd, const P: usize>(self, simd: S) {
        let Self { table, panels, rows, best } = self;
        for (at, best) in best.iter_mut().enumerate() {
            let best = S::as_mut_simd_f32s(best).0;
            let mut top = [simd.splat_f32s(0.0); P];
            top.copy_from_slice(&best[..P]);
            for &row in rows {
                let line = S::as_simd_f32s(&table[row as usize * panels + at]).0;
                for p in 0..P {
                    top[p] = simd.max_f32s(line[p], top[p]);
                }
            }
            best[..P].copy_from_slice(&top);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn products_and_their_greatest() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (dim, vectors, rows) in [(1, 1, 1), (3, 5, 9), (16, 32, 8), (128, 33, 23), (129, 70, 7)] {
            let mut numbers =
                |n: usize| (0..n * dim).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
            let (some, many) = (numbers(vectors), numbers(rows));
            let panel = Panel::new(&some, dim);
            let width = panel.width();
            assert_eq!((panel.len(), width % WIDTH), (vectors, 0));
            let mut out = vec![0.0; rows * width];
            panel.products(&many, &mut out);
            let (mut best, mut again) = (vec![f32::NEG_INFINITY; width], vec![f32::NEG_INFINITY; width]);
            let (mut tabled, mut arg) = (best.clone(), vec![u32::MAX; width]);
            panel.raise(&many, &mut best);
            // In two parts, so that rows fall into other tiles.
            let (one, two) = many.split_at(rows / 2 * dim);
            panel.raise_with_rows(one, 0, &mut again, &mut arg);
            panel.raise_with_rows(two, (rows / 2) as u32, &mut again, &mut arg);
            raise_from(&out, width, &(0..rows as u32).collect::<Vec<_>>(), &mut tabled);
            for (i, a) in some.chunks(dim).enumerate() {
                for (r, b) in many.chunks(dim).enumerate() {
                    let exact: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    assert!((f64::from(out[r * width + i]) - exact).abs() < 1e-4);
                    assert!(out[r * width + i] <= best[i]);
                }
                assert_eq!(best[i], out[arg[i] as usize * width + i]);
                assert_eq!((best[i], best[i]), (again[i], tabled[i]));
            }
            let sum: f32 = best[..vectors].iter().sum();
            assert_eq!(panel.sum(&best), sum);
        }
    }
}
