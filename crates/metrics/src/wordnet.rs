//! Reads synonyms from a WordNet 3.x database folder (`index.*`, `data.*` and `*.exc`, as nltk ships it).
//!
//! Only what METEOR asks for is kept: which single words share a synset with a word or with one of its base forms.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The name of a part of speech in file names, and what its inflected endings may stand for (morphy's rules).
type PartOfSpeech = (&'static str, &'static [(&'static str, &'static str)]);

const PARTS_OF_SPEECH: [PartOfSpeech; 4] = [
    (
        "noun",
        &[
            ("s", ""),
            ("ses", "s"),
            ("ves", "f"),
            ("xes", "x"),
            ("zes", "z"),
            ("ches", "ch"),
            ("shes", "sh"),
            ("men", "man"),
            ("ies", "y"),
        ],
    ),
    (
        "verb",
        &[
            ("s", ""),
            ("ies", "y"),
            ("es", "e"),
            ("es", ""),
            ("ed", "e"),
            ("ed", ""),
            ("ing", "e"),
            ("ing", ""),
        ],
    ),
    ("adj", &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")]),
    ("adv", &[]),
];

/// The synonyms of a WordNet folder, in memory.
#[derive(Debug)]
pub struct WordNet {
    parts: Vec<Part>,
}

/// One part of speech.
#[derive(Debug)]
struct Part {
    endings: &'static [(&'static str, &'static str)],
    /// Word to synsets.
    index: HashMap<String, Vec<u64>>,
    /// Synset to its single words.
    synsets: HashMap<u64, Vec<String>>,
    /// Irregular form to base forms.
    exceptions: HashMap<String, Vec<String>>,
}

impl WordNet {
    /// Reads a folder.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is missing or not UTF-8, [`Error::BadLine`] for a line that is not WordNet's.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let parts = PARTS_OF_SPEECH.iter().map(|&(name, endings)| {
            Ok(Part {
                endings,
                index: read(folder.join(format!("index.{name}")), "a WordNet index line", index_line)?,
                synsets: read(folder.join(format!("data.{name}")), "a WordNet data line", data_line)?,
                exceptions: read(
                    folder.join(format!("{name}.exc")),
                    "a form and its base forms",
                    exception_line,
                )?,
            })
        });
        Ok(Self { parts: parts.collect::<Result<_>>()? })
    }

    /// The single words that share a synset with a word, under any part of speech; as written there, so names keep
    /// their capitals. Empty for an unknown word.
    pub fn synonyms(&self, word: &str) -> HashSet<&str> {
        let word = word.to_lowercase();
        let mut out = HashSet::new();
        for part in &self.parts {
            let mut forms = vec![word.clone()];
            match part.exceptions.get(&word) {
                Some(base) => forms.extend(base.iter().cloned()),
                None => forms.extend(
                    part.endings
                        .iter()
                        .filter_map(|(old, new)| Some(format!("{}{new}", word.strip_suffix(old)?))),
                ),
            }
            let synsets = forms.iter().filter_map(|form| part.index.get(form)).flatten();
            out.extend(synsets.filter_map(|synset| part.synsets.get(synset)).flatten().map(String::as_str));
        }
        out
    }
}

/// Reads a file of entries; lines that begin with a space are the licence.
fn read<K: std::hash::Hash + Eq, V>(
    path: PathBuf,
    expected: &'static str,
    entry: impl Fn(&str) -> Option<(K, V)>,
) -> Result<HashMap<K, V>> {
    let text = fs_err::read_to_string(&path)?;
    let mut entries = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with(' ') || line.is_empty() {
            continue;
        }
        let Some((key, value)) = entry(line) else {
            let problem = "fields are missing or no numbers".to_owned();
            return Err(Error::BadLine { path, line: number + 1, problem, expected });
        };
        entries.insert(key, value);
    }
    Ok(entries)
}

/// `lemma pos synset_cnt p_cnt [symbol]* sense_cnt tagsense_cnt offset*`
fn index_line(line: &str) -> Option<(String, Vec<u64>)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let count = |at: usize| fields.get(at)?.parse::<usize>().ok();
    let (synsets, pointers) = (count(2)?, count(3)?);
    let offsets = fields.get(pointers.checked_add(6)?..)?;
    if offsets.len() != synsets {
        return None;
    }
    let offsets: Option<Vec<u64>> = offsets.iter().map(|offset| offset.parse().ok()).collect();
    Some((fields[0].to_owned(), offsets?))
}

/// `offset lex_filenum ss_type w_cnt (word lex_id)* …`, the count in hexadecimal. An adjective may end in a marker of
/// where it may stand, as in `galore(ip)`.
fn data_line(line: &str) -> Option<(u64, Vec<String>)> {
    let mut fields = line.split_whitespace();
    let offset = fields.next()?.parse().ok()?;
    let count = usize::from_str_radix(fields.nth(2)?, 16).ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let word = fields.next()?;
        fields.next()?;
        let word = word.strip_suffix(')').and_then(|bare| Some(bare.rsplit_once('(')?.0)).unwrap_or(word);
        // Phrases never match a single word.
        if !word.contains('_') {
            words.push(word.to_owned());
        }
    }
    Some((offset, words))
}

fn exception_line(line: &str) -> Option<(String, Vec<String>)> {
    let mut fields = line.split_whitespace().map(str::to_owned);
    Some((fields.next()?, fields.collect()))
}
