//! A file under a temporary name that gets its own name only when it is whole.

use std::io::Write;
use std::path::Path;

use ragduet_files::OutputFile;
use serde::Serialize;

use crate::Result;
use crate::source::extension;

/// An [`OutputFile`], compressed as its extension says; dropped before `finish`, it leaves nothing behind.
pub(crate) struct AtomicFile(Sink);

enum Sink {
    Plain(OutputFile),
    Gzip(flate2::write::GzEncoder<OutputFile>),
    Zstd(zstd::Encoder<'static, OutputFile>),
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
        let file = OutputFile::create(path)?;
        Ok(Self(match compression {
            "gz" => Sink::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
            "zst" => Sink::Zstd(zstd::Encoder::new(file, 3)?),
            _ => Sink::Plain(file),
        }))
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(Write::write_all(self, bytes)?)
    }

    pub(crate) fn write_json(&mut self, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(std::io::Error::from)?;
        self.write_all(&bytes)
    }

    pub(crate) fn finish(self) -> Result<()> {
        let file = match self.0 {
            Sink::Plain(file) => file,
            Sink::Gzip(encoder) => encoder.finish()?,
            Sink::Zstd(encoder) => encoder.finish()?,
        };
        Ok(file.finish()?)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Sink::Plain(file) => file.write(bytes),
            Sink::Gzip(encoder) => encoder.write(bytes),
            Sink::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.0 {
            Sink::Plain(file) => file.flush(),
            Sink::Gzip(encoder) => encoder.flush(),
            Sink::Zstd(encoder) => encoder.flush(),
        }
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
