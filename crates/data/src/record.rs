//! The records that every format is read into.

use serde::{Deserialize, Serialize};

/// A question or search query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Unique name; made from the text where the data gives none.
    pub id: String,
    /// The query itself.
    pub text: String,
}

impl Query {
    /// A query without an id of its own: the id is the hash of the text, so that equal texts get equal ids.
    pub fn from_text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { id: text_id(&text), text }
    }
}

/// A passage of a corpus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Unique name; made from title and text where the data gives none.
    pub id: String,
    /// Title of the passage or of its article. Never empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The passage itself.
    pub text: String,
}

impl Passage {
    /// A passage without an id of its own: the id is the hash of title and text.
    pub fn from_text(title: Option<String>, text: impl Into<String>) -> Self {
        let mut passage =
            Self { id: String::new(), title: title.filter(|t| !t.trim().is_empty()), text: text.into() };
        passage.id = text_id(&passage.full_text());
        passage
    }

    /// What an encoder sees: title, a space, text, trimmed. The same string that BEIR's loader and
    /// `sentence-transformers` build.
    pub fn full_text(&self) -> String {
        match &self.title {
            Some(title) => format!("{title} {}", self.text).trim().to_owned(),
            None => self.text.trim().to_owned(),
        }
    }
}

/// One training example: a query, what answers it, and what does not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RetrievalExample {
    /// The query.
    pub query: Query,
    /// Passages that answer it; at least one.
    pub positives: Vec<Passage>,
    /// Passages that do not, usually hard ones.
    pub negatives: Vec<Passage>,
    /// Scores a teacher gave, first the positives', then the negatives'.
    pub scores: Option<Vec<f32>>,
    /// Answers to the query as short texts, where the data has them.
    pub answers: Vec<String>,
}

/// One judgement of a qrels file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qrel {
    /// Id of the query.
    pub query: String,
    /// Id of the passage.
    pub passage: String,
    /// Grade; above zero means relevant.
    pub grade: i32,
}

/// Hash of a text under which texts count as equal: white space is trimmed and runs of it are one space.
pub fn text_key(text: &str) -> u64 {
    text_key_seeded(text, 0)
}

pub(crate) fn text_key_seeded(text: &str, seed: u64) -> u64 {
    // Most texts are in normal form already; then nothing is copied.
    let normal = !text.starts_with(char::is_whitespace)
        && !text.ends_with(char::is_whitespace)
        && text.bytes().zip(text.bytes().skip(1)).all(|(a, b)| {
            a.is_ascii() && !matches!(a, 0x09..=0x0d | 0x1c..=0x1f) && !(a == b' ' && b == b' ')
        })
        && text.is_ascii();
    if normal {
        return xxhash_rust::xxh3::xxh3_64_with_seed(text.as_bytes(), seed);
    }
    let mut joined = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    xxhash_rust::xxh3::xxh3_64_with_seed(joined.as_bytes(), seed)
}

/// Whether two texts are equal in the sense of [`text_key`].
pub(crate) fn same_text(a: &str, b: &str) -> bool {
    a == b || a.split_whitespace().eq(b.split_whitespace())
}

/// Whether a passage is a query's own copy, as in corpora that hold their questions (ArguAna, Quora): the same id, or the
/// same words with or without the title, whatever their case and white space.
pub fn is_own_copy(query: &Query, passage: &Passage) -> bool {
    let same = |text: &str| {
        let words = |text: &str| text.to_lowercase();
        same_text(&query.text, text) || same_text(&words(&query.text), &words(text))
    };
    query.id == passage.id || same(&passage.text) || same(&passage.full_text())
}

pub(crate) fn text_id(text: &str) -> String {
    format!("{:016x}", text_key(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_copies_are_found_by_id_and_by_words() {
        let query = Query { id: "q".into(), text: "What is  It?\n".into() };
        let passage = |id: &str, title: Option<&str>, text: &str| Passage {
            id: id.into(),
            title: title.map(str::to_owned),
            text: text.into(),
        };
        assert!(is_own_copy(&query, &passage("q", None, "else")));
        assert!(is_own_copy(&query, &passage("p", None, "what is it?")));
        assert!(is_own_copy(&query, &passage("p", Some("What is"), "it?")));
        assert!(is_own_copy(&query, &passage("p", Some("Title"), "What is it?")));
        assert!(!is_own_copy(&query, &passage("p", None, "What is it? That.")));
    }

    #[test]
    fn full_text_joins_title() {
        let passage = Passage { id: "1".into(), title: Some("Title".into()), text: " text \n".into() };
        assert_eq!(passage.full_text(), "Title  text");
        assert_eq!(Passage::from_text(Some("  ".into()), "text").title, None);
    }

    #[test]
    fn keys_ignore_white_space_only() {
        for other in ["a b c", " a  b c", "a\tb\nc ", "a\u{a0}b\u{2003}c", "a\r\nb c"] {
            assert_eq!(text_key(other), text_key("a b c"), "{other:?}");
            assert!(same_text(other, "a b c"));
        }
        assert_ne!(text_key("A b c"), text_key("a b c"));
        assert_ne!(text_key("ab c"), text_key("a b c"));
        assert_eq!(text_key("é  è"), text_key("é è"));
        assert_eq!(text_key(" "), text_key(""));
        assert!(!same_text("ab c", "a bc"));
    }
}
