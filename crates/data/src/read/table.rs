//! CSV and TSV with a header: rows with named columns like any other.
//!
//! A record is put together from lines while a quote is open, then cut into fields by the `csv` crate. In TSV a quote is
//! one only where it encloses a whole field: files that were joined with tabs quote nothing, and a text may begin with a
//! quotation mark.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::literal;
use crate::bad_rows::{BadRow, Fault, Problem};
use crate::columns::PASSAGE_TEXT;
use crate::map::Mapping;
use crate::reads::{Cell, Reads};
use crate::source::{Lines, inner_extension, peek};
use crate::watch::Watch;
use crate::{BadRows, Error, Result};

/// Extensions of tables.
pub(crate) const EXTENSIONS: [&str; 2] = ["csv", "tsv"];
/// The most bytes of a record over several lines.
const MOST_BYTES: usize = 1 << 28;
/// Lines over which a quoted field of TSV may go.
const TSV_LINES: usize = 1000;
/// Bytes in which a header is looked for.
const HEAD: usize = 1 << 16;

/// A table that is being read.
pub(crate) struct Table {
    path: PathBuf,
    lines: Lines,
    /// Lines that were read ahead.
    waiting: VecDeque<(u64, String)>,
    delimiter: u8,
    /// The header as it is written.
    written: Vec<String>,
    /// The names of the columns, and what their cells hold.
    columns: Vec<(String, Cell)>,
    bad: BadRows,
}

/// A record: the line where it begins, its text, its fields.
struct Record {
    line: u64,
    text: String,
    fields: Vec<String>,
}

impl Table {
    /// Opens a table and reads its header; `None` where the file holds nothing.
    ///
    /// # Errors
    /// A first row that names no column which the reader knows or the user maps; a name that stands twice.
    pub(crate) fn open(path: &Path, watch: &mut Watch, bad: &BadRows) -> Result<Option<Self>> {
        let delimiter = if inner_extension(path) == "tsv" { b'\t' } else { b',' };
        let lines = Lines::open(path, bad)?;
        let (path, bad) = (path.to_owned(), bad.clone());
        let (waiting, written, columns) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut table = Self { path, lines, waiting, delimiter, written, columns, bad };
        let Some(record) = table.header(watch)? else { return Ok(None) };
        let names: Vec<String> = record
            .fields
            .iter()
            .enumerate()
            .map(|(i, name)| match name.trim() {
                // An index that pandas wrote.
                "" => format!("column {}", i + 1),
                name => known_name(name, watch.reads(), watch.mapping()),
            })
            .collect();
        let unusable = |reason: String| Error::Unsupported { path: table.path.clone(), reason };
        if !is_header(&record.fields, watch.reads(), watch.mapping()) {
            let (found, reads) = (shortened(&record.fields), watch.reads());
            return Err(unusable(format!(
                "the first row names no column of {}: found {found}; a table begins with a header, and understood are \
                 {}; or name a column with --map ROLE=COLUMN",
                reads.what,
                reads.understood()
            )));
        }
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(unusable(format!("the header names `{}` twice", twice.1)));
        }
        watch.header(names.iter().map(String::as_str))?;
        let cell = |name: &String| {
            let mapped = watch.mapping().of.iter().find(|m| m.column == *name).map(|m| m.role);
            mapped.or_else(|| watch.reads().role(name)).map_or(Cell::Any, |role| role.cell)
        };
        table.columns = names.iter().map(|name| (name.clone(), cell(name))).collect();
        table.written = record.fields;
        Ok(Some(table))
    }

    /// The first record, and of CSV what stands between its fields.
    fn header(&mut self, watch: &Watch) -> Result<Option<Record>> {
        let Some((line, text)) = self.next_line()? else { return Ok(None) };
        if self.delimiter == b',' {
            let names = |d: u8| is_header(&fields(&text, d, true), watch.reads(), watch.mapping());
            // A header of one column has no delimiter that could be seen.
            let wide = |d: u8| fields(&text, d, true).len() > 1 && names(d);
            if let Some(other) = [b';', b'\t'].into_iter().find(|&d| !wide(b',') && wide(d)) {
                self.delimiter = other;
                if !self.bad.is_silent() {
                    let shown = if other == b';' { "semicolons" } else { "tabs" };
                    tracing::info!("{}: fields are separated by {shown}", self.path.display());
                }
            }
        }
        self.waiting.push_front((line, text));
        self.record()
    }

    fn line(&mut self) -> Result<Option<(u64, String)>> {
        match self.waiting.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.lines.next_whole(),
        }
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<(u64, String)>> {
        loop {
            match self.line()? {
                Some((_, text)) if text.trim().is_empty() => self.bad.note(|report| report.blank_lines += 1),
                other => return Ok(other),
            }
        }
    }

    fn record(&mut self) -> Result<Option<Record>> {
        loop {
            let Some((line, text)) = self.next_line()? else { return Ok(None) };
            let scan = Scan::of(&text, self.delimiter);
            if self.delimiter == b'\t' && inner_extension(&self.path) == "tsv" {
                return self.tsv(line, text, scan).map(Some);
            }
            if !scan.open {
                let fields = fields(&text, self.delimiter, true);
                return Ok(Some(Record { line, text, fields }));
            }
            match self.closed(&text, usize::MAX)? {
                Some(text) => {
                    let fields = fields(&text, self.delimiter, true);
                    return Ok(Some(Record { line, text, fields }));
                }
                None => {
                    let detail = "a quote that is opened in this line is not closed in the file".to_string();
                    self.set_aside(line, Fault::new(Problem::BrokenTable, detail), text)?;
                }
            }
        }
    }

    /// A record of TSV, whose quotes may be part of a text.
    fn tsv(&mut self, line: u64, text: String, scan: Scan) -> Result<Record> {
        let quoted = match (scan.open, scan.stray) {
            (false, false) => Some(text.clone()),
            (false, true) => None,
            (true, _) => self.closed(&text, TSV_LINES)?,
        };
        if let Some(whole) = quoted {
            let all = fields(&whole, b'\t', true);
            // Tabs and line breaks in one field are rather several rows between two quotation marks.
            let several = all.iter().any(|field| field.contains('\n') && field.contains('\t'));
            let fits = self.columns.is_empty() || all.len() == self.columns.len();
            if !scan.open || (fits && !several && !Scan::of(&whole, b'\t').stray) {
                return Ok(Record { line, text: whole, fields: all });
            }
            let rest: Vec<&str> = whole.split('\n').skip(1).collect();
            for (i, text) in rest.iter().enumerate().rev() {
                self.waiting.push_front((line + 1 + i as u64, (*text).to_owned()));
            }
        }
        let fields = fields(&text, b'\t', false);
        Ok(Record { line, text, fields })
    }

    /// A record whose quote is open, with the lines up to its end; `None` where there is no such end, and the lines wait.
    fn closed(&mut self, first: &str, most: usize) -> Result<Option<String>> {
        let mut whole = first.to_owned();
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some((number, text)) = self.line()? else { break };
            whole.push('\n');
            whole.push_str(&text);
            if whole.len() > MOST_BYTES {
                let reason = format!(
                    "the record that begins in line {} is longer than {} MiB: a quote is not closed there",
                    number - taken.len() as u64 - 1,
                    MOST_BYTES >> 20
                );
                return Err(Error::Unsupported { path: self.path.clone(), reason });
            }
            let open = Scan::on(&text, self.delimiter, true).open;
            taken.push((number, text));
            if !open {
                return Ok(Some(whole));
            }
        }
        for line in taken.into_iter().rev() {
            self.waiting.push_front(line);
        }
        Ok(None)
    }

    fn set_aside(&self, line: u64, fault: Fault, row: String) -> Result<()> {
        let Fault { problem, detail } = fault;
        self.bad.bad(BadRow { path: self.path.clone(), line, problem, detail, row })
    }

    /// The next row that `parse` accepts. It gets the row and the line where it begins.
    pub(crate) fn next_row<T>(
        &mut self,
        mut parse: impl FnMut(Map<String, Value>, u64) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        loop {
            let Some(Record { line, text, fields }) = self.record()? else { return Ok(None) };
            match self.row(fields).and_then(|row| parse(row, line)) {
                Ok(row) => {
                    self.bad.good();
                    return Ok(Some(row));
                }
                Err(fault) => self.set_aside(line, fault, text)?,
            }
        }
    }

    /// The columns of a record; empty cells are not there.
    fn row(&self, mut fields: Vec<String>) -> Result<Map<String, Value>, Fault> {
        let broken = |detail: String| Err(Fault::new(Problem::BrokenTable, detail));
        let columns = self.columns.len();
        while fields.len() > columns && fields.last().is_some_and(|field| field.trim().is_empty()) {
            fields.pop();
        }
        if fields.len() != columns {
            let (n, quoted) = (
                fields.len(),
                if self.delimiter == b'\t' { "" } else { " (a field with a delimiter in it is quoted)" },
            );
            return broken(format!("{n} fields where the header names {columns}{quoted}"));
        }
        if fields == self.written {
            return broken("the header again".into());
        }
        let cells = self.columns.iter().zip(fields).filter(|(_, field)| !field.trim().is_empty());
        Ok(cells.map(|((name, cell), field)| (name.clone(), value(field, *cell))).collect())
    }
}

/// What a cell holds.
fn value(field: String, cell: Cell) -> Value {
    match cell {
        Cell::Text => field.into(),
        Cell::Any => literal::parse(&field).unwrap_or_else(|| field.into()),
        Cell::Number => {
            let text = field.trim();
            match (text.parse::<i64>(), text.parse::<f64>()) {
                // `007` and `+1` are names.
                (Ok(whole), _) if whole.to_string() == text => whole.into(),
                (_, Ok(number)) if number.is_finite() && !is_name(text) => number.into(),
                _ => value(field, Cell::Any),
            }
        }
        Cell::Passages | Cell::Answers | Cell::Turns => {
            literal::parse(&field).filter(|parsed| is_such(parsed, cell)).unwrap_or_else(|| field.into())
        }
    }
}

/// Whether what parses as a number is written as numbers are not: with a plus sign or zeros before it, or in words.
fn is_name(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let zeros = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    zeros || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

/// Whether a list or object is what a role takes; else it is the text of its cell.
fn is_such(parsed: &Value, cell: Cell) -> bool {
    let holds = |of: &Value, names: &[&str]| names.iter().any(|name| of.get(name).is_some());
    match (cell, parsed) {
        (Cell::Turns, Value::Array(list)) => {
            !list.is_empty() && list.iter().all(|turn| holds(turn, &["role", "from"]))
        }
        (Cell::Passages, Value::Array(list)) => !list.iter().any(|one| one.is_number() || one.is_boolean()),
        (Cell::Passages, one) => holds(one, &PASSAGE_TEXT) || holds(one, &["title"]),
        (Cell::Answers, Value::Array(_)) => true,
        (Cell::Answers, one) => holds(one, &["text"]),
        _ => false,
    }
}

/// The fields of a record.
fn fields(record: &str, delimiter: u8, quotes: bool) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .quoting(quotes)
        .buffer_capacity(record.len().clamp(64, 1 << 16))
        .from_reader(record.as_bytes());
    let mut fields = csv::StringRecord::new();
    // A text is valid UTF-8, and nothing else can be wrong with it.
    match reader.read_record(&mut fields) {
        Ok(true) => fields.iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// What the quotes of a line do.
struct Scan {
    /// One is open at its end.
    open: bool,
    /// One is closed before its field ends.
    stray: bool,
}

impl Scan {
    fn of(text: &str, delimiter: u8) -> Self {
        Self::on(text, delimiter, false)
    }

    fn on(text: &str, delimiter: u8, quoted: bool) -> Self {
        let bytes = text.as_bytes();
        let mut scan = Self { open: quoted, stray: false };
        let (mut at, mut start) = (0, !quoted);
        while let Some(&byte) = bytes.get(at) {
            match (scan.open, byte) {
                (true, b'"') if bytes.get(at + 1) == Some(&b'"') => at += 1,
                (true, b'"') => {
                    scan.open = false;
                    scan.stray |= bytes.get(at + 1).is_some_and(|next| *next != delimiter && *next != b'\n');
                }
                (false, b'"') if start => scan.open = true,
                _ => {}
            }
            start = !scan.open && byte == delimiter;
            at += 1;
        }
        scan
    }
}

/// The name of a column as the reader has it: case, spaces and dashes of a header do not matter.
fn known_name(name: &str, reads: &Reads, mapping: &Mapping) -> String {
    let plain = plain(name);
    match !mapping.names(name) && !(reads.known)(name) && (reads.known)(&plain) {
        true => plain,
        false => name.to_owned(),
    }
}

fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}

/// Whether the cells of a first row are names of columns: one is known, or is mapped.
fn is_header(cells: &[String], reads: &Reads, mapping: &Mapping) -> bool {
    let names = |cell: &String| {
        let known = (reads.known)(cell.trim()) || (reads.known)(&plain(cell));
        known || mapping.names(cell.trim())
    };
    cells.iter().any(names)
}

/// Whether a `.tsv` file that may have no header has one. Where columns are mapped it must.
///
/// # Errors
/// A mapping that the first row does not name.
pub(crate) fn has_header(path: &Path, reads: &'static Reads, bad: &BadRows) -> Result<bool> {
    let head = peek(path, HEAD)?;
    let text = String::from_utf8_lossy(&head);
    let text = text.trim_start_matches('\u{feff}');
    let Some(first) = text.lines().find(|line| !line.trim().is_empty()) else { return Ok(false) };
    let cells: Vec<String> = first.split('\t').map(|c| c.trim().trim_matches('"').to_owned()).collect();
    let mapping = Mapping::new(&bad.columns(), reads)?;
    if is_header(&cells, reads, &mapping) {
        return Ok(true);
    }
    if let Some(mapped) = mapping.of.iter().find(|m| !m.borrowed) {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            reason: format!(
                "{} is mapped to `{}`, and the first row does not name it: found {}",
                mapped.said,
                mapped.column,
                shortened(&cells)
            ),
        });
    }
    Ok(false)
}

/// Cells for a message.
fn shortened(cells: &[String]) -> String {
    let short = |cell: &String| match cell.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &cell[..at]),
        None => cell.clone(),
    };
    let shown: Vec<String> = cells.iter().take(12).map(short).collect();
    let more = if cells.len() > 12 { format!(" … ({} columns)", cells.len()) } else { String::new() };
    shown.join(", ") + &more
}
