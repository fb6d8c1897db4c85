//! Opening files: decompression by extension, lines with their numbers, shards of a directory.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::bad_rows::{BadRow, BadRows, Fault, Problem};
use crate::error::is_corrupt;
use crate::patterns::{expand, is_pattern};
use crate::read::arrow;
use crate::{Error, Result};

pub(crate) type Input = Box<dyn BufRead + Send>;

const BUFFER: usize = 256 * 1024;
/// The most bytes of a row: a compressed file may unfold to one that no memory holds.
const MOST_BYTES: u64 = 1 << 28;

/// Opens a file; `.gz` and `.zst` are decompressed as they are read.
pub(crate) fn open(path: &Path) -> Result<Input> {
    let file = fs_err::File::open(path)?;
    Ok(match extension(path) {
        // Concatenated members are one file, as gzip itself treats them.
        "gz" => Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::read::MultiGzDecoder::new(BufReader::new(file)),
        )),
        "zst" => Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::new(file)?)),
        _ => Box::new(BufReader::with_capacity(BUFFER, file)),
    })
}

pub(crate) fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// The extension below a compression suffix: `jsonl` of `a.jsonl.gz`.
pub(crate) fn inner_extension(path: &Path) -> String {
    match extension(path) {
        "gz" | "zst" => {
            path.file_stem().map(Path::new).map(extension).unwrap_or_default().to_ascii_lowercase()
        }
        other => other.to_ascii_lowercase(),
    }
}

/// Extensions of JSON Lines.
pub(crate) const JSONL: &[&str] = &["jsonl", "ndjson", "json"];

/// Whether a file name says JSON Lines.
pub(crate) fn is_jsonl(path: &Path) -> bool {
    matches!(inner_extension(path).as_str(), "jsonl" | "ndjson")
}

/// `dir/name`, or its compressed form.
pub(crate) fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    ["", ".gz", ".zst"].iter().map(|suffix| dir.join(format!("{name}{suffix}"))).find(|p| p.is_file())
}

/// Like [`find`], with an error that lists what is there.
pub(crate) fn require(dir: &Path, name: &str) -> Result<PathBuf> {
    find(dir, name).ok_or_else(|| Error::Missing {
        path: dir.join(name),
        remedy: if dir.is_dir() {
            format!("{} holds {}", dir.display(), listing(dir))
        } else {
            format!("{} is not a directory", dir.display())
        },
    })
}

/// The names in a directory, for error messages.
pub(crate) fn listing(dir: &Path) -> String {
    let Ok(entries) = fs_err::read_dir(dir) else { return "nothing readable".into() };
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    match names.len() {
        0 => "nothing".into(),
        1..=12 => names.join(", "),
        n => format!("{}, … ({n} entries)", names[..12].join(", ")),
    }
}

/// The file itself, or the shards of a directory with one of the extensions, in the order of their names; of a pattern
/// those of all that it stands for.
pub(crate) fn shards(path: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    if is_pattern(path) {
        let mut files = Vec::new();
        for one in expand(path)? {
            if !one.is_dir() && !extensions.contains(&inner_extension(&one).as_str()) {
                let reason = format!(
                    "{} is among what the pattern stands for, and is no .{} file; make the pattern narrower",
                    one.display(),
                    extensions.join(" or .")
                );
                return Err(Error::Unsupported { path: path.to_owned(), reason });
            }
            files.extend(shards(&one, extensions)?);
        }
        return Ok(files);
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    if extensions.iter().any(|e| arrow::EXTENSIONS.contains(e)) && arrow::is_saved(path) {
        return arrow::saved(path, None);
    }
    let mut files = Vec::new();
    for entry in fs_err::read_dir(path)? {
        let file = entry?.path();
        // Leftovers of interrupted atomic writes are hidden files.
        let hidden = file.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && file.is_file() && extensions.contains(&inner_extension(&file).as_str()) {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::Missing {
            path: path.join(format!("*.{}", extensions.join("|*."))),
            remedy: format!("the directory holds {}", listing(path)),
        });
    }
    Ok(files)
}

/// Lines of a text file, with bad ones going to [`BadRows`].
pub(crate) struct Lines {
    path: PathBuf,
    input: Option<Input>,
    number: u64,
    buffer: Vec<u8>,
    bad: BadRows,
}

impl Lines {
    pub(crate) fn open(path: &Path, bad: &BadRows) -> Result<Self> {
        let input = Some(open(path)?);
        Ok(Self { path: path.to_owned(), input, number: 0, buffer: Vec::new(), bad: bad.clone() })
    }

    /// The next non-blank line without its end. `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<&str>> {
        self.next(false)
    }

    /// The next line without its end, blank or not, and its number.
    pub(crate) fn next_whole(&mut self) -> Result<Option<(u64, String)>> {
        let line = self.next(true)?.map(str::to_owned);
        Ok(line.map(|line| (self.number, line)))
    }

    fn next(&mut self, blank: bool) -> Result<Option<&str>> {
        loop {
            let Some(input) = &mut self.input else { return Ok(None) };
            self.buffer.clear();
            let read = input.by_ref().take(MOST_BYTES + 1).read_until(b'\n', &mut self.buffer);
            self.number += 1;
            if self.buffer.len() as u64 > MOST_BYTES {
                self.input = None;
                let reason = format!(
                    "line {} is longer than {} MiB: no row is; cut it into lines, or name the format",
                    self.number,
                    MOST_BYTES >> 20
                );
                return Err(Error::Unsupported { path: self.path.clone(), reason });
            }
            match read {
                Ok(0) => {
                    self.input = None;
                    return Ok(None);
                }
                Ok(_) => {}
                Err(error) => {
                    self.input = None;
                    broken_input(&self.path, self.number, error, &self.buffer, &self.bad)?;
                    return Ok(None);
                }
            }
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.drain(..3);
            }
            while self.buffer.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                self.buffer.pop();
            }
            if !blank && self.buffer.iter().all(u8::is_ascii_whitespace) {
                self.bad.note(|report| report.blank_lines += 1);
                continue;
            }
            if let Err(error) = std::str::from_utf8(&self.buffer) {
                let detail = format!("byte {} of the line", error.valid_up_to() + 1);
                self.reject(Fault::new(Problem::InvalidUtf8, detail))?;
                continue;
            }
            break;
        }
        // Checked just above; the borrow checker does not let the result out of the loop.
        Ok(std::str::from_utf8(&self.buffer).ok())
    }

    fn reject(&self, fault: Fault) -> Result<()> {
        self.bad.bad(BadRow {
            path: self.path.clone(),
            line: self.number,
            problem: fault.problem,
            detail: fault.detail,
            row: String::from_utf8_lossy(&self.buffer).into_owned(),
        })
    }

    /// The number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that `parse` accepts. `parse` may also pass a line over (`Ok(None)`), a header for example.
    pub(crate) fn next_row<T>(
        &mut self,
        mut parse: impl FnMut(u64, &str) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>> {
        loop {
            let number = self.number + 1;
            let parsed = match self.next_line()? {
                None => return Ok(None),
                Some(line) => parse(number, line),
            };
            match parsed {
                Ok(Some(row)) => {
                    self.bad.good();
                    return Ok(Some(row));
                }
                Ok(None) => {}
                Err(fault) => self.reject(fault)?,
            }
        }
    }
}

/// Reports a read error: corruption is a matter of the bad-row policy, a failing disk is not.
pub(crate) fn broken_input(
    path: &Path,
    line: u64,
    error: std::io::Error,
    buffer: &[u8],
    bad: &BadRows,
) -> Result<()> {
    let compressed = matches!(extension(path), "gz" | "zst");
    if !compressed || !is_corrupt(&error) {
        return Err(error.into());
    }
    bad.bad(BadRow {
        path: path.to_owned(),
        line,
        problem: Problem::TruncatedFile,
        detail: format!(
            "the compressed data is cut off or corrupt ({error}); the rest of the file is not read"
        ),
        row: String::from_utf8_lossy(buffer).into_owned(),
    })
}

/// Turns a fallible "next" into an iterator that ends after its first error.
pub(crate) struct Fallible<F> {
    next: Option<F>,
}

impl<F> Fallible<F> {
    pub(crate) fn new(next: F) -> Self {
        Self { next: Some(next) }
    }
}

impl<T, F: FnMut() -> Result<Option<T>>> Iterator for Fallible<F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match self.next.as_mut()?() {
            Ok(Some(item)) => Some(Ok(item)),
            Ok(None) => {
                self.next = None;
                None
            }
            Err(error) => {
                self.next = None;
                Some(Err(error))
            }
        }
    }
}

/// Rows of several files, one after the other.
pub(crate) fn rows_of<T, P>(
    files: Vec<PathBuf>,
    bad: &BadRows,
    mut parse: P,
) -> impl Iterator<Item = Result<T>> + Send + use<T, P>
where
    P: FnMut(u64, &str) -> Result<Option<T>, Fault> + Send,
{
    let bad = bad.clone();
    let mut files = files.into_iter();
    let mut current: Option<Lines> = None;
    Fallible::new(move || {
        loop {
            if current.is_none() {
                match files.next() {
                    None => return Ok(None),
                    Some(path) => current = Some(Lines::open(&path, &bad)?),
                }
            }
            if let Some(lines) = &mut current {
                match lines.next_row(&mut parse)? {
                    Some(row) => return Ok(Some(row)),
                    None => current = None,
                }
            }
        }
    })
}

/// The first bytes of a file, decompressed, to see what it holds.
pub(crate) fn peek(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(bytes);
    let mut input = open(path)?.take(bytes as u64);
    match input.read_to_end(&mut head) {
        Ok(_) => Ok(head),
        Err(error) if is_corrupt(&error) && !head.is_empty() => Ok(head),
        Err(error) if is_corrupt(&error) => {
            Err(Error::Corrupt { path: path.to_owned(), reason: error.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}
