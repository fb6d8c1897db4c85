//! Rows with named columns, whatever holds them: JSON Lines, one JSON array, CSV and TSV, Parquet, Arrow; a file or a
//! folder of shards. All readers of such rows are this one: columns are mapped here, and what is not read is found out.

use super::elements::Elements;
use super::parquet;
use super::table::{self, Table};
use crate::bad_rows::Fault;
use crate::columns::parse_object;
use crate::reads::Reads;
use crate::source::{Fallible, Lines, inner_extension, peek, shards};
use crate::watch::Watch;
use crate::{BadRows, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Extensions that are read.
pub(crate) const EXTENSIONS: [&str; 9] =
    ["jsonl", "json", "ndjson", "parquet", "csv", "tsv", "arrow", "feather", "ipc"];

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
    /// CSV or TSV with a header.
    Table,
}

/// Where a row stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The line of JSON Lines and tables, else the place in the file, from 1.
    pub(crate) line: u64,
    /// Its number over all files, from 1.
    pub(crate) number: u64,
}

/// One file that is being read.
enum Open {
    Lines(Lines),
    Array(Elements, u64),
    Table(Option<Table>),
    Parquet(Box<parquet::Rows>, u64),
}

impl Open {
    fn file(path: &Path, holder: Holder, bad: &BadRows, watch: &mut Watch) -> Result<Self> {
        let holder = match (holder, inner_extension(path).as_str()) {
            (Holder::ByName, "parquet" | "arrow" | "feather" | "ipc") => Holder::Parquet,
            (Holder::ByName, "json") if is_array(path)? => Holder::Array,
            (Holder::ByName, extension) if table::EXTENSIONS.contains(&extension) => Holder::Table,
            (Holder::ByName, _) => Holder::Lines,
            (holder, _) => holder,
        };
        Ok(match holder {
            Holder::Parquet => {
                let (reads, mapping) = (watch.reads(), watch.mapping().clone());
                let known = Box::new(move |name: &str| (reads.known)(name) || mapping.names(name));
                let rows = parquet::Rows::of_columns(path, bad, known)?;
                watch.header(rows.names().iter().map(String::as_str))?;
                watch.left(rows.left());
                Self::Parquet(Box::new(rows), 0)
            }
            Holder::Array => Self::Array(Elements::open(path, None, bad)?, 0),
            Holder::Table => Self::Table(Table::open(path, watch, bad)?),
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
            Self::Table(None) => Ok(None),
            Self::Table(Some(table)) => table.next_row(&mut *parse),
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

/// Streams what `parse` makes of the rows of a file or folder; it gets the row, its columns mapped, and its number in the
/// file. It may be called again for a row, to find out which columns it reads.
pub(crate) fn objects<T, P>(
    path: &Path,
    bad: &BadRows,
    reads: &'static Reads,
    parse: P,
) -> Result<impl Iterator<Item = Result<T>> + Send + use<T, P>>
where
    T: PartialEq + Send,
    P: Fn(Map<String, Value>, u64) -> Result<T, Fault> + Send,
{
    let rows = Rows { files: shards(path, &EXTENSIONS)?, holder: Holder::ByName, reads, strict: true };
    rows.stream(path, bad, move |row, place| parse(row, place.line), |_| Ok(()))
}

/// Rows of files.
pub(crate) struct Rows {
    /// The files, one after the other.
    pub(crate) files: Vec<PathBuf>,
    /// What each of them is.
    pub(crate) holder: Holder,
    /// What is taken from them.
    pub(crate) reads: &'static Reads,
    /// Whether a mapped column must be there.
    pub(crate) strict: bool,
}

impl Rows {
    /// Streams what `parse` makes of the rows, if `accept` takes it, which is called once for each.
    pub(crate) fn stream<T, P, A>(
        self,
        path: &Path,
        bad: &BadRows,
        parse: P,
        mut accept: A,
    ) -> Result<impl Iterator<Item = Result<T>> + Send + use<T, P, A>>
    where
        T: PartialEq + Send,
        P: Fn(Map<String, Value>, Place) -> Result<T, Fault> + Send,
        A: FnMut(&T) -> Result<(), Fault> + Send,
    {
        let Self { files, holder, reads, strict } = self;
        let mut watch = Watch::new(path, reads, strict, files.len() == 1, bad)?;
        let mut files = files.into_iter();
        let bad = bad.clone();
        let mut current: Option<Open> = None;
        let mut number = 0;
        Ok(Fallible::new(move || {
            loop {
                if current.is_none() {
                    match files.next() {
                        None => {
                            watch.end()?;
                            return Ok(None);
                        }
                        Some(file) => current = Some(Open::file(&file, holder, &bad, &mut watch)?),
                    }
                }
                if let Some(open) = &mut current {
                    let row = open.next(&bad, &mut |row, line| {
                        number += 1;
                        let place = Place { line, number };
                        let read = watch.row(row, |row| parse(row, place))?;
                        accept(&read)?;
                        Ok(read)
                    })?;
                    match row {
                        Some(row) => {
                            watch.after_row();
                            return Ok(Some(row));
                        }
                        None => current = None,
                    }
                }
            }
        }))
    }
}
