//! Elements of a JSON array, or members of an object, that is too large to hold: cut out one at a time, with the line
//! where each begins.
//!
//! DPR's files are one array of hundreds of thousands of questions, SQuAD's an object with the array under `data`,
//! others are an object of objects. The scanner only follows strings and brackets; what is cut out is parsed
//! afterwards, so one broken element does not take the others with it.

use std::path::{Path, PathBuf};

use super::scanner::Scanner;
use crate::bad_rows::{BadRow, Fault, Problem};
use crate::source::{broken_input, open};

use crate::{BadRows, Result};

/// Streams the elements of an array, or the members of an object.
pub(crate) struct Elements {
    path: PathBuf,
    scan: Scanner,
    ended: bool,
    bad: BadRows,
    /// Key of the top-level object that holds them; `None` if they are the top level.
    key: Option<&'static str>,
    kind: Kind,
    entered: bool,
    /// The key of the member that was read last, as JSON.
    name: Vec<u8>,
    buffer: Vec<u8>,
}

/// What holds the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Object,
}

impl Kind {
    fn brackets(self) -> (u8, u8) {
        match self {
            Self::Array => (b'[', b']'),
            Self::Object => (b'{', b'}'),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// What a scan for the next value met.
enum Found {
    Value { line: u64 },
    End,
    Broken(Fault),
}

fn broken(detail: impl Into<String>) -> Fault {
    Fault::new(Problem::BrokenJson, detail)
}

impl Elements {
    /// The elements of the top-level array, or of the array under a key of the top-level object.
    pub(crate) fn open(path: &Path, key: Option<&'static str>, bad: &BadRows) -> Result<Self> {
        Self::of(path, key, Kind::Array, bad)
    }

    /// The members of the object under a key of the top-level object.
    pub(crate) fn members(path: &Path, key: &'static str, bad: &BadRows) -> Result<Self> {
        Self::of(path, Some(key), Kind::Object, bad)
    }

    fn of(path: &Path, key: Option<&'static str>, kind: Kind, bad: &BadRows) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            scan: Scanner::new(open(path)?),
            ended: false,
            bad: bad.clone(),
            key,
            kind,
            entered: false,
            name: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// The JSON under a key of the top-level object; `None` where it has no such key, or the file is broken before it,
    /// which is for those to report who read its parts.
    pub(crate) fn value_under(path: &Path, key: &'static str) -> Result<Option<String>> {
        let mut elements = Self::of(path, Some(key), Kind::Object, &BadRows::silent())?;
        let mut json = Vec::new();
        let found = match elements.find(key) {
            Ok(Ok(first)) => elements.scan.value(first, Some(&mut json)),
            Ok(Err(_)) => Ok(false),
            Err(error) => Err(error),
        };
        match found {
            Ok(true) => Ok(String::from_utf8(json).ok()),
            Ok(false) => Ok(None),
            Err(error) => broken_input(path, elements.scan.line, error, &[], &elements.bad).map(|()| None),
        }
    }

    /// The next element that `parse` accepts. It gets the line where the element begins, and its text.
    pub(crate) fn next_element<T>(
        &mut self,
        mut parse: impl FnMut(u64, &str) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        self.next_part(|line, _, text| parse(line, text))
    }

    /// The next member that `parse` accepts. It gets the line where the member begins, its key and its value as JSON.
    pub(crate) fn next_member<T>(
        &mut self,
        mut parse: impl FnMut(u64, String, &str) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        self.next_part(|line, name, text| {
            let key = serde_json::from_slice(name).map_err(|e| broken(format!("in a key: {e}")))?;
            parse(line, key, text)
        })
    }

    fn next_part<T>(
        &mut self,
        mut parse: impl FnMut(u64, &[u8], &str) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        loop {
            if self.ended {
                return Ok(None);
            }
            self.name.clear();
            let found = match self.advance() {
                Ok(found) => found,
                Err(error) => {
                    self.ended = true;
                    broken_input(&self.path, self.scan.line, error, &self.buffer, &self.bad)?;
                    return Ok(None);
                }
            };
            let (line, parsed) = match found {
                Found::End => {
                    self.ended = true;
                    return Ok(None);
                }
                Found::Broken(fault) => {
                    self.ended = true;
                    (self.scan.line, Err(fault))
                }
                Found::Value { line } => match std::str::from_utf8(&self.buffer) {
                    Ok(text) => (line, parse(line, &self.name, text)),
                    Err(e) => {
                        let detail = format!("byte {} of the element", e.valid_up_to() + 1);
                        (line, Err(Fault::new(Problem::InvalidUtf8, detail)))
                    }
                },
            };
            match parsed {
                Ok(value) => return Ok(Some(value)),
                Err(Fault { problem, detail }) => {
                    let text = String::from_utf8_lossy(&self.buffer);
                    let row = match self.name.is_empty() {
                        true => text.into_owned(),
                        false => format!("{}: {text}", String::from_utf8_lossy(&self.name)),
                    };
                    self.bad.bad(BadRow { path: self.path.clone(), line, problem, detail, row })?;
                }
            }
        }
    }

    fn advance(&mut self) -> std::io::Result<Found> {
        let kind = self.kind.name();
        let broken = |detail: String| Ok(Found::Broken(broken(detail)));
        if !self.entered {
            self.entered = true;
            if let Some(fault) = self.enter()? {
                return Ok(Found::Broken(fault));
            }
        }
        self.buffer.clear();
        let (_, close) = self.kind.brackets();
        let mut first = match self.scan.token()? {
            Some(byte) if byte == close => {
                // Under a key, other keys may follow; what stands behind a whole document is a fault.
                let more = if self.key.is_none() { self.scan.token()? } else { None };
                return match more {
                    Some(byte) => broken(format!("something follows the {kind}: {:?}", char::from(byte))),
                    None => Ok(Found::End),
                };
            }
            Some(b',') => return broken(format!("unexpected comma in the {kind}")),
            None => return broken(format!("the file ends inside the {kind}")),
            Some(first) => first,
        };
        let line = self.scan.line;
        if self.kind == Kind::Object {
            if first != b'"' {
                return broken(format!("expected a key, got {:?}", char::from(first)));
            }
            if !self.scan.value(b'"', Some(&mut self.buffer))? {
                return broken("the file ends inside a key".into());
            }
            std::mem::swap(&mut self.name, &mut self.buffer);
            self.buffer.clear();
            first = match self.value_after_key()? {
                Ok(first) => first,
                Err(fault) => return Ok(Found::Broken(fault)),
            };
        }
        if !self.scan.value(first, Some(&mut self.buffer))? {
            return broken(format!("the file ends inside an element of the {kind}"));
        }
        // The comma is taken here, so that the next call meets an element or the end.
        match self.scan.peek_token()? {
            Some(b',') => {
                self.scan.byte()?;
            }
            Some(byte) if byte == close => {}
            Some(other) => {
                let (got, close) = (char::from(other), char::from(close));
                return broken(format!("expected a comma or {close} after the element, got {got:?}"));
            }
            None => {}
        }
        Ok(Found::Value { line })
    }

    /// Goes to just inside the array or object.
    fn enter(&mut self) -> std::io::Result<Option<Fault>> {
        let (kind, (open, _)) = (self.kind.name(), self.kind.brackets());
        let Some(key) = self.key else {
            return Ok(match self.scan.first_token()? {
                Some(byte) if byte == open => None,
                Some(other) => Some(broken(format!("expected a JSON {kind}, got {:?}", char::from(other)))),
                None => Some(broken("the file is empty")),
            });
        };
        Ok(match self.find(key)? {
            Ok(byte) if byte == open => None,
            Ok(_) => Some(Fault::new(Problem::WrongType, format!("{key:?} is not an {kind}"))),
            Err(fault) => Some(fault),
        })
    }

    /// Goes to the value under a key of the top-level object, and gives its first byte.
    fn find(&mut self, key: &str) -> std::io::Result<Result<u8, Fault>> {
        match self.scan.first_token()? {
            Some(b'{') => {}
            Some(other) => {
                let got = char::from(other);
                return Ok(Err(broken(format!("expected a JSON object with {key:?}, got {got:?}"))));
            }
            None => return Ok(Err(broken("the file is empty"))),
        }
        loop {
            match self.scan.token()? {
                Some(b'"') => {
                    self.buffer.clear();
                    if !self.scan.value(b'"', Some(&mut self.buffer))? {
                        return Ok(Err(broken("the file ends inside a key")));
                    }
                    let found = self.buffer.get(1..self.buffer.len() - 1) == Some(key.as_bytes());
                    let first = match self.value_after_key()? {
                        Ok(first) if !found => first,
                        other => return Ok(other),
                    };
                    if !self.scan.value(first, None)? {
                        return Ok(Err(broken("the file ends inside a value")));
                    }
                }
                Some(b',') => {}
                Some(b'}') => {
                    let detail = format!("the object has no key {key:?}");
                    return Ok(Err(Fault::new(Problem::MissingColumn, detail)));
                }
                Some(other) => {
                    return Ok(Err(broken(format!("expected a key, got {:?}", char::from(other)))));
                }
                None => return Ok(Err(broken(format!("the file ends before the key {key:?}")))),
            }
        }
    }

    /// Takes the colon, and the first byte of the value behind it.
    fn value_after_key(&mut self) -> std::io::Result<Result<u8, Fault>> {
        if self.scan.token()? != Some(b':') {
            return Ok(Err(broken("expected a colon after a key")));
        }
        Ok(self.scan.token()?.ok_or_else(|| broken("the file ends after a key")))
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
    fn members_come_with_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let members = |text: &str| -> Result<Vec<(u64, String, String)>> {
            fs_err::write(&path, text).unwrap();
            let mut members = Elements::members(&path, "in", &BadRows::default())?;
            let mut all = Vec::new();
            while let Some(member) =
                members.next_member(|line, key, text| Ok((line, key, text.to_owned())))?
            {
                all.push(member);
            }
            Ok(all)
        };
        let text = "{\"out\": {\"in\": 1}, \"in\" : {\"a\\\"b\":\n{\"c\": [1]},\n\"d,\" : 2 , \"e\": \"}\"\n}, \"x\": 0}";
        let all = members(text).unwrap();
        let expected = [(1, "a\"b", "{\"c\": [1]}"), (3, "d,", "2"), (3, "e", "\"}\"")];
        assert_eq!(all, expected.map(|(line, key, text)| (line, key.to_owned(), text.to_owned())));
        assert_eq!(Elements::value_under(&path, "x").unwrap().as_deref(), Some("0"));
        assert_eq!(Elements::value_under(&path, "y").unwrap(), None);
        assert!(members("{\"in\": {}}").unwrap().is_empty());
        for (text, part) in [
            ("{\"in\": []}", "wrong type: \"in\" is not an object"),
            ("{\"on\": {}}", "missing column: the object has no key \"in\""),
            ("{\"in\": {\n1: 2}}", "x.json:2: broken JSON: expected a key, got '1'"),
            ("{\"in\": {\"a\" 2}}", "expected a colon after a key"),
            ("{\"in\": {\"a\": 2 \"b\": 3}}", "expected a comma or } after the element"),
            ("{\"in\": {\"a\": [2", "the file ends inside an element of the object"),
            ("{\"in\": {\"a\": 2, ", "the file ends inside the object"),
            ("{\"in\": {\"\\q\": 2}}", "broken JSON: in a key: invalid escape"),
        ] {
            let error = members(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
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
            ("[1]\n[2]", None, "x.json:2: broken JSON: something follows the array: '['"),
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
