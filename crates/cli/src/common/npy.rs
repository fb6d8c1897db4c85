//! numpy's file format (version 1.0) for f32 matrices: written row by row, the count of rows filled in at the end.

use anyhow::{Context, Result, bail};
use fs_err::File;
use ragduet_index::VectorFile;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

const HEADER: usize = 128;

/// Appends rows to a file, in a folder that is whole or not there.
#[derive(Debug)]
pub struct NpyWriter {
    file: BufWriter<File>,
    dim: usize,
    rows: u64,
}

impl NpyWriter {
    /// Starts a file of rows of `dim` numbers.
    pub fn create(path: &Path, dim: usize) -> Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&[b' '; HEADER])?;
        Ok(Self { file, dim, rows: 0 })
    }

    /// Appends whole rows.
    pub fn write(&mut self, rows: &[f32]) -> std::io::Result<()> {
        for x in rows {
            self.file.write_all(&x.to_le_bytes())?;
        }
        self.rows += (rows.len() / self.dim) as u64;
        Ok(())
    }

    /// Writes the header.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush()?;
        let mut file = self.file.into_inner().map_err(|e| e.into_error())?;
        let dict =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", self.rows, self.dim);
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(b"\x93NUMPY\x01\x00");
        header.extend_from_slice(&((HEADER - 10) as u16).to_le_bytes());
        header.extend_from_slice(dict.as_bytes());
        header.resize(HEADER - 1, b' ');
        header.push(b'\n');
        file.seek(SeekFrom::Start(0))?;
        Ok(file.write_all(&header)?)
    }
}

/// A matrix in a file.
#[derive(Debug)]
pub struct NpyReader {
    file: BufReader<File>,
    /// Rows in all.
    pub rows: usize,
    /// Numbers per row.
    pub dim: usize,
}

impl NpyReader {
    /// Opens a little-endian f32 matrix in C order.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let mut start = [0u8; 10];
        file.read_exact(&mut start).with_context(|| format!("{}: not a .npy file", path.display()))?;
        if &start[..6] != b"\x93NUMPY" || start[6] != 1 {
            bail!("{}: not a .npy file of version 1.0", path.display());
        }
        let mut header = vec![0u8; usize::from(u16::from_le_bytes([start[8], start[9]]))];
        file.read_exact(&mut header)?;
        let text = String::from_utf8_lossy(&header);
        let shape: Vec<usize> = text
            .split_once("'shape': (")
            .and_then(|(_, s)| s.split_once(')'))
            .map(|(s, _)| s.split(',').filter_map(|n| n.trim().parse().ok()).collect())
            .unwrap_or_default();
        let plain = text.contains("'<f4'") && text.contains("'fortran_order': False");
        let (true, [rows, dim]) = (plain, shape.as_slice()) else {
            bail!(
                "{}: expected a two-dimensional little-endian float32 array in C order, found {}",
                path.display(),
                text.trim()
            );
        };
        Ok(Self { file, rows: *rows, dim: *dim })
    }

    /// The vectors, left in the file.
    ///
    /// # Errors
    /// A file that is cut.
    pub fn vectors(mut self) -> Result<VectorFile> {
        let start = self.file.stream_position()?;
        Ok(VectorFile::new(self.file.into_inner(), start, self.rows, self.dim)?)
    }
}
