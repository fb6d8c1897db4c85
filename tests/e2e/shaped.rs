//! Whether a file with a fault still is one of its kind, told apart from the readers by the formats' own rules: what is none
//! must not be accepted as if it said something else.

use serde_json::Value;

/// A file as text, without a byte order mark.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().map(|text| text.trim_start_matches('\u{feff}'))
}

fn every_line(bytes: &[u8], is: impl Fn(&str) -> bool) -> bool {
    let said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    text(bytes).is_some_and(|text| text.lines().filter(said).all(is))
}

/// TREC's run files: six columns or more, a number in the fifth.
pub fn run(bytes: &[u8]) -> bool {
    every_line(bytes, |line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.len() >= 6 && columns[4].parse::<f64>().is_ok_and(|score| !score.is_nan())
    })
}

/// Judgements between tabs, behind a header or not: whole numbers in the third column.
pub fn qrels(bytes: &[u8]) -> bool {
    let grade = |text: &str| text.trim().parse::<f64>().is_ok_and(|n| n.fract() == 0.0);
    let header = text(bytes).and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default();
    every_line(bytes, |line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        line == header || columns.len() >= 3 && columns[2..].iter().any(|column| grade(column))
    })
}

/// RFC 4180: quotes that close, and records of as many fields as the header has. Nothing behind a closing quote.
pub fn csv(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let (mut fields, mut widths, mut quoted, mut start, mut empty) = (1, Vec::new(), false, true, true);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let was_start = std::mem::take(&mut start);
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '"' if quoted => {
                quoted = false;
                if !matches!(chars.peek(), None | Some(',' | '\n' | '\r')) {
                    return false;
                }
            }
            _ if quoted => {}
            '"' if was_start => (quoted, empty) = (true, false),
            ',' => (fields, start, empty) = (fields + 1, true, false),
            '\n' => {
                if !empty {
                    widths.push(fields);
                }
                (fields, start, empty) = (1, true, true);
            }
            '\r' => {}
            _ => empty = false,
        }
    }
    if !empty {
        widths.push(fields);
    }
    !quoted && widths.iter().all(|width| *width == widths[0])
}

/// Fields between tabs: as many in each line as in the header.
pub fn tsv(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let mut widths = text.lines().filter(|l| !l.trim().is_empty()).map(|l| l.split('\t').count());
    let Some(first) = widths.next() else { return true };
    widths.all(|width| width == first)
}

/// One JSON value.
pub fn json(bytes: &[u8]) -> bool {
    text(bytes).is_some_and(|text| serde_json::from_str::<Value>(text).is_ok())
}

/// Weights whose header, sizes included, is the one that it was: then other numbers may be meant.
pub fn weights(good: &[u8], bytes: &[u8]) -> bool {
    let header = |bytes: &[u8]| {
        let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk::<8>()?)).ok()?;
        bytes.get(..length.checked_add(8)?).map(<[u8]>::to_vec)
    };
    good.len() == bytes.len() && header(good).is_some_and(|good| Some(good) == header(bytes))
}

#[test]
fn the_rules_tell_files_apart() {
    assert!(run(b"# x\nq Q0 d 1 0.5 r more\n") && !run(b"q Q0 d 1 x r\n") && !run(b"q Q0 d 1 0.5\n"));
    assert!(qrels(b"query-id\tcorpus-id\tscore\nq\td\t1\n") && !qrels(b"a\tb\tscore\nq\td\tx\n"));
    assert!(csv(b"a,b\n\"x\ny\",\"q\"\"r\"\n\n1,2\n") && !csv(b"a,b\n\"x,y\n") && !csv(b"a,b\n1\n"));
    assert!(!csv(b"a,b\n\"x\"y,2\n") && csv(b"") && !csv(b"a\xff"));
    assert!(tsv(b"a\tb\n1\t2\n") && !tsv(b"a\tb\n1\n") && json(b"[1]") && !json(b"[1"));
    let good = [&2u64.to_le_bytes()[..], b"{}", &[1, 2]].concat();
    let (mut other, mut header) = (good.clone(), good.clone());
    (other[11], header[8]) = (9, b'[');
    assert!(weights(&good, &other) && !weights(&good, &header) && !weights(&good, &good[..11]));
}
