//! Rows with named columns, whatever holds them: JSON Lines, one JSON array, Parquet, Arrow; a file or a
//! folder of shards.

use super::elements::Elements;
use super::parquet;
use crate::bad_rows::Fault;
use crate::columns::parse_object;
use crate::source::{Fallible, Lines, inner_extension, peek, shards};
use crate::{BadRows, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Extensions that are read.
const EXTENSIONS: [&str; 7] = ["jsonl", "json", "ndjson", "parquet", "arrow", "feather", "ipc"];

/// What holds the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// What the name of the file says.
    ByName,
    /// An object per line.
    Lines,
    /// One array of objects.
    Array,
    /// Parquet or Arrow.
    Parquet,
}

/// One file that is being read. Its rows have a number: the line of JSON Lines, else the place in the file, from 1.
enum Open {
    Lines(Lines),
    Array(Elements, u64),
    Parquet(Box<parquet::Rows>, u64),
}

impl Open {
    fn file(path: &Path, holder: Holder, bad: &BadRows, known: fn(&str) -> bool) -> Result<Self> {
        let holder = match (holder, inner_extension(path).as_str()) {
            (Holder::ByName, "parquet" | "arrow" | "feather" | "ipc") => Holder::Parquet,
            (Holder::ByName, "json") if is_array(path)? => Holder::Array,
            (Holder::ByName, _) => Holder::Lines,
            (holder, _) => holder,
        };
        Ok(match holder {
            Holder::Parquet => {
                Self::Parquet(Box::new(parquet::Rows::of_files(vec![path.to_owned()], bad, known)), 0)
            }
            Holder::Array => Self::Array(Elements::open(path, None, bad)?, 0),
            Holder::Lines | Holder::ByName => Self::Lines(Lines::open(path, bad)?),
        })
    }

    fn next<T>(
        &mut self,
        bad: &BadRows,
        parse: &mut impl FnMut(Map<String, Value>, u64) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        match self {
            Self::Lines(lines) => lines.next_row(|number, line| parse(parse_object(line)?, number).map(Some)),
            Self::Array(elements, number) => {
                let row = elements.next_element(|_, text| {
                    *number += 1;
                    parse(parse_object(text)?, *number)
                })?;
                if row.is_some() {
                    bad.good();
                }
                Ok(row)
            }
            Self::Parquet(rows, number) => rows.next_row(|row| {
                *number += 1;
                parse(row, *number)
            }),
        }
    }
}

/// Whether a `.json` file is one array rather than an object a line.
fn is_array(path: &Path) -> Result<bool> {
    let head = peek(path, 4096)?;
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head);
    Ok(text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'['))
}

/// Streams what `parse` makes of the rows of a file or folder; it gets the row and its number. Of Parquet and Arrow, the
/// columns that are `known` are read, and all where none is.
pub(crate) fn objects<T, P>(
    path: &Path,
    bad: &BadRows,
    known: fn(&str) -> bool,
    parse: P,
) -> Result<impl Iterator<Item = Result<T>> + Send + use<T, P>>
where
    P: FnMut(Map<String, Value>, u64) -> Result<T, Fault> + Send,
{
    Ok(objects_in(shards(path, &EXTENSIONS)?, Holder::ByName, bad, known, parse))
}

/// [`objects`] of files, one after another.
pub(crate) fn objects_in<T, P>(
    files: Vec<PathBuf>,
    holder: Holder,
    bad: &BadRows,
    known: fn(&str) -> bool,
    mut parse: P,
) -> impl Iterator<Item = Result<T>> + Send + use<T, P>
where
    P: FnMut(Map<String, Value>, u64) -> Result<T, Fault> + Send,
{
    let mut files = files.into_iter();
    let bad = bad.clone();
    let mut current: Option<Open> = None;
    Fallible::new(move || {
        loop {
            if current.is_none() {
                match files.next() {
                    None => return Ok(None),
                    Some(file) => current = Some(Open::file(&file, holder, &bad, known)?),
                }
            }
            if let Some(open) = &mut current {
                match open.next(&bad, &mut parse)? {
                    Some(row) => return Ok(Some(row)),
                    None => current = None,
                }
            }
        }
    })
}
