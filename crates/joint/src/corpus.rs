//! The passages that are searched, in memory, by row and by name.

use crate::{Error, Result};
use ragduet_data::{BadRows, Passage, ReadOptions, read_corpus, text_key};
use std::collections::HashMap;
use std::path::Path;

/// A corpus; its rows are those of the index.
#[derive(Debug)]
pub struct Corpus {
    passages: Vec<Passage>,
    texts: Vec<String>,
    rows: HashMap<String, u32>,
    /// Rows by a hash of their words, with and without the title.
    words: HashMap<u64, Vec<u32>>,
}

/// A hash of a text's words, whatever their case.
fn key(text: &str) -> u64 {
    text_key(&text.to_lowercase())
}

impl Corpus {
    /// Of passages, each id once.
    ///
    /// # Errors
    /// No passage; an id that stands twice.
    pub fn new(passages: Vec<Passage>) -> Result<Self> {
        if passages.is_empty() {
            return Err(Error::Unusable("the corpus has no passage".into()));
        }
        let mut rows = HashMap::with_capacity(passages.len());
        for (row, p) in passages.iter().enumerate() {
            if rows.insert(p.id.clone(), row as u32).is_some() {
                return Err(Error::Unusable(format!("the corpus has two passages named `{}`", p.id)));
            }
        }
        let texts: Vec<String> = passages.iter().map(Passage::full_text).collect();
        let mut words: HashMap<u64, Vec<u32>> = HashMap::with_capacity(passages.len());
        for (row, (passage, full)) in passages.iter().zip(&texts).enumerate() {
            words.entry(key(full)).or_default().push(row as u32);
            if passage.title.is_some() {
                words.entry(key(&passage.text)).or_default().push(row as u32);
            }
        }
        Ok(Self { passages, texts, rows, words })
    }

    /// From a file of passages or a collection.
    ///
    /// # Errors
    /// As [`Corpus::new`], and what reading meets.
    pub fn read(path: &Path, bad: &BadRows) -> Result<Self> {
        Self::read_with(path, &ReadOptions::default(), bad)
    }

    /// [`Corpus::read`] with what the path does not show.
    ///
    /// # Errors
    /// As there.
    pub fn read_with(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Self> {
        let passages = read_corpus(path, options, bad)?;
        Self::new(passages.collect::<ragduet_data::Result<_>>()?)
    }

    /// Number of passages; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.passages.len()
    }

    /// A passage.
    pub fn passage(&self, row: u32) -> &Passage {
        &self.passages[row as usize]
    }

    /// What the retriever reads of each passage: title and text.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The row of a passage.
    pub fn row(&self, id: &str) -> Option<u32> {
        self.rows.get(id).copied()
    }

    /// Rows of the passages that are a question's own words, with or without their title, whatever the case.
    pub fn copies_of(&self, question: &str) -> &[u32] {
        self.words.get(&key(question)).map_or(&[], Vec::as_slice)
    }

    /// The names, by row.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.passages.iter().map(|p| p.id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_found_by_their_words() {
        let passage = |id: &str, title: Option<&str>, text: &str| Passage {
            id: id.into(),
            title: title.map(str::to_owned),
            text: text.into(),
        };
        let corpus = Corpus::new(vec![
            passage("a", None, "Is tea  hot?"),
            passage("b", Some("Tea"), "is tea hot?"),
            passage("c", Some("Is tea"), "hot?"),
            passage("d", None, "Is tea hot? It is."),
        ])
        .unwrap();
        assert_eq!(corpus.copies_of("is tea hot?"), [0, 1, 2]);
        assert_eq!(corpus.copies_of("is tea cold?"), [0u32; 0]);
    }
}
