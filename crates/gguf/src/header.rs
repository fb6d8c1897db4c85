//! Reading what precedes the data: header, metadata, list of tensors. Nothing is allocated for what the file is too short
//! to hold.

use crate::kind::name_of;
use crate::{Array, Error, Metadata, Result, TensorType, Value};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The first four bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Where tensors begin, where the file does not say otherwise.
pub(crate) const ALIGNMENT: u64 = 32;
/// As ggml has it.
const MOST_DIMENSIONS: u32 = 4;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its sizes, rows before columns (the file has them the other way round).
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: TensorType,
    /// Where in the file it begins.
    pub start: u64,
    /// How many bytes it takes there.
    pub bytes: u64,
}

impl TensorInfo {
    /// How many numbers it has.
    pub fn numbers(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What precedes the data of a file.
pub(crate) struct Header {
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

impl Header {
    pub fn read(path: &Path, file: impl Read, size: u64) -> Result<Self> {
        let mut bytes = Bytes { path, inner: BufReader::with_capacity(1 << 16, file), at: 0, size };
        if size < 4 || bytes.array::<4>()? != MAGIC {
            return Err(Error::NotGguf(path.into()));
        }
        let version = bytes.u32()?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => return Err(Error::BigEndian(path.into())),
            _ => return Err(Error::Version { path: path.into(), version }),
        }
        let tensors = bytes.u64()?;
        let values = bytes.u64()?;
        let metadata = bytes.metadata(values)?;
        let parts = metadata.count("split.count")?.unwrap_or(0);
        if parts > 1 {
            return Err(Error::Split { path: path.into(), parts });
        }
        let tensors = bytes.tensors(tensors, &metadata)?;
        Ok(Self { metadata, tensors })
    }
}

/// The bytes of a file from its beginning, and how many are left.
struct Bytes<'a, R> {
    path: &'a Path,
    inner: R,
    at: u64,
    size: u64,
}

impl<R: BufRead> Bytes<'_, R> {
    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.into(), at: self.at, reason: reason.into() }
    }

    /// Checks that `count` things of at least `least` bytes each can follow.
    fn room(&self, count: u64, least: u64, what: &str) -> Result<usize> {
        let left = self.size - self.at;
        match count.checked_mul(least) {
            Some(bytes) if bytes <= left => {
                usize::try_from(count).map_err(|_| self.wrong(format!("{count} {what}")))
            }
            _ => Err(self.wrong(format!("{count} {what} do not fit into the {left} bytes that are left"))),
        }
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<()> {
        self.room(to.len() as u64, 1, "bytes")?;
        self.inner.read_exact(to)?;
        self.at += to.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u64()?;
        let mut out = vec![0; self.room(length, 1, "bytes of text")?];
        self.fill(&mut out)?;
        String::from_utf8(out).map_err(|_| self.wrong("a text that is not UTF-8"))
    }

    fn bool(&mut self) -> Result<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [n] => Err(self.wrong(format!("{n} where 0 or 1 must be"))),
        }
    }

    fn many<T>(&mut self, count: u64, least: u64, read: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.room(count, least, "values")?;
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            out.push(read(self)?);
        }
        Ok(out)
    }

    fn value(&mut self, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.array()?)),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.bool()?),
            8 => Value::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                let count = self.u64()?;
                Value::Array(self.values(kind, count)?)
            }
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return Err(self.wrong(format!("{other} is no type of value"))),
        })
    }

    fn values(&mut self, kind: u32, n: u64) -> Result<Array> {
        Ok(match kind {
            0 => Array::U8(self.many(n, 1, |b| Ok(u8::from_le_bytes(b.array()?)))?),
            1 => Array::I8(self.many(n, 1, |b| Ok(i8::from_le_bytes(b.array()?)))?),
            2 => Array::U16(self.many(n, 2, |b| Ok(u16::from_le_bytes(b.array()?)))?),
            3 => Array::I16(self.many(n, 2, |b| Ok(i16::from_le_bytes(b.array()?)))?),
            4 => Array::U32(self.many(n, 4, Self::u32)?),
            5 => Array::I32(self.many(n, 4, |b| Ok(i32::from_le_bytes(b.array()?)))?),
            6 => Array::F32(self.many(n, 4, |b| Ok(f32::from_le_bytes(b.array()?)))?),
            7 => Array::Bool(self.many(n, 1, Self::bool)?),
            8 => Array::Text(self.many(n, 8, Self::text)?),
            10 => Array::U64(self.many(n, 8, Self::u64)?),
            11 => Array::I64(self.many(n, 8, |b| Ok(i64::from_le_bytes(b.array()?)))?),
            12 => Array::F64(self.many(n, 8, |b| Ok(f64::from_le_bytes(b.array()?)))?),
            9 => return Err(self.wrong("a list of lists, which llama.cpp has none of either")),
            other => return Err(self.wrong(format!("{other} is no type of value"))),
        })
    }

    fn metadata(&mut self, count: u64) -> Result<Metadata> {
        // Length of the key, type, the smallest value.
        let count = self.room(count, 8 + 4 + 1, "keys")?;
        let mut all = Metadata::new(self.path);
        for _ in 0..count {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            if !all.add(key.clone(), value) {
                return Err(self.wrong(format!("the key `{key}` is there twice")));
            }
        }
        Ok(all)
    }

    fn tensors(&mut self, count: u64, metadata: &Metadata) -> Result<Vec<TensorInfo>> {
        let alignment = metadata.count("general.alignment")?.unwrap_or(ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > self.size.max(ALIGNMENT) {
            return Err(
                metadata.wrong("general.alignment", format!("{alignment} is no power of two in the file"))
            );
        }
        // Length of the name, one dimension, type, place.
        let count = self.room(count, 8 + 4 + 8 + 4 + 8, "tensors")?;
        let mut names = HashSet::new();
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let info = self.tensor()?;
            if !names.insert(info.name.clone()) {
                return Err(self.wrong(format!("the tensor `{}` is there twice", info.name)));
            }
            all.push(info);
        }
        let data = self.at.next_multiple_of(alignment);
        for info in &mut all {
            if info.start % alignment != 0 {
                return Err(
                    self.wrong(format!("tensor `{}` does not begin at a multiple of {alignment}", info.name))
                );
            }
            let end = data.checked_add(info.start).and_then(|start| start.checked_add(info.bytes));
            if end.is_none_or(|end| end > self.size) {
                let reason = format!(
                    "tensor `{}` ends behind the end of the file: it is cut off ({} bytes are here)",
                    info.name, self.size
                );
                return Err(self.wrong(reason));
            }
            info.start += data;
        }
        Ok(all)
    }

    /// One row of the list; its place is relative to where the data begin.
    fn tensor(&mut self) -> Result<TensorInfo> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions == 0 || dimensions > MOST_DIMENSIONS {
            return Err(self.wrong(format!("tensor `{name}` has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        let mut numbers: Option<usize> = Some(1);
        for _ in 0..dimensions {
            let size = self.u64()?;
            let size = usize::try_from(size).ok().filter(|&n| n > 0);
            numbers = numbers.zip(size).and_then(|(n, size)| n.checked_mul(size));
            shape.push(size.unwrap_or(0));
        }
        let id = self.u32()?;
        let start = self.u64()?;
        let Some(numbers) = numbers else {
            return Err(self.wrong(format!("tensor `{name}` has an impossible shape {shape:?}")));
        };
        let Some(kind) = TensorType::of(id) else {
            return Err(Error::TensorType { path: self.path.into(), tensor: name, found: name_of(id) });
        };
        let (block, bytes) = kind.block();
        if !shape[0].is_multiple_of(block) {
            let reason =
                format!("rows of tensor `{name}` have {} numbers, which {kind} cannot hold", shape[0]);
            return Err(self.wrong(reason));
        }
        let bytes = ((numbers / block) as u64).checked_mul(bytes as u64);
        let Some(bytes) = bytes else {
            return Err(self.wrong(format!("tensor `{name}` has an impossible shape {shape:?}")));
        };
        shape.reverse();
        Ok(TensorInfo { name, shape, kind, start, bytes })
    }
}
