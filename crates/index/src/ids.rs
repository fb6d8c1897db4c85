//! External ids: which text a row stands for. A row's id is a `u32`; a corpus names its passages with strings.
//!
//! On disk they are `ids.txt`: one JSON string a line, in the order of the rows, so that ids with any character in
//! them survive. In memory they take their bytes plus 16 bytes each, for both directions.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::rows::MAX_ROWS;
use crate::store::{AnyHeader, Reader};
use crate::{Error, Result};

pub(crate) const IDS: &str = "ids.txt";
const FREE: u32 = u32::MAX;

/// External ids of rows, looked up both ways.
#[derive(Clone)]
pub struct IdMap {
    text: String,
    /// Where each id ends in `text`.
    ends: Vec<usize>,
    /// An open-addressing table of row numbers; its length is a power of two, at most two thirds are taken.
    table: Vec<u32>,
}

impl fmt::Debug for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdMap").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Default for IdMap {
    fn default() -> Self {
        Self { text: String::new(), ends: Vec::new(), table: vec![FREE; 16] }
    }
}

impl IdMap {
    /// No ids.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ids of rows 0, 1, 2 and so on. An id given twice is an error.
    pub fn from_ids<S: AsRef<str>>(ids: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut map = Self::new();
        for id in ids {
            map.push(id.as_ref())?;
        }
        Ok(map)
    }

    /// Appends the id of the next row and returns the row.
    pub fn push(&mut self, id: &str) -> Result<u32> {
        let row = self.len();
        if row >= MAX_ROWS {
            return Err(Error::TooManyRows { rows: row + 1, limit: MAX_ROWS });
        }
        if (row + 1) * 3 > self.table.len() * 2 {
            self.grow();
        }
        let slot = self.slot(id);
        if self.table[slot] != FREE {
            return Err(Error::DuplicateId {
                id: id.to_owned(),
                first: self.table[slot],
                second: row as u32,
            });
        }
        self.table[slot] = row as u32;
        self.text.push_str(id);
        self.ends.push(self.text.len());
        Ok(row as u32)
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The id of a row.
    pub fn id(&self, row: u32) -> Option<&str> {
        let row = row as usize;
        let end = *self.ends.get(row)?;
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        Some(&self.text[start..end])
    }

    /// The row of an id.
    pub fn row(&self, id: &str) -> Option<u32> {
        Some(self.table[self.slot(id)]).filter(|&row| row != FREE)
    }

    /// The ids in the order of their rows.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).filter_map(|row| self.id(row))
    }

    /// The ids saved with an index, `None` if it was saved without.
    pub fn open(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let reader: Reader<AnyHeader> = Reader::open(dir.as_ref())?;
        if !reader.has(IDS) {
            return Ok(None);
        }
        let map = Self::read(&reader, IDS)?;
        map.check_len(reader.manifest.count)?;
        Ok(Some(map))
    }

    /// The ids saved with an index of so many rows; the rows' numbers if it was saved without.
    pub fn open_or_number(dir: impl AsRef<Path>, rows: usize) -> Result<Self> {
        match Self::open(dir)? {
            Some(ids) => Ok(ids),
            None => Self::from_ids((0..rows).map(|row| row.to_string())),
        }
    }

    /// Strings from a file of an index, numbered in its order.
    pub(crate) fn read<H: DeserializeOwned>(reader: &Reader<H>, name: &str) -> Result<Self> {
        let text =
            String::from_utf8(reader.read(name)?).map_err(|_| reader.corrupt(name, "it is not UTF-8"))?;
        let mut map = Self::new();
        for (number, line) in text.lines().enumerate() {
            let id: String = serde_json::from_str(line)
                .map_err(|error| reader.corrupt(name, format!("line {}: {error}", number + 1)))?;
            map.push(&id)?;
        }
        Ok(map)
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> Result<()> {
        for id in self.iter() {
            let line = serde_json::to_string(id).map_err(std::io::Error::other)?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    pub(crate) fn check_len(&self, expected: usize) -> Result<()> {
        if self.len() == expected {
            return Ok(());
        }
        Err(Error::RowCount { what: "the list of ids", got: self.len(), expected })
    }

    /// Where an id is in the table, or where it would go.
    fn slot(&self, id: &str) -> usize {
        let mask = self.table.len() - 1;
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let mut slot = hasher.finish() as usize & mask;
        while self.table[slot] != FREE && self.id(self.table[slot]) != Some(id) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.table = vec![FREE; self.table.len() * 2];
        for row in 0..self.len() as u32 {
            let mut hasher = DefaultHasher::new();
            self.id(row).unwrap_or_default().hash(&mut hasher);
            let mask = self.table.len() - 1;
            let mut slot = hasher.finish() as usize & mask;
            while self.table[slot] != FREE {
                slot = (slot + 1) & mask;
            }
            self.table[slot] = row;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let names: Vec<String> = (0..5000).map(|i| format!("doc-{}", i * 7 % 5000)).collect();
        let map = IdMap::from_ids(&names).unwrap();
        assert_eq!(map.len(), 5000);
        for (row, name) in names.iter().enumerate() {
            assert_eq!(map.id(row as u32), Some(name.as_str()));
            assert_eq!(map.row(name), Some(row as u32));
        }
        assert_eq!((map.row("doc-5000"), map.id(5000)), (None, None));
        assert_eq!(IdMap::from_ids(["", "a\n\"b"]).unwrap().row(""), Some(0));
        assert!(matches!(
            IdMap::from_ids(["a", "b", "a"]),
            Err(Error::DuplicateId { first: 0, second: 2, .. })
        ));
    }
}
