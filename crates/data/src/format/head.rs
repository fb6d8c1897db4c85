//! How a `.json` file begins.

use std::path::Path;

use serde::de::IgnoredAny;

use crate::Result;
use crate::source::peek;

/// Bytes of a `.json` file that are looked at.
const HEAD: usize = 4096;

/// The beginning of a `.json` file, without byte order mark and white space.
pub(crate) struct Head(String);

impl Head {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Ok(Self::of(&String::from_utf8_lossy(&peek(path, HEAD)?)))
    }

    fn of(text: &str) -> Self {
        Self(text.trim_start_matches('\u{feff}').trim_start().to_owned())
    }

    /// Whether the document is an array.
    pub(crate) fn is_array(&self) -> bool {
        self.0.starts_with('[')
    }

    /// The keys of the top-level object that the head shows, each with the first character of its value.
    pub(crate) fn keys(&self) -> Vec<(&str, char)> {
        let mut keys = Vec::new();
        let (mut depth, mut rest) = (0usize, self.0.as_str());
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.saturating_sub(1),
                '"' => {
                    let Some(end) = string_end(rest) else { break };
                    let (text, behind) = (&rest[..end], &rest[end + 1..]);
                    rest = behind;
                    let value = behind.trim_start().strip_prefix(':').map(str::trim_start);
                    if let (1, Some(first)) = (depth, value.and_then(|v| v.chars().next())) {
                        keys.push((text, first));
                    }
                }
                _ => {}
            }
        }
        keys
    }

    /// Whether the document begins with an object.
    pub(crate) fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// Whether this is one object over several lines, rather than an object a line.
    pub(crate) fn is_spread(&self) -> bool {
        let Some((line, rest)) = self.0.split_once('\n') else { return false };
        let open = serde_json::from_str::<IgnoredAny>(line).is_err_and(|e| e.is_eof());
        let next = rest.trim_start();
        open && !next.is_empty() && !next.starts_with('{')
    }
}

/// Where a JSON string ends whose opening quote was taken.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_top_level() {
        let head = Head::of(
            "\u{feff} {\"a\\\"b\": {\"c\": [1, {\"d\": 2}]}, \"e\" : \"f: g\", \"h\":[\"i\"], \"cut",
        );
        assert_eq!(head.keys(), [("a\\\"b", '{'), ("e", '"'), ("h", '[')]);
        assert!(Head::of("[{\"a\": 1}]").keys().is_empty());
    }

    #[test]
    fn an_object_a_line_or_over_lines() {
        for (text, spread) in [
            ("{\"a\": 1}\n{\"a\": 2}", false),
            ("{\"a\": \n{\"a\": 2}", false),
            ("{\"a\": ", false),
            ("{\n  \"a\": 1\n}", true),
            ("{\"a\":\n [1]}", true),
        ] {
            assert_eq!(Head::of(text).is_spread(), spread, "{text}");
        }
    }
}
