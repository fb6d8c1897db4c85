//! Vectors in a file, read by position: what an index larger than memory is built from.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use fs_err::File;
use fs_err::os::unix::fs::FileExt;

use crate::rows::{MAX_ROWS, Precision, Rows, decode_into};
use crate::{Error, Result, Similarity, Vectors};

/// Bytes of vectors in memory at a time.
const BLOCK_BYTES: usize = 8 << 20;
/// Blocks are multiples of what quantizers work on together, so that blocks change no result.
const MULTIPLE: usize = 512;

/// Vectors in a file: little-endian `f32`, row after row.
#[derive(Debug)]
pub struct VectorFile {
    file: File,
    /// Where the first row begins.
    start: u64,
    rows: usize,
    dim: usize,
}

impl VectorFile {
    /// The `rows` vectors that begin at byte `start` of a file, such as the numbers of a `.npy`.
    ///
    /// # Errors
    /// A file of another size.
    pub fn new(file: File, start: u64, rows: usize, dim: usize) -> Result<Self> {
        if dim == 0 {
            return Err(Error::NotRows { len: 0, dim });
        }
        let bytes = file.metadata()?.len();
        let row = (dim as u64).checked_mul(4);
        let wanted = row.and_then(|n| n.checked_mul(rows as u64)).and_then(|n| n.checked_add(start));
        if wanted != Some(bytes) {
            return Err(Error::NotVectors { path: file.path().to_owned(), bytes, rows, dim });
        }
        Ok(Self { file, start, rows, dim })
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Reads vectors one after another into `out`, whose length they have.
    fn read(&self, rows: Range<usize>, bytes: &mut Vec<u8>, out: &mut [f32]) -> Result<()> {
        bytes.resize(out.len() * 4, 0);
        self.file.read_exact_at(bytes, self.start + (rows.start * self.dim * 4) as u64)?;
        decode_into(bytes, Precision::F32, out);
        Ok(())
    }

    /// Some of the vectors, in the order asked for.
    ///
    /// # Errors
    /// A row that is not there.
    pub fn pick(&self, rows: &[usize]) -> Result<Vec<f32>> {
        let (mut out, mut bytes) = (vec![0.0; rows.len() * self.dim], Vec::new());
        for (out, &row) in out.chunks_exact_mut(self.dim).zip(rows) {
            if row >= self.rows {
                return Err(Error::NoSuchRow { id: row as u32, len: self.rows });
            }
            self.read(row..row + 1, &mut bytes, out)?;
        }
        Ok(out)
    }

    /// Hands over all vectors in order, a block at a time. The row that an error names is counted from the file's
    /// first.
    ///
    /// # Errors
    /// Those of `take`; a file that cannot be read.
    pub fn blocks(&self, mut take: impl FnMut(Vectors<'_>) -> Result<()>) -> Result<()> {
        let per_block = (BLOCK_BYTES / (self.dim * 4) / MULTIPLE).max(1) * MULTIPLE;
        let (mut out, mut bytes) = (Vec::new(), Vec::new());
        for first in (0..self.rows).step_by(per_block) {
            let rows = first..self.rows.min(first + per_block);
            out.resize(rows.len() * self.dim, 0.0);
            self.read(rows, &mut bytes, &mut out)?;
            take(Vectors::of(&out, self.dim)).map_err(|e| e.counted_from(first))?;
        }
        Ok(())
    }

    /// The same vectors as the rows of an index that leaves them in their file.
    pub(crate) fn into_rows(self, similarity: Similarity) -> Rows {
        Rows::on_disk(self.file, self.start, Precision::F32, self.rows, self.dim, similarity)
    }

    /// Checks that the vectors fit one index.
    pub(crate) fn check_rows(&self) -> Result<()> {
        match self.rows > MAX_ROWS {
            true => Err(Error::TooManyRows { rows: self.rows, limit: MAX_ROWS }),
            false => Ok(()),
        }
    }
}

/// Vectors as they come, written to a file without a name that ends with the process.
#[derive(Debug)]
pub struct VectorSpool {
    out: BufWriter<File>,
    bytes: Vec<u8>,
    rows: usize,
    dim: usize,
}

impl VectorSpool {
    /// No vectors yet, of `dim` numbers; they take their room in the filesystem of `folder`.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn create(folder: &Path, dim: usize) -> Result<Self> {
        if dim == 0 {
            return Err(Error::NotRows { len: 0, dim });
        }
        let path = folder.join(".vectors.spool");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = fs_err::OpenOptions::from_options(options).open(&path)?;
        fs_err::remove_file(&path)?;
        Ok(Self { out: BufWriter::with_capacity(1 << 20, file), bytes: Vec::new(), rows: 0, dim })
    }

    /// Appends vectors, one after another in one slice.
    ///
    /// # Errors
    /// A slice that is no whole number of vectors; a full disk.
    pub fn push(&mut self, vectors: &[f32]) -> Result<()> {
        let vectors = Vectors::new(vectors, self.dim)?;
        for row in vectors.rows() {
            self.bytes.clear();
            self.bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
            self.out.write_all(&self.bytes)?;
        }
        self.rows += vectors.len();
        Ok(())
    }

    /// The vectors, to be read.
    ///
    /// # Errors
    /// A full disk.
    pub fn finish(self) -> Result<VectorFile> {
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        VectorFile::new(file, 0, self.rows, self.dim)
    }
}
