//! Cutting answers into sentences, and the passages they cite.
//!
//! Rules, no model: the same text always gives the same sentences. A sentence ends at a line break; after `.`, `!` or
//! `?` with closing quotes and brackets where white space follows and the next word does not begin in lower case; and
//! after `。`, `！`, `？`. Initials and common abbreviations do not end one. Citations that follow the mark, as in
//! "It rained. [2] Then", belong to the sentence before.

use std::ops::RangeInclusive;

const ABBREVIATIONS: [&str; 26] = [
    "mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "etc", "e.g", "i.e", "cf", "al", "fig", "figs",
    "eq", "vol", "pp", "inc", "ltd", "co", "corp", "gen", "approx", "ca",
];

/// A citation such as `[1-9999]` is a year range or noise rather than that many passages.
const LONGEST_RANGE: usize = 20;

/// The sentences of a text, trimmed, none empty.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for line in text.split(['\n', '\r']) {
        let mut start = 0;
        for (at, c) in line.char_indices() {
            if at < start || !matches!(c, '.' | '!' | '?' | '。' | '！' | '？') {
                continue;
            }
            let mut end = at + c.len_utf8();
            end += line[end..].find(|c| !is_closing(c)).unwrap_or(line.len() - end);
            let cited = end + citations_len(&line[end..]);
            let rest = &line[cited..];
            let next = rest.trim_start();
            // "…。" needs no space after it; "3.5", "example.com" and "e.g. this" go on.
            let wide = matches!(c, '。' | '！' | '？');
            let spaced = rest.len() > next.len() || next.is_empty() || cited > end;
            let goes_on =
                next.starts_with(char::is_lowercase) || c == '.' && is_abbreviated(&line[start..at], next);
            if wide || spaced && (!goes_on || next.is_empty()) {
                out.push(line[start..cited].trim());
                start = cited;
            }
        }
        out.push(line[start..].trim());
    }
    out.retain(|sentence| !sentence.is_empty());
    out
}

fn is_closing(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '。' | '！' | '？' | '」')
}

/// Whether the last word before a full stop is an initial or an abbreviation.
fn is_abbreviated(before: &str, next: &str) -> bool {
    let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '.').next().unwrap_or("");
    let mut letters = word.chars();
    let initial = letters.next().is_some_and(char::is_uppercase) && letters.next().is_none();
    match word.to_lowercase().as_str() {
        // "No. 5" goes on, "He said no." does not.
        "no" => next.starts_with(|c: char| c.is_ascii_digit()),
        word => initial || ABBREVIATIONS.contains(&word),
    }
}

/// Bytes of the citations, and spaces before them, that a text begins with.
fn citations_len(text: &str) -> usize {
    let mut len = 0;
    loop {
        let rest = &text[len..];
        let trimmed = rest.trim_start_matches(' ');
        match marker(trimmed) {
            Some((bytes, _)) => len += rest.len() - trimmed.len() + bytes,
            None => return len,
        }
    }
}

/// The citation that a text begins with: its bytes and the passages it names, counted from 1.
fn marker(text: &str) -> Option<(usize, Vec<RangeInclusive<usize>>)> {
    let inner = text.strip_prefix('[')?;
    let inner = &inner[..inner.find(']')?];
    let parts: Option<Vec<_>> = inner.split([',', ';']).map(|part| numbers(part.trim())).collect();
    Some((inner.len() + 2, parts?))
}

fn numbers(part: &str) -> Option<RangeInclusive<usize>> {
    let number = |s: &str| {
        let s = s.trim();
        s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<usize>().ok()).flatten()
    };
    let (first, last) = part.split_once(['-', '–']).unwrap_or((part, part));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last - first < LONGEST_RANGE).then_some(first..=last)
}

/// The passages a text cites as `[1]`, `[1, 3]`, `[1][3]` or `[1-3]`, counted from 1 as the reader sees them, each
/// once, in order of appearance. They need not exist.
pub fn citations(text: &str) -> Vec<usize> {
    let mut out = Vec::new();
    for (at, _) in text.match_indices('[') {
        let numbers = marker(&text[at..]).into_iter().flat_map(|(_, ranges)| ranges).flatten();
        for number in numbers {
            if !out.contains(&number) {
                out.push(number);
            }
        }
    }
    out
}

/// The text without its citations.
pub fn without_citations(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        out.push_str(&rest[..at]);
        let len = marker(&rest[at..]).map(|(len, _)| len);
        if len.is_none() {
            out.push('[');
        }
        rest = &rest[at + len.unwrap_or(1)..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_readers_end_them() {
        for (text, want) in [
            ("", vec![]),
            (" \n ", vec![]),
            ("One", vec!["One"]),
            ("One. Two! Three?", vec!["One.", "Two!", "Three?"]),
            (
                "Dr. J. Smith paid 3.5 to example.com, e.g. Today. Yes",
                vec!["Dr. J. Smith paid 3.5 to example.com, e.g. Today.", "Yes"],
            ),
            (
                "He said \"no.\" Then he left... and came back.",
                vec!["He said \"no.\"", "Then he left... and came back."],
            ),
            ("It rained. [2] [3, 4] Then sun [1].", vec!["It rained. [2] [3, 4]", "Then sun [1]."]),
            ("It rained.[2] it did", vec!["It rained.[2] it did"]),
            ("一。二！三", vec!["一。", "二！", "三"]),
            ("a list\n- x\r\n- y. ", vec!["a list", "- x", "- y."]),
            ("...", vec!["..."]),
        ] {
            assert_eq!(sentences(text), want, "{text:?}");
        }
    }

    #[test]
    fn citations_are_numbers_in_brackets() {
        assert_eq!(citations("a [2] b [1, 3][2] c [5-7] [10–11; 1]"), [2, 1, 3, 5, 6, 7, 10, 11]);
        assert_eq!(citations("[x] [1a] [] [-1] [3-1] [1-9999] [+4] [1"), [0usize; 0]);
        assert_eq!(without_citations("a [2] b[x][1, 3]. ["), "a  b[x]. [");
    }
}
