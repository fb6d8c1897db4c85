//! Lines of a text file with their numbers, so that every error can name its place.

use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::{Error, Result};

/// Calls `line` for each line that is not blank, with its number from 1. An error it returns gets path and number.
pub(crate) fn for_each_line(path: &Path, mut line: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::new(fs_err::File::open(path)?);
    let mut bytes = Vec::new();
    let mut number = 0;
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        number += 1;
        let text = std::str::from_utf8(&bytes).map_err(|e| Error::BadLine {
            path: path.to_owned(),
            line: number,
            problem: format!("not UTF-8 after byte {}", e.valid_up_to()),
            expected: "UTF-8 text",
        })?;
        let text = text.trim_end_matches(['\n', '\r']);
        let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        if text.trim().is_empty() {
            continue;
        }
        line(number, text).map_err(|error| match error {
            error @ (Error::Io(_) | Error::BadLine { .. } | Error::AtLine { .. }) => error,
            error => Error::AtLine { path: path.to_owned(), line: number, source: Box::new(error) },
        })?;
    }
}
