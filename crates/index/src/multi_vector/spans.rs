//! Where each passage's rows are in the flat store of all token vectors.
//!
//! A passage that was removed has no rows left, exactly like one that never had a token: neither is ever found. Its
//! rows stay where they are until the index is saved, which leaves them out.

use std::io::Write;
use std::ops::Range;

use serde::de::DeserializeOwned;

use crate::rows::MAX_ROWS;
use crate::store::Reader;
use crate::{Error, Result};

pub(super) const LENGTHS: &str = "lengths.bin";

#[derive(Debug, Default, Clone)]
pub(super) struct Spans {
    spans: Vec<Range<usize>>,
    live: usize,
    live_rows: usize,
}

impl Spans {
    /// Passages, those without rows too.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Passages with rows.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Rows of all passages.
    pub(super) fn live_rows(&self) -> usize {
        self.live_rows
    }

    /// A passage's rows.
    pub(super) fn get(&self, id: u32) -> Range<usize> {
        self.spans.get(id as usize).cloned().unwrap_or_default()
    }

    pub(super) fn check(&self, id: u32) -> Result<Range<usize>> {
        self.spans.get(id as usize).cloned().ok_or(Error::NoSuchRow { id, len: self.len() })
    }

    /// Checks that so many passages can be appended.
    pub(super) fn check_room(&self, more: usize) -> Result<()> {
        let rows = self.len() + more;
        if rows > MAX_ROWS {
            return Err(Error::TooManyRows { rows, limit: MAX_ROWS });
        }
        Ok(())
    }

    /// Appends passages whose rows begin at row `first`.
    pub(super) fn add(&mut self, first: usize, lengths: impl Iterator<Item = usize>) -> Range<u32> {
        let (mut row, start) = (first, self.len() as u32);
        for length in lengths {
            self.spans.push(row..row + length);
            self.live += usize::from(length > 0);
            row += length;
        }
        self.live_rows += row - first;
        start..self.len() as u32
    }

    /// Takes a passage's rows from it; returns what they were.
    pub(super) fn remove(&mut self, id: u32) -> Range<usize> {
        let Some(span) = self.spans.get_mut(id as usize) else { return 0..0 };
        let rows = std::mem::take(span);
        self.live -= usize::from(!rows.is_empty());
        self.live_rows -= rows.len();
        rows
    }

    /// The rows of all passages in order, in as few ranges as can be.
    pub(super) fn live_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for span in self.spans.iter().filter(|span| !span.is_empty()) {
            match ranges.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => ranges.push(span.clone()),
            }
        }
        ranges
    }

    /// The file `lengths.bin`: rows per passage, little-endian `u32`.
    pub(super) fn write(&self, out: &mut dyn Write) -> Result<()> {
        for span in &self.spans {
            out.write_all(&(span.len() as u32).to_le_bytes())?;
        }
        Ok(())
    }

    /// The same file for passages of so many rows each.
    pub(super) fn write_lengths(lengths: &[u32], out: &mut dyn Write) -> Result<()> {
        lengths.iter().try_for_each(|length| Ok(out.write_all(&length.to_le_bytes())?))
    }

    /// Checks that passages of so many rows each have `rows` together and fit one index.
    pub(super) fn check_lengths(lengths: &[u32], rows: usize) -> Result<()> {
        Self::default().check_room(lengths.len())?;
        let sum: usize = lengths.iter().map(|&n| n as usize).sum();
        if sum != rows {
            return Err(Error::Offsets { problem: format!("they end at {sum}, the vectors at {rows}") });
        }
        Ok(())
    }

    pub(super) fn read<H: DeserializeOwned>(reader: &Reader<H>, rows: usize) -> Result<Self> {
        let lengths = reader.numbers(LENGTHS, reader.manifest.count, u32::from_le_bytes)?;
        let mut spans = Self::default();
        spans.add(0, lengths.into_iter().map(|length| length as usize));
        if spans.live_rows != rows {
            let problem = format!("its passages have {} vectors, not {rows}", spans.live_rows);
            return Err(reader.corrupt(LENGTHS, problem));
        }
        Ok(spans)
    }
}
