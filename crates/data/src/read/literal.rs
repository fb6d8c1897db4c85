//! Lists and objects in the cells of a table, as JSON writes them, as Python's `repr` does (pandas' `to_csv` of a column
//! of lists), or as numpy prints arrays, without commas.

use serde_json::{Map, Value};

/// Nesting that is followed.
const DEEPEST: usize = 64;

/// The list or object that a cell holds; `None` where it is a text.
pub(crate) fn parse(cell: &str) -> Option<Value> {
    let cell = cell.trim();
    if !matches!((cell.chars().next()?, cell.chars().next_back()?), ('[', ']') | ('{', '}') | ('(', ')')) {
        return None;
    }
    if let Ok(value) = serde_json::from_str::<Value>(cell) {
        return Some(value);
    }
    let mut parser = Parser { rest: cell, depth: 0 };
    let value = parser.value()?;
    parser.rest.trim_start().is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            '[' | '(' => self.list(),
            '{' => self.object(),
            '\'' | '"' => self.text().map(Value::String),
            _ => self.word(),
        }
    }

    /// `[a, b]` or `(a, b)`; numpy leaves the commas of lists out. A tuple has one: `(1998)` is a text.
    fn list(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let end = if self.take()? == '[' { ']' } else { ')' };
        let (mut all, mut commas) = (Vec::new(), 0);
        loop {
            match self.peek()? {
                c if c == end => break,
                ',' if !all.is_empty() => {
                    self.take();
                    commas += 1;
                }
                _ => all.push(self.value()?),
            }
        }
        if end == ')' && commas == 0 {
            return None;
        }
        self.take();
        self.depth -= 1;
        Some(Value::Array(all))
    }

    fn object(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.take();
        let mut all = Map::new();
        loop {
            match self.peek()? {
                '}' => break,
                ',' if !all.is_empty() => {
                    self.take();
                }
                _ => {
                    let key = match self.value()? {
                        Value::String(key) => key,
                        Value::Number(key) => key.to_string(),
                        _ => return None,
                    };
                    if self.peek()? != ':' {
                        return None;
                    }
                    self.take();
                    let value = self.value()?;
                    all.insert(key, value);
                }
            }
        }
        self.take();
        self.depth -= 1;
        Some(Value::Object(all))
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.take()?;
        let mut text = String::new();
        loop {
            match self.take()? {
                c if c == quote => return Some(text),
                '\\' => match self.take()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'x' => text.push(self.code(2)?),
                    'u' => text.push(self.code(4)?),
                    'U' => text.push(self.code(8)?),
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
    }

    fn code(&mut self, digits: usize) -> Option<char> {
        let (hex, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        char::from_u32(u32::from_str_radix(hex, 16).ok()?)
    }

    /// A number, `True`, `False`, `None`.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| c.is_whitespace() || ",:[](){}'\"".contains(c));
        let (word, rest) = self.rest.split_at(end?);
        self.rest = rest;
        match word {
            "True" | "true" => Some(true.into()),
            "False" | "false" => Some(false.into()),
            "None" | "null" | "nan" => Some(Value::Null),
            _ => match word.parse::<i64>() {
                Ok(whole) => Some(whole.into()),
                Err(_) => word.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_json_python_and_numpy_write() {
        for (cell, value) in [
            (r#"["a", "b"]"#, json!(["a", "b"])),
            ("['a', \"it's\", 'b\\'c\\n']", json!(["a", "it's", "b'c\n"])),
            ("['a' 'b'\n 'c']", json!(["a", "b", "c"])),
            ("[0.5 2. -1]", json!([0.5, 2.0, -1])),
            (
                "[{'role': 'user', 'content': 'x', 'n': None, 'on': True}]",
                json!([{"role": "user", "content": "x", "n": null, "on": true}]),
            ),
            ("('a', 'b')", json!(["a", "b"])),
            ("('a',)", json!(["a"])),
            ("['\\x41\\u00e9']", json!(["Aé"])),
            ("[]", json!([])),
        ] {
            assert_eq!(parse(cell), Some(value), "{cell}");
        }
    }

    #[test]
    fn what_is_a_text_stays_one() {
        for cell in [
            "[citation needed]",
            "[1] as shown",
            "['a', b]",
            "{x}",
            "(see below)",
            "(1998)",
            "()",
            "[",
            "['a'",
            "{'a' 1}",
            "",
        ] {
            assert_eq!(parse(cell), None, "{cell}");
        }
        assert_eq!(parse(&"[".repeat(500)), None);
        assert_eq!(parse(&format!("{}{}", "[".repeat(500), "]".repeat(500))), None);
    }
}
