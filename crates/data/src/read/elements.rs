//! Elements of a JSON array that is too large to hold: cut out one at a time, with the line where each begins.
//!
//! DPR's files are one array of hundreds of thousands of questions, SQuAD's an object with the array under `data`. The
//! scanner only follows strings and brackets; what is cut out is parsed afterwards, so one broken element does not
//! take the others with it.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::bad_rows::{BadRow, Fault, Problem};
use crate::source::{Input, broken_input, open};
use crate::{BadRows, Result};

/// Streams the elements of an array.
pub(crate) struct Elements {
    path: PathBuf,
    input: Option<Input>,
    bad: BadRows,
    line: u64,
    /// Key of the top-level object that holds the array; `None` if the array is the top level.
    key: Option<&'static str>,
    entered: bool,
    buffer: Vec<u8>,
}

/// What a scan for the next value met.
enum Found {
    Value { line: u64 },
    End,
    Broken(String),
}

impl Elements {
    pub(crate) fn open(path: &Path, key: Option<&'static str>, bad: &BadRows) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            input: Some(open(path)?),
            bad: bad.clone(),
            line: 1,
            key,
            entered: false,
            buffer: Vec::new(),
        })
    }

    /// The next element that `parse` accepts. It gets the line where the element begins, and its text.
    pub(crate) fn next_element<T>(
        &mut self,
        mut parse: impl FnMut(u64, &str) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        loop {
            if self.input.is_none() {
                return Ok(None);
            }
            let found = match self.advance() {
                Ok(found) => found,
                Err(error) => {
                    self.input = None;
                    broken_input(&self.path, self.line, error, &self.buffer, &self.bad)?;
                    return Ok(None);
                }
            };
            let (line, parsed) = match found {
                Found::End => {
                    self.input = None;
                    return Ok(None);
                }
                Found::Broken(detail) => {
                    self.input = None;
                    (self.line, Err(Fault::new(Problem::BrokenJson, detail)))
                }
                Found::Value { line } => match std::str::from_utf8(&self.buffer) {
                    Ok(text) => (line, parse(line, text)),
                    Err(e) => {
                        let detail = format!("byte {} of the element", e.valid_up_to() + 1);
                        (line, Err(Fault::new(Problem::InvalidUtf8, detail)))
                    }
                },
            };
            match parsed {
                Ok(value) => return Ok(Some(value)),
                Err(Fault { problem, detail }) => {
                    let row = String::from_utf8_lossy(&self.buffer).into_owned();
                    self.bad.bad(BadRow { path: self.path.clone(), line, problem, detail, row })?;
                }
            }
        }
    }

    fn advance(&mut self) -> std::io::Result<Found> {
        if !self.entered {
            self.entered = true;
            if let Some(broken) = self.enter()? {
                return Ok(broken);
            }
        }
        self.buffer.clear();
        match self.token()? {
            Some(b']') => Ok(Found::End),
            Some(b',') => Ok(Found::Broken("unexpected comma in the array".into())),
            None => Ok(Found::Broken("the file ends inside the array".into())),
            Some(first) => {
                let line = self.line;
                if !self.value(first, true)? {
                    return Ok(Found::Broken("the file ends inside an element of the array".into()));
                }
                // The comma is taken here, so that the next call meets an element or the end.
                match self.peek_token()? {
                    Some(b',') => {
                        self.byte()?;
                    }
                    Some(b']') => {}
                    Some(other) => {
                        let detail =
                            format!("expected a comma or ] after the element, got {:?}", char::from(other));
                        return Ok(Found::Broken(detail));
                    }
                    None => {}
                }
                Ok(Found::Value { line })
            }
        }
    }

    /// Goes to just inside the array.
    fn enter(&mut self) -> std::io::Result<Option<Found>> {
        let broken = |detail: String| Ok(Some(Found::Broken(detail)));
        let Some(key) = self.key else {
            return match self.first_token()? {
                Some(b'[') => Ok(None),
                Some(other) => broken(format!("expected a JSON array, got {:?}", char::from(other))),
                None => broken("the file is empty".into()),
            };
        };
        match self.first_token()? {
            Some(b'{') => {}
            Some(other) => {
                return broken(format!("expected a JSON object with {key:?}, got {:?}", char::from(other)));
            }
            None => return broken("the file is empty".into()),
        }
        loop {
            match self.token()? {
                Some(b'"') => {
                    self.buffer.clear();
                    if !self.value(b'"', true)? {
                        return broken("the file ends inside a key".into());
                    }
                    let found = self.buffer.get(1..self.buffer.len() - 1) == Some(key.as_bytes());
                    if self.token()? != Some(b':') {
                        return broken("expected a colon after a key".into());
                    }
                    let first = match self.token()? {
                        Some(b'[') if found => return Ok(None),
                        Some(_) if found => return broken(format!("{key:?} is not an array")),
                        Some(first) => first,
                        None => return broken("the file ends after a key".into()),
                    };
                    if !self.value(first, false)? {
                        return broken("the file ends inside a value".into());
                    }
                }
                Some(b',') => {}
                Some(b'}') => return broken(format!("the object has no key {key:?}")),
                Some(other) => return broken(format!("expected a key, got {:?}", char::from(other))),
                None => return broken(format!("the file ends before the key {key:?}")),
            }
        }
    }

    /// Reads the rest of a value that begins with `first`; `false` if the file ends first.
    fn value(&mut self, first: u8, keep: bool) -> std::io::Result<bool> {
        let mut depth = 0usize;
        let mut in_string = false;
        let mut byte = first;
        loop {
            if keep {
                self.buffer.push(byte);
            }
            if in_string {
                match byte {
                    b'\\' => match self.byte()? {
                        Some(escaped) if keep => self.buffer.push(escaped),
                        Some(_) => {}
                        None => return Ok(false),
                    },
                    b'"' => in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            if depth == 0 && !in_string {
                let closed = matches!(byte, b'"' | b'}' | b']');
                // A number or a word ends where a delimiter follows.
                let next = if closed { None } else { self.peek()? };
                if closed || next.is_none_or(|b| matches!(b, b',' | b']' | b'}') || b.is_ascii_whitespace()) {
                    return Ok(true);
                }
            }
            match self.byte()? {
                Some(next) => byte = next,
                None => return Ok(false),
            }
        }
    }

    fn first_token(&mut self) -> std::io::Result<Option<u8>> {
        if let Some(input) = &mut self.input
            && input.fill_buf()?.starts_with(b"\xef\xbb\xbf")
        {
            input.consume(3);
        }
        self.token()
    }

    /// The next byte that is not white space.
    fn token(&mut self) -> std::io::Result<Option<u8>> {
        let token = self.peek_token()?;
        if token.is_some() {
            self.byte()?;
        }
        Ok(token)
    }

    fn peek_token(&mut self) -> std::io::Result<Option<u8>> {
        loop {
            match self.peek()? {
                Some(b) if b.is_ascii_whitespace() => {
                    self.byte()?;
                }
                other => return Ok(other),
            }
        }
    }

    fn peek(&mut self) -> std::io::Result<Option<u8>> {
        match &mut self.input {
            Some(input) => Ok(input.fill_buf()?.first().copied()),
            None => Ok(None),
        }
    }

    fn byte(&mut self) -> std::io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let (Some(byte), Some(input)) = (byte, &mut self.input) {
            input.consume(1);
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BadRowPolicy;

    fn elements(text: &str, key: Option<&'static str>, bad: &BadRows) -> Result<Vec<(u64, String)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs_err::write(&path, text).unwrap();
        let mut elements = Elements::open(&path, key, bad)?;
        let mut all = Vec::new();
        while let Some(element) = elements.next_element(|line, text| match serde_json::from_str(text) {
            Ok(serde_json::Value::Null) => Err(Fault::new(Problem::WrongType, "null")),
            Ok(value) => Ok((line, value.to_string())),
            Err(e) => Err(Fault::new(Problem::BrokenJson, e.to_string())),
        })? {
            all.push(element);
        }
        Ok(all)
    }

    #[test]
    fn cuts_out_elements_with_their_lines() {
        let text = "\u{feff}[ {\"a\": \"]},[\\\"\"},\n [1, [2]] ,\n\n\"x\\\\\", 12.5e3,true ]";
        let all = elements(text, None, &BadRows::default()).unwrap();
        let expected =
            [(1, "{\"a\":\"]},[\\\"\"}"), (2, "[1,[2]]"), (4, "\"x\\\\\""), (4, "12500.0"), (4, "true")];
        assert_eq!(all, expected.map(|(line, text)| (line, text.to_owned())));
        assert!(elements("[]", None, &BadRows::default()).unwrap().is_empty());
    }

    #[test]
    fn finds_the_array_under_its_key() {
        let text = r#"{"version": "v]", "meta": {"data": [0]}, "data": [1, 2], "more": 3}"#;
        let all = elements(text, Some("data"), &BadRows::default()).unwrap();
        assert_eq!(all, [(1, "1".to_owned()), (1, "2".to_owned())]);
    }

    #[test]
    fn faults_have_a_line() {
        for (text, key, part) in [
            ("[1,\n{\"a\": 1", None, "x.json:2: broken JSON: the file ends inside an element"),
            ("{\"a\": 1}", Some("data"), "no key \"data\""),
            ("{\"data\": 1}", Some("data"), "\"data\" is not an array"),
            ("", None, "the file is empty"),
            ("7", None, "expected a JSON array"),
            ("[1 2]", None, "expected a comma"),
            ("[1,", None, "the file ends inside the array"),
        ] {
            let error = elements(text, key, &BadRows::default()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_broken_element_does_not_take_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let sidecar = dir.path().join("bad.jsonl");
        let bad = BadRows::new(BadRowPolicy::Skip { sidecar: sidecar.clone() });
        let all = elements("[1,\n{\"a\" 2},\n3, null]", None, &bad).unwrap();
        assert_eq!(all, [(1, "1".to_owned()), (3, "3".to_owned())]);
        assert_eq!(bad.report().bad_rows(), 2);
        assert_eq!(fs_err::read_to_string(sidecar).unwrap().lines().count(), 2);
    }
}
