//! The vectors of an index: checked, scaled, and kept in memory (as `f32` or `f16`) or on disk.
//!
//! *Invariant:* every row stored has finite numbers and a finite length, so no inner product of two of them is NaN or
//! infinite (Cauchy and Schwarz), and nothing behind this module has to think of NaN.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, IdFilter, Result, Similarity, VectorFile, Vectors, kernel};

/// Storage precision of vectors; similarities are computed in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits per component.
    #[default]
    F32,
    /// 16 bits per component (three decimal digits): rankings of normalized embeddings hardly change.
    F16,
}

impl Precision {
    /// Bytes of one number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// Ids are `u32`, and one value stays free to mean none.
pub(crate) const MAX_ROWS: usize = u32::MAX as usize - 1;

/// How much is converted, gathered or read from disk at a time.
const SLAB_BYTES: usize = 32 << 20;

enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// The first row begins at byte `start`.
    Disk {
        file: fs_err::File,
        start: u64,
        precision: Precision,
        len: usize,
    },
}

/// The stored vectors.
pub(crate) struct Rows {
    dim: usize,
    similarity: Similarity,
    data: Data,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("dim", &self.dim).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Which rows a slab holds.
#[derive(Clone, Copy)]
pub(crate) enum SlabIds<'a> {
    From(u32),
    List(&'a [u32]),
}

impl SlabIds<'_> {
    #[inline]
    pub(crate) fn id(&self, at: usize) -> u32 {
        match self {
            Self::From(first) => first + at as u32,
            Self::List(ids) => ids[at],
        }
    }
}

impl Rows {
    pub(crate) fn new(dim: usize, similarity: Similarity, precision: Precision) -> Result<Self> {
        if dim == 0 {
            return Err(Error::BadConfig { key: "dim", got: "0".to_owned(), remedy: "vectors have numbers" });
        }
        let data = match precision {
            Precision::F32 => Data::F32(Vec::new()),
            Precision::F16 => Data::F16(Vec::new()),
        };
        Ok(Self { dim, similarity, data })
    }

    /// Rows that were stored before. The caller vouches for the invariant of this module by way of a checksum.
    pub(crate) fn from_f32(data: Vec<f32>, dim: usize, similarity: Similarity) -> Self {
        Self { dim, similarity, data: Data::F32(data) }
    }

    pub(crate) fn from_f16(data: Vec<f16>, dim: usize, similarity: Similarity) -> Self {
        Self { dim, similarity, data: Data::F16(data) }
    }

    pub(crate) fn on_disk(
        file: fs_err::File,
        start: u64,
        precision: Precision,
        len: usize,
        dim: usize,
        similarity: Similarity,
    ) -> Self {
        Self { dim, similarity, data: Data::Disk { file, start, precision, len } }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::F32(data) => data.len() / self.dim,
            Data::F16(data) => data.len() / self.dim,
            Data::Disk { len, .. } => *len,
        }
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn similarity(&self) -> Similarity {
        self.similarity
    }

    pub(crate) fn precision(&self) -> Precision {
        match &self.data {
            Data::F32(_) => Precision::F32,
            Data::F16(_) => Precision::F16,
            Data::Disk { precision, .. } => *precision,
        }
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * self.dim * self.precision().bytes()
    }

    /// All rows, if they are in memory as `f32`.
    pub(crate) fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(data) => Some(data),
            Data::F16(_) | Data::Disk { .. } => None,
        }
    }

    /// Checks vectors and scales them as the similarity asks.
    pub(crate) fn prepare<'a>(&self, vectors: Vectors<'a>) -> Result<Cow<'a, [f32]>> {
        prepare(vectors, self.dim, self.similarity)
    }

    /// Appends rows and returns their ids. Either all are added or none.
    pub(crate) fn add(&mut self, vectors: Vectors<'_>) -> Result<Range<u32>> {
        let prepared = self.prepare(vectors)?;
        self.check(&prepared)?;
        let first = self.len() as u32;
        self.append(&prepared);
        Ok(first..self.len() as u32)
    }

    /// Whether prepared rows can be appended.
    pub(crate) fn check(&self, prepared: &[f32]) -> Result<()> {
        let rows = self.len() + prepared.len() / self.dim;
        if rows > MAX_ROWS {
            return Err(Error::TooManyRows { rows, limit: MAX_ROWS });
        }
        match &self.data {
            Data::F32(_) => Ok(()),
            Data::F16(_) => {
                let largest = f16::MAX.to_f32();
                match prepared.iter().position(|number| number.abs() > largest) {
                    Some(at) => {
                        Err(Error::TooLarge { row: at / self.dim, precision: "f16", value: prepared[at] })
                    }
                    None => Ok(()),
                }
            }
            Data::Disk { file, .. } => Err(Error::ReadOnly { path: PathBuf::from(file.path()) }),
        }
    }

    /// Appends prepared rows that were [checked](Self::check); nothing is appended to rows on disk.
    pub(crate) fn append(&mut self, prepared: &[f32]) {
        match &mut self.data {
            Data::F32(data) => data.extend_from_slice(prepared),
            Data::F16(data) => {
                let from = data.len();
                data.resize(from + prepared.len(), f16::ZERO);
                data[from..].convert_from_f32_slice(prepared);
            }
            Data::Disk { .. } => {}
        }
    }

    /// Forgets all rows that are in memory.
    pub(crate) fn clear(&mut self) {
        match &mut self.data {
            Data::F32(data) => data.clear(),
            Data::F16(data) => data.clear(),
            Data::Disk { .. } => {}
        }
    }

    /// One row as it is stored (scaled to length 1 under the cosine).
    pub(crate) fn row(&self, id: u32) -> Result<Vec<f32>> {
        let at = id as usize;
        if at >= self.len() {
            return Err(Error::NoSuchRow { id, len: self.len() });
        }
        let mut row = vec![0.0; self.dim];
        self.copy(at..at + 1, &mut row)?;
        Ok(row)
    }

    /// Rows as `f32`, whatever they are stored as.
    pub(crate) fn copy(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let numbers = rows.start * self.dim..rows.end * self.dim;
        match &self.data {
            Data::F32(data) => out.copy_from_slice(&data[numbers]),
            Data::F16(data) => data[numbers].convert_to_f32_slice(out),
            Data::Disk { file, start, precision, .. } => {
                use fs_err::os::unix::fs::FileExt;
                let mut bytes = vec![0; out.len() * precision.bytes()];
                file.read_exact_at(&mut bytes, start + (numbers.start * precision.bytes()) as u64)?;
                decode_into(&bytes, *precision, out);
            }
        }
        Ok(())
    }

    /// Hands over all rows that the filter allows, in ascending order of their ids and in slabs of bounded size.
    pub(crate) fn for_each_slab(
        &self,
        filter: Option<&IdFilter>,
        mut slab: impl FnMut(SlabIds<'_>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let (len, dim) = (self.len(), self.dim);
        if let (None, Data::F32(data)) = (filter, &self.data) {
            return if len == 0 { Ok(()) } else { slab(SlabIds::From(0), data) };
        }
        let per_slab = (SLAB_BYTES / (dim * 4)).clamp(1, len.max(1));
        let mut numbers = Vec::new();
        let Some(filter) = filter else {
            for first in (0..len).step_by(per_slab) {
                let end = len.min(first + per_slab);
                numbers.resize((end - first) * dim, 0.0);
                // Conversion and reading are spread over the threads, a share of the slab each.
                let share = (end - first).div_ceil(rayon::current_num_threads()).max(1);
                numbers.par_chunks_mut(share * dim).enumerate().try_for_each(|(i, out)| {
                    let start = first + i * share;
                    self.copy(start..start + out.len() / dim, out)
                })?;
                slab(SlabIds::From(first as u32), &numbers)?;
            }
            return Ok(());
        };
        let mut ids: Vec<u32> = Vec::new();
        for id in 0..len as u32 {
            if filter.allows(id) {
                ids.push(id);
            }
            if ids.len() == per_slab || (id as usize + 1 == len && !ids.is_empty()) {
                numbers.resize(ids.len() * dim, 0.0);
                numbers
                    .par_chunks_exact_mut(dim)
                    .zip(&ids)
                    .with_min_len(64)
                    .try_for_each(|(out, &id)| self.copy(id as usize..id as usize + 1, out))?;
                slab(SlabIds::List(&ids), &numbers)?;
                ids.clear();
            }
        }
        Ok(())
    }

    /// The rows as the file `vectors.bin` holds them: little-endian numbers, row after row.
    pub(crate) fn write(&self, out: &mut dyn std::io::Write) -> Result<()> {
        self.write_range(0..self.len(), out)
    }

    /// Writes the vectors of a file as rows of this store would be, which holds a block of them at a time.
    pub(crate) fn write_blocks(
        &mut self,
        vectors: &VectorFile,
        out: &mut dyn std::io::Write,
        progress: &dyn Fn(usize, usize),
    ) -> Result<()> {
        let mut done = 0;
        vectors.blocks(|block| {
            self.clear();
            self.add(block)?;
            self.write(out)?;
            done += block.len();
            progress(done, vectors.len());
            Ok(())
        })
    }

    /// Some of the rows in the same form.
    pub(crate) fn write_range(&self, rows: Range<usize>, out: &mut dyn std::io::Write) -> Result<()> {
        const CHUNK: usize = 1 << 16;
        let numbers = rows.start * self.dim..rows.end * self.dim;
        let mut bytes = Vec::new();
        match &self.data {
            Data::F32(data) => {
                for chunk in data[numbers].chunks(CHUNK) {
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|number| number.to_le_bytes()));
                    out.write_all(&bytes)?;
                }
            }
            Data::F16(data) => {
                for chunk in data[numbers].chunks(CHUNK) {
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|number| number.to_le_bytes()));
                    out.write_all(&bytes)?;
                }
            }
            Data::Disk { file, start, precision, .. } => {
                use fs_err::os::unix::fs::FileExt;
                let end = numbers.end * precision.bytes();
                for at in (numbers.start * precision.bytes()..end).step_by(CHUNK) {
                    bytes.resize(CHUNK.min(end - at), 0);
                    file.read_exact_at(&mut bytes, start + at as u64)?;
                    out.write_all(&bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// Checks vectors and scales them as the similarity asks.
pub(crate) fn prepare(vectors: Vectors<'_>, dim: usize, similarity: Similarity) -> Result<Cow<'_, [f32]>> {
    if vectors.dim() != dim {
        return Err(Error::Dimension { expected: dim, got: vectors.dim() });
    }
    let check = |(row, numbers): (usize, &[f32])| length(row, numbers, similarity);
    match similarity {
        Similarity::Dot => {
            vectors.data().par_chunks_exact(dim).enumerate().try_for_each(|row| check(row).map(drop))?;
            Ok(Cow::Borrowed(vectors.data()))
        }
        Similarity::Cosine => {
            let mut scaled = vectors.data().to_vec();
            scaled.par_chunks_exact_mut(dim).enumerate().try_for_each(|(row, numbers)| {
                let length = check((row, numbers))?;
                for number in numbers {
                    *number = (f64::from(*number) / length) as f32;
                }
                Ok::<(), Error>(())
            })?;
            Ok(Cow::Owned(scaled))
        }
    }
}

/// Little-endian numbers to `f32`.
pub(crate) fn decode_into(bytes: &[u8], precision: Precision, out: &mut [f32]) {
    match precision {
        Precision::F32 => {
            for (number, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        Precision::F16 => {
            let halves: Vec<f16> =
                bytes.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]])).collect();
            halves.convert_to_f32_slice(out);
        }
    }
}

/// The length of a row, if it is a length to compute with.
fn length(row: usize, numbers: &[f32], similarity: Similarity) -> Result<f64> {
    let square = kernel::dot(numbers, numbers);
    if square.is_finite() && square > 1e-30 {
        return Ok(f64::from(square).sqrt());
    }
    // Rare: NaN, infinity, zeros, or numbers whose squares leave the range of f32.
    if let Some(column) = numbers.iter().position(|number| !number.is_finite()) {
        return Err(Error::NotFinite { row, column, value: numbers[column] });
    }
    let square: f64 = numbers.iter().map(|number| f64::from(*number).powi(2)).sum();
    match similarity {
        Similarity::Dot if square > f64::from(f32::MAX) / 2.0 => {
            let value = numbers.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0);
            Err(Error::TooLarge { row, precision: "f32", value })
        }
        Similarity::Cosine if square == 0.0 => Err(Error::ZeroVector { row }),
        _ => Ok(square.sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(similarity: Similarity, precision: Precision, data: &[f32]) -> Result<Rows> {
        let mut rows = Rows::new(2, similarity, precision)?;
        rows.add(Vectors::new(data, 2)?)?;
        Ok(rows)
    }

    #[test]
    fn rows_are_checked() {
        use Precision::{F16, F32};
        use Similarity::{Cosine, Dot};
        let bad = |similarity, precision, data: &[f32]| add(similarity, precision, data).unwrap_err();
        for similarity in [Cosine, Dot] {
            assert!(matches!(
                bad(similarity, F32, &[1.0, 2.0, 0.0, f32::NAN]),
                Error::NotFinite { row: 1, column: 1, .. }
            ));
            assert!(matches!(
                bad(similarity, F32, &[f32::INFINITY, 0.0]),
                Error::NotFinite { row: 0, column: 0, .. }
            ));
        }
        assert!(matches!(bad(Cosine, F32, &[1.0, 2.0, 0.0, -0.0]), Error::ZeroVector { row: 1 }));
        assert!(matches!(bad(Dot, F32, &[1e30, 2.0]), Error::TooLarge { row: 0, precision: "f32", .. }));
        assert!(matches!(
            bad(Dot, F16, &[1.0, 1.0, 7e4, 2.0]),
            Error::TooLarge { row: 1, precision: "f16", .. }
        ));
        assert!(matches!(
            Rows::new(3, Dot, F32).unwrap().add(Vectors::new(&[1.0; 4], 2).unwrap()),
            Err(Error::Dimension { expected: 3, got: 2 })
        ));
        assert!(Rows::new(0, Dot, F32).is_err());
        add(Dot, F32, &[0.0, 0.0]).unwrap();
    }

    #[test]
    fn the_cosine_scales_extreme_rows_too() {
        let rows =
            add(Similarity::Cosine, Precision::F32, &[3.0, 4.0, 3e-30, 4e-30, 3e30, 4e30, 3e-44, 4e-44])
                .unwrap();
        for id in 0..3 {
            let row = rows.row(id).unwrap();
            assert!((row[0] - 0.6).abs() < 1e-6 && (row[1] - 0.8).abs() < 1e-6, "{row:?}");
        }
        // Denormal numbers have few digits left, but a direction.
        assert!((rows.row(3).unwrap()[0] - 0.6).abs() < 0.1);
        assert!(matches!(rows.row(4), Err(Error::NoSuchRow { id: 4, len: 4 })));
    }
}
