//! A file that is open for reading.

use crate::dequantize::dequantize;
use crate::header::{Header, MAGIC};
use crate::{Error, Metadata, Result, TensorInfo};
use fs_err::File;
use fs_err::os::unix::fs::FileExt;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// About how many bytes are read at a time.
const PIECE: usize = 1 << 20;

/// Whether a path is a GGUF file: by its name or, as for the blobs that Ollama keeps, by how it begins.
pub fn is_gguf(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let begins = || {
        let mut first = [0; 4];
        File::open(path).and_then(|mut f| f.read_exact(&mut first)).is_ok() && first == MAGIC
    };
    named || begins()
}

/// A GGUF file: its metadata, and its tensors when asked for.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    places: HashMap<String, usize>,
}

impl GgufFile {
    /// Reads all that precedes the data, and checks that the data are there.
    ///
    /// # Errors
    /// Another kind of file or version, a damaged or incomplete one, tensors of types that are not read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let Header { metadata, tensors } = Header::read(path, &file, size)?;
        let places = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { path: path.into(), file, metadata, tensors, places })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// One of its tensors.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).map(|&at| &self.tensors[at])
    }

    /// The numbers of a tensor, row after row.
    ///
    /// # Errors
    /// A tensor that is not there; a file that cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let info = self
            .tensor(name)
            .ok_or_else(|| Error::NoTensor { path: self.path.clone(), tensor: name.into() })?;
        let block = info.kind.block().1;
        let piece = (PIECE / block * block) as u64;
        let mut out = Vec::with_capacity(info.numbers());
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < info.bytes {
            let length = piece.min(info.bytes - at);
            buffer.resize(length as usize, 0);
            self.file.read_exact_at(&mut buffer, info.start + at)?;
            dequantize(info.kind, &buffer, &mut out);
            at += length;
        }
        Ok(out)
    }
}
