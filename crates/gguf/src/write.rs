//! Writing a file: version 3, little-endian, one tensor in memory at a time.

use crate::header::{ALIGNMENT, MAGIC};
use crate::{Array, Error, TensorType, Value, quantize};
use ragduet_files::OutputFile;
use std::io::Write;
use std::path::Path;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// Its sizes, rows before columns.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub kind: TensorType,
}

impl TensorPlan {
    fn bytes(&self) -> u64 {
        let (block, bytes) = self.kind.block();
        (self.shape.iter().product::<usize>() / block * bytes) as u64
    }
}

/// A file that is to be written: metadata, and what tensors there will be.
#[derive(Debug, Clone, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorPlan>,
}

impl GgufWriter {
    /// A file of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value; a key that is there gets the new one.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.metadata.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key, value)),
        }
    }

    /// Adds a tensor.
    pub fn plan(&mut self, tensor: TensorPlan) {
        self.tensors.push(tensor);
    }

    /// What tensors there will be.
    pub fn tensors(&self) -> &[TensorPlan] {
        &self.tensors
    }

    /// Writes the file, complete or not at all. `numbers` is asked for the numbers of each tensor in turn.
    ///
    /// # Errors
    /// What `numbers` fails with; numbers that the type does not hold; a file that cannot be written.
    pub fn write<E: From<Error>>(
        &self,
        path: &Path,
        mut numbers: impl FnMut(&TensorPlan) -> std::result::Result<Vec<f32>, E>,
    ) -> std::result::Result<(), E> {
        let io = |e: std::io::Error| E::from(Error::Io(e));
        let mut file = OutputFile::create(path).map_err(io)?;
        let header = self.header();
        file.write_all(&header).map_err(io)?;
        for tensor in &self.tensors {
            let numbers = numbers(tensor)?;
            let bytes = quantize(&tensor.name, tensor.kind, &numbers)?;
            if bytes.len() as u64 != tensor.bytes() {
                let reason = format!("it has {} numbers, its shape is {:?}", numbers.len(), tensor.shape);
                return Err(
                    Error::Unwritable { tensor: tensor.name.clone(), kind: tensor.kind, reason }.into()
                );
            }
            file.write_all(&bytes).map_err(io)?;
            file.write_all(&padding(bytes.len() as u64)).map_err(io)?;
        }
        file.finish().map_err(io)
    }

    fn header(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            out.extend(type_of(value).to_le_bytes());
            put(&mut out, value);
        }
        let mut place = 0;
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&n| out.extend((n as u64).to_le_bytes()));
            out.extend(tensor.kind.id().to_le_bytes());
            out.extend(u64::to_le_bytes(place));
            place += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        out.extend(padding(out.len() as u64));
        out
    }
}

fn padding(length: u64) -> Vec<u8> {
    vec![0; (length.next_multiple_of(ALIGNMENT) - length) as usize]
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn type_of(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(n) => out.push(*n),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(n) => out.extend(n.to_le_bytes()),
        Value::Bool(on) => out.push((*on).into()),
        Value::Text(t) => text(out, t),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(n) => out.extend(n.to_le_bytes()),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut head = |kind: u32, count: usize| {
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match array {
        Array::U8(all) => head(0, all.len()),
        Array::I8(all) => head(1, all.len()),
        Array::U16(all) => head(2, all.len()),
        Array::I16(all) => head(3, all.len()),
        Array::U32(all) => head(4, all.len()),
        Array::I32(all) => head(5, all.len()),
        Array::F32(all) => head(6, all.len()),
        Array::Bool(all) => head(7, all.len()),
        Array::Text(all) => head(8, all.len()),
        Array::U64(all) => head(10, all.len()),
        Array::I64(all) => head(11, all.len()),
        Array::F64(all) => head(12, all.len()),
    }
    match array {
        Array::U8(all) => out.extend(all),
        Array::I8(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::U16(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::I16(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::U32(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::I32(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::F32(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::Bool(all) => all.iter().for_each(|&on| out.push(on.into())),
        Array::Text(all) => all.iter().for_each(|t| text(out, t)),
        Array::U64(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::I64(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
        Array::F64(all) => all.iter().for_each(|n| out.extend(n.to_le_bytes())),
    }
}
