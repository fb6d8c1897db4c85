//! Metadata: typed values under names, and what is asked of them.

use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// Several values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<u32> for Value {
    fn from(n: u32) -> Self {
        Self::U32(n)
    }
}

impl From<f32> for Value {
    fn from(x: f32) -> Self {
        Self::F32(x)
    }
}

impl From<bool> for Value {
    fn from(on: bool) -> Self {
        Self::Bool(on)
    }
}

/// The decimal that an f32 was written as: 1e-5, not 0.000009999999747378752.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| x.into())
}

impl Value {
    fn integer(&self) -> Option<i64> {
        Some(match *self {
            Self::U8(n) => n.into(),
            Self::I8(n) => n.into(),
            Self::U16(n) => n.into(),
            Self::I16(n) => n.into(),
            Self::U32(n) => n.into(),
            Self::I32(n) => n.into(),
            Self::U64(n) => i64::try_from(n).ok()?,
            Self::I64(n) => n,
            _ => return None,
        })
    }

    fn number(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(decimal(x)),
            Self::F64(x) => Some(x),
            _ => self.integer().map(|n| n as f64),
        }
    }
}

impl Array {
    fn integers(&self) -> Option<Vec<i64>> {
        Some(match self {
            Self::U8(all) => all.iter().map(|&n| n.into()).collect(),
            Self::I8(all) => all.iter().map(|&n| n.into()).collect(),
            Self::U16(all) => all.iter().map(|&n| n.into()).collect(),
            Self::I16(all) => all.iter().map(|&n| n.into()).collect(),
            Self::U32(all) => all.iter().map(|&n| n.into()).collect(),
            Self::I32(all) => all.iter().map(|&n| n.into()).collect(),
            Self::U64(all) => all.iter().map(|&n| i64::try_from(n).ok()).collect::<Option<_>>()?,
            Self::I64(all) => all.clone(),
            Self::Bool(all) => all.iter().map(|&on| on.into()).collect(),
            Self::F32(_) | Self::F64(_) | Self::Text(_) => return None,
        })
    }
}

/// The metadata of a file, in its order.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    path: PathBuf,
    entries: Vec<(String, Value)>,
    places: HashMap<String, usize>,
}

impl Metadata {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// False where the key is there already.
    pub(crate) fn add(&mut self, key: String, value: Value) -> bool {
        let new = self.places.insert(key.clone(), self.entries.len()).is_none();
        self.entries.push((key, value));
        new
    }

    /// The file that they are from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of them.
    pub fn entries(&self) -> &[(String, Value)] {
        &self.entries
    }

    /// One of them.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|&at| &self.entries[at].1)
    }

    /// The error of a value that cannot be what its key means.
    pub fn wrong(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Key { path: self.path.clone(), key: key.into(), reason: reason.into() }
    }

    /// What must be there.
    ///
    /// # Errors
    /// Where it is not.
    pub fn needed<T>(&self, key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, format!("is not {wanted}")))
    }

    /// A text.
    ///
    /// # Errors
    /// A value of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a text", |v| if let Value::Text(text) = v { Some(text.as_str()) } else { None })
    }

    /// A whole number from 0, of whatever width.
    ///
    /// # Errors
    /// A value of another type, or below 0.
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        self.read(key, "a whole number from 0", |v| v.integer().and_then(|n| u64::try_from(n).ok()))
    }

    /// A number; an f32 as the decimal that it was written as.
    ///
    /// # Errors
    /// A value of another type, or one that is not finite.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a finite number", |v| v.number().filter(|x| x.is_finite()))
    }

    /// On or off.
    ///
    /// # Errors
    /// A value of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", |v| if let Value::Bool(on) = v { Some(*on) } else { None })
    }

    /// A list of texts.
    ///
    /// # Errors
    /// A value of another type.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.read(key, "a list of texts", |v| match v {
            Value::Array(Array::Text(all)) => Some(all.as_slice()),
            _ => None,
        })
    }

    /// A list of whole numbers (or of true and false, as 1 and 0).
    ///
    /// # Errors
    /// A value of another type.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.read(key, "a list of whole numbers", |v| match v {
            Value::Array(all) => all.integers(),
            _ => None,
        })
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// A value of another type, or one that is not a number.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let read = |v: &Value| {
            let Value::Array(all) = v else { return None };
            let numbers = match all {
                Array::F32(all) => all.iter().map(|&x| x.into()).collect(),
                Array::F64(all) => all.clone(),
                other => other.integers()?.into_iter().map(|n| n as f64).collect(),
            };
            Some(numbers).filter(|all: &Vec<f64>| all.iter().all(|x| !x.is_nan()))
        };
        self.read(key, "a list of numbers", read)
    }

    /// A whole number that some files give once and others once a layer, alike in all layers.
    ///
    /// # Errors
    /// Layers that differ, or a value of another type.
    pub fn same_count(&self, key: &str) -> Result<Option<u64>> {
        if !matches!(self.get(key), Some(Value::Array(_))) {
            return self.count(key);
        }
        let all = self.integers(key)?.unwrap_or_default();
        match all.first() {
            Some(&first) if all.iter().all(|&n| n == first) => {
                let n = u64::try_from(first).map_err(|_| self.wrong(key, "is not a whole number from 0"))?;
                Ok(Some(n))
            }
            _ => Err(self.wrong(key, "layers of different sizes are not supported")),
        }
    }
}
