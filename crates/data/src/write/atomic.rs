//! A file under a temporary name that gets its own name only when it is whole.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use crate::source::extension;

/// Written to a hidden neighbour, synced and renamed by `finish`; dropped before, it leaves nothing behind.
pub(crate) struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    sink: Option<Sink>,
}

enum Sink {
    Plain(BufWriter<fs_err::File>),
    Gzip(flate2::write::GzEncoder<BufWriter<fs_err::File>>),
    Zstd(zstd::Encoder<'static, BufWriter<fs_err::File>>),
}

impl AtomicFile {
    /// Begins the file; its extension decides about compression. Missing directories are made.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let compression = extension(path).to_owned();
        Self::create_as(path, &compression)
    }

    /// Begins a file that its writer compresses itself.
    pub(crate) fn create_raw(path: &Path) -> Result<Self> {
        Self::create_as(path, "")
    }

    fn create_as(path: &Path, compression: &str) -> Result<Self> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs_err::create_dir_all(parent)?;
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = BufWriter::with_capacity(256 * 1024, fs_err::File::create(temporary.clone())?);
        let sink = match compression {
            "gz" => Sink::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            "zst" => Sink::Zstd(zstd::Encoder::new(file, 3)?),
            _ => Sink::Plain(file),
        };
        Ok(Self { path: path.to_owned(), temporary, sink: Some(sink) })
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(Write::write_all(self, bytes)?)
    }

    pub(crate) fn write_json(&mut self, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(std::io::Error::from)?;
        self.write_all(&bytes)
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        let buffered = match self.sink.take() {
            Some(Sink::Plain(file)) => file,
            Some(Sink::Gzip(encoder)) => encoder.finish()?,
            Some(Sink::Zstd(encoder)) => encoder.finish()?,
            None => return Ok(()),
        };
        let file = buffered.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        drop(file);
        fs_err::rename(&self.temporary, &self.path)?;
        // The rename itself survives a power cut only once the directory is synced.
        if let Some(parent) = self.path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs_err::File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.sink {
            Some(Sink::Plain(file)) => file.write(bytes),
            Some(Sink::Gzip(encoder)) => encoder.write(bytes),
            Some(Sink::Zstd(encoder)) => encoder.write(bytes),
            None => Err(std::io::Error::other("the file is finished")),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.sink {
            Some(Sink::Plain(file)) => file.flush(),
            Some(Sink::Gzip(encoder)) => encoder.flush(),
            Some(Sink::Zstd(encoder)) => encoder.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After `finish` the temporary name is gone, and this does nothing.
        let _ = fs_err::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_until_finished() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "deep/a.jsonl.gz", "a.jsonl.zst"] {
            let path = dir.path().join(name);
            let mut file = AtomicFile::create(&path).unwrap();
            file.write_all(b"one\n").unwrap();
            assert!(!path.exists());
            file.finish().unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut crate::source::open(&path).unwrap(), &mut text).unwrap();
            assert_eq!(text, "one\n");
        }
        let dropped = AtomicFile::create(&dir.path().join("b")).unwrap();
        drop(dropped);
        let left: Vec<_> = fs_err::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
}
