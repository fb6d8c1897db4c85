//! An index on disk: a directory with a manifest, `index.json`, and the files it names with their checksums.
//!
//! | file | holds |
//! |---|---|
//! | `index.json` | format version, kind, dimension, similarity, row count, settings as asked for and as used, size and CRC-32 of every other file, and its own CRC-32 |
//! | `vectors.bin` | the rows, little-endian `f32` or `f16`, row after row |
//! | `graph.bin` | HNSW only: see `hnsw/file.rs` |
//! | `codes.bin`, `rescore.bin` | compressed only: see `compressed/codes.rs` |
//! | `documents.bin`, `terms.txt` | lexical only: see `lexical/file.rs` |
//! | `weights.bin` | sparse only: see `sparse/file.rs` |
//! | `ids.txt` | optional external ids: see [`IdMap`](crate::IdMap) |
//!
//! All numbers are little-endian and of fixed width, so a directory can be copied between machines. It is written
//! beside its final place, synced, and put there in one call ([`ragduet_files::OutputFolder`]): it is complete or absent.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use half::f16;
use ragduet_files::OutputFolder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ids::{IDS, IdMap};
use crate::rows::{Precision, Rows};
use crate::{Error, IndexKind, Result, Similarity};

mod manifest;

pub(crate) use manifest::{AnyHeader, Manifest, Settings, VectorHeader};
use manifest::{FORMAT, FileSum, VERSION};

pub(crate) const MANIFEST: &str = "index.json";
pub(crate) const VECTORS: &str = "vectors.bin";

/// Files of an index folder that name the others, and the source that a search needs.
const BESIDE: [&str; 3] = [MANIFEST, LIST, "source.json"];
/// The list of all files that [`replace_index`] leaves.
const LIST: &str = "files.json";

/// Whether a name in a folder is that of an index's file, so that a new index may take the folder's place: of any
/// version, since its manifest says which files it has.
fn is_ours(folder: &Path) -> impl Fn(&OsStr) -> bool + use<> {
    let json = |name: &str| -> Option<Value> {
        serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok()
    };
    let mut names: HashSet<String> = HashSet::new();
    if let Some(manifest) = json(MANIFEST).filter(|m| m["format"] == FORMAT) {
        names.extend(BESIDE.map(String::from));
        names.extend(manifest["files"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        let listed = json(LIST);
        let listed = listed.iter().filter_map(Value::as_array).flatten();
        names.extend(listed.filter_map(Value::as_str).map(String::from));
    }
    move |name| name.to_str().is_some_and(|name| names.contains(name))
}

/// A folder that takes the place of an index, or of none.
fn begin(target: &Path) -> Result<OutputFolder<'static>> {
    OutputFolder::replacing(target, is_ours(target)).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let (path, said) = (target.to_owned(), e.to_string());
            let problem = said.split_once(": ").map_or(said.clone(), |(_, rest)| rest.to_owned());
            Error::NotAnIndex { path, problem }
        }
        _ => e.into(),
    })
}

/// Fills a folder and puts it in the place of `target`, whole or not at all. An index that is there is replaced; a folder
/// that holds anything else is not. `fill` saves an index and what belongs to it.
///
/// # Errors
/// Those of `fill`; a folder that holds something else.
pub fn replace_index<E: From<Error>>(
    target: impl AsRef<Path>,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let target = target.as_ref();
    let folder = begin(target)?;
    fill(folder.path())?;
    list(folder.path())?;
    Ok(folder.finish().map_err(Error::from)?)
}

/// Writes down which files are the index's, so that what is put beside them later is not taken for one.
fn list(folder: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let text = serde_json::to_vec(&names).map_err(std::io::Error::other)?;
    Ok(ragduet_files::write(folder.join(LIST), text)?)
}

/// A directory being written.
pub(crate) struct Writer<H> {
    folder: OutputFolder<'static>,
    manifest: Manifest<H>,
}

impl<H: Serialize> Writer<H> {
    pub(crate) fn new(target: &Path, manifest: Manifest<H>) -> Result<Self> {
        let folder = begin(target)?;
        Ok(Self { folder, manifest })
    }

    /// Writes one file and notes its checksum.
    pub(crate) fn file(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let mut file = self.begin(name)?;
        write(&mut file)?;
        self.end(name, file)
    }

    /// Begins a file, where several are written at a time; [`Writer::end`] notes its checksum.
    pub(crate) fn begin(&self, name: &str) -> Result<Summing> {
        let file = fs_err::File::create(self.folder.path().join(name))?;
        Ok(Summing { inner: BufWriter::with_capacity(1 << 20, file), crc: Default::default(), bytes: 0 })
    }

    /// Ends a file that was begun.
    pub(crate) fn end(&mut self, name: &str, mut file: Summing) -> Result<()> {
        file.inner.flush()?;
        let sum = FileSum { bytes: file.bytes, crc32: file.crc.finalize() };
        self.manifest.files.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Writes the external ids of so many rows, if there are any.
    pub(crate) fn ids(&mut self, ids: Option<&IdMap>, rows: usize) -> Result<()> {
        let Some(ids) = ids else { return Ok(()) };
        ids.check_len(rows)?;
        self.file(IDS, |out| ids.write(out))
    }

    /// Writes the manifest and puts the directory in its place.
    pub(crate) fn finish(mut self) -> Result<()> {
        let text = sealed(&self.manifest).map_err(std::io::Error::other)?;
        let files = self.manifest.files.clone();
        self.file(MANIFEST, |out| Ok(out.write_all(format!("{text}\n").as_bytes())?))?;
        self.manifest.files = files;
        Ok(self.folder.finish()?)
    }
}

/// A file of an index being written, and its checksum so far.
pub(crate) struct Summing {
    inner: BufWriter<fs_err::File>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// The manifest's own checksum, a key of it: of all its others.
const SUM: &str = "crc32";

/// A manifest as it is written, with its checksum.
fn sealed(manifest: &impl Serialize) -> serde_json::Result<String> {
    let mut value: Value = serde_json::from_str(&serde_json::to_string(manifest)?)?;
    value[SUM] = crc32fast::hash(value.to_string().as_bytes()).into();
    serde_json::to_string_pretty(&value)
}

/// Takes the checksum out of a manifest: whether it is right. Indexes of earlier versions have none.
fn unsealed(value: &mut Value) -> bool {
    let given = value.as_object_mut().and_then(|map| map.shift_remove(SUM));
    given.is_none_or(|sum| sum.as_u64() == Some(crc32fast::hash(value.to_string().as_bytes()).into()))
}

/// How an index is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Leave the vectors of an exact index in their file and read them during each search, block by block: for a
    /// corpus larger than memory. Such an index cannot be added to.
    pub on_disk: bool,
    /// Compare the files with their checksums. Reading vectors into memory always does; this is for those that stay
    /// on disk, where it costs one pass over the file.
    pub verify: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { on_disk: false, verify: true }
    }
}

/// A directory being read.
pub(crate) struct Reader<H> {
    dir: PathBuf,
    pub(crate) manifest: Manifest<H>,
}

impl<H: DeserializeOwned> Reader<H> {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        if !path.is_file() {
            let problem = format!("has no {MANIFEST}; give the directory that `index build` wrote");
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        }
        let text = fs_err::read_to_string(&path)?;
        let corrupt =
            |error: serde_json::Error| Error::Corrupt { path: path.clone(), problem: error.to_string() };
        // Format and version first: another version may have other fields.
        let mut value: Value = serde_json::from_str(&text).map_err(corrupt)?;
        if value["format"] != FORMAT {
            return Err(Error::NotAnIndex { path, problem: format!("its `format` is not {FORMAT:?}") });
        }
        let version = value["version"].as_u64().and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
        if version != VERSION {
            return Err(Error::Version { path, got: version, expected: VERSION });
        }
        if !unsealed(&mut value) {
            let problem = "it is not as it was written: its checksum differs; build the index again".into();
            return Err(Error::Corrupt { path, problem });
        }
        let manifest: Manifest<H> = serde_json::from_value(value).map_err(corrupt)?;
        if manifest.count > crate::rows::MAX_ROWS {
            return Err(Error::Corrupt { path, problem: format!("{} rows", manifest.count) });
        }
        Ok(Self { dir: dir.to_owned(), manifest })
    }

    /// Settings of the manifest, if they are of this kind of index.
    pub(crate) fn settings<C: DeserializeOwned>(&self, settings: &Settings, kind: &str) -> Result<Option<C>> {
        settings.of(kind).map_err(|e| self.corrupt(MANIFEST, format!("its {kind} settings: {e}")))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.manifest.files.contains_key(name)
    }

    pub(crate) fn corrupt(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Corrupt { path: self.path(name), problem: problem.into() }
    }

    pub(crate) fn sum(&self, name: &str) -> Result<FileSum> {
        self.manifest
            .files
            .get(name)
            .copied()
            .ok_or_else(|| self.corrupt(MANIFEST, format!("names no {name}")))
    }

    /// A whole file, compared with its checksum.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.check(name, |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// A whole file of `count` numbers of `N` bytes each, compared with its checksum.
    pub(crate) fn numbers<T, const N: usize>(
        &self,
        name: &str,
        count: usize,
        number: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let bytes = self.sum(name)?.bytes;
        if count.checked_mul(N).map(|n| n as u64) != Some(bytes) {
            return Err(
                self.corrupt(MANIFEST, format!("{name} has {bytes} bytes for {count} numbers of {N}"))
            );
        }
        let mut data = Vec::with_capacity(count);
        // Numbers never straddle chunks of a power of two, but a read may be short: hence the remainder.
        let mut rest: Vec<u8> = Vec::new();
        self.check(name, |chunk| pieces::<N>(&mut rest, chunk, |bytes| data.push(number(bytes))))?;
        Ok(data)
    }

    /// Reads a file in pieces and compares it with its checksum.
    pub(crate) fn check(&self, name: &str, mut chunk: impl FnMut(&[u8])) -> Result<()> {
        let sum = self.sum(name)?;
        let mut file = self.sized(name, sum)?;
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            crc.update(&buffer[..read]);
            chunk(&buffer[..read]);
        }
        let got = crc.finalize();
        if got != sum.crc32 {
            return Err(self.corrupt(name, format!("its CRC-32 is {got:08x}, not {:08x}", sum.crc32)));
        }
        Ok(())
    }

    /// A file to read from as needed; only its size is compared.
    pub(crate) fn file(&self, name: &str) -> Result<fs_err::File> {
        self.sized(name, self.sum(name)?)
    }

    fn sized(&self, name: &str, sum: FileSum) -> Result<fs_err::File> {
        let file = fs_err::File::open(self.path(name))?;
        let bytes = file.metadata()?.len();
        if bytes != sum.bytes {
            return Err(self.corrupt(name, format!("it has {bytes} bytes, not {}", sum.bytes)));
        }
        Ok(file)
    }

    /// The vectors in a file.
    pub(crate) fn vectors(
        &self,
        name: &str,
        precision: Precision,
        count: usize,
        dim: usize,
        similarity: Similarity,
        options: &OpenOptions,
    ) -> Result<Rows> {
        if dim == 0 {
            return Err(self.corrupt(MANIFEST, "vectors of dimension 0"));
        }
        let sum = self.sum(name)?;
        let numbers = count.checked_mul(dim);
        let expected = numbers.and_then(|n| n.checked_mul(precision.bytes()));
        let Some(numbers) = numbers.filter(|_| expected.map(|n| n as u64) == Some(sum.bytes)) else {
            let problem = format!("{} bytes of vectors for {count} rows of dimension {dim}", sum.bytes);
            return Err(self.corrupt(MANIFEST, problem));
        };
        if options.on_disk {
            if options.verify {
                self.check(name, |_| ())?;
            }
            let file = self.sized(name, sum)?;
            return Ok(Rows::on_disk(file, 0, precision, count, dim, similarity));
        }
        Ok(match precision {
            Precision::F32 => {
                Rows::from_f32(self.numbers(name, numbers, f32::from_le_bytes)?, dim, similarity)
            }
            Precision::F16 => {
                Rows::from_f16(self.numbers(name, numbers, f16::from_le_bytes)?, dim, similarity)
            }
        })
    }
}

/// Which kind of index a directory holds.
pub fn kind(dir: impl AsRef<Path>) -> Result<IndexKind> {
    Ok(Reader::<AnyHeader>::open(dir.as_ref())?.manifest.kind)
}

impl Reader<VectorHeader> {
    pub(crate) fn rows(&self, options: &OpenOptions) -> Result<Rows> {
        let VectorHeader { dim, similarity, precision, .. } = self.manifest.header;
        self.vectors(VECTORS, precision, self.manifest.count, dim, similarity, options)
    }
}

/// Cuts a stream of chunks into pieces of `N` bytes; `rest` carries over what is left of a chunk.
fn pieces<const N: usize>(rest: &mut Vec<u8>, mut chunk: &[u8], mut piece: impl FnMut([u8; N])) {
    while !rest.is_empty() && rest.len() < N {
        let Some((&byte, tail)) = chunk.split_first() else { return };
        rest.push(byte);
        chunk = tail;
        if let Ok(bytes) = <[u8; N]>::try_from(rest.as_slice()) {
            piece(bytes);
            rest.clear();
        }
    }
    let whole = chunk.chunks_exact(N);
    rest.extend_from_slice(whole.remainder());
    for bytes in whole {
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        piece(array);
    }
}

/// Takes the next little-endian number off the front of a file's bytes.
pub(crate) fn number(rest: &mut &[u8]) -> Result<u32, String> {
    let (bytes, tail) = rest.split_first_chunk::<4>().ok_or("it ends too early")?;
    *rest = tail;
    Ok(u32::from_le_bytes(*bytes))
}
