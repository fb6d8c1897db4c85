//! `documents.bin` and `terms.txt`: the texts of a lexical index as terms and counts. Scores are not stored: they
//! follow from these and the settings in the manifest.
//!
//! Little-endian `u32` throughout: `"RDLX"`, texts, terms; then one byte a text, 1 where it was removed; then for each
//! text a count and that many distinct terms, ascending, each followed by how often it occurs. `terms.txt` has one JSON
//! string a line, in the order of the terms' numbers.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::config::LexicalConfig;
use super::documents::Documents;
use crate::store::{Reader, Writer, number};
use crate::{IdMap, Result};

const DOCUMENTS: &str = "documents.bin";
const TERMS: &str = "terms.txt";
const MAGIC: u32 = u32::from_le_bytes(*b"RDLX");

/// What a lexical index says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) requested: LexicalConfig,
}

pub(super) fn write(documents: &Documents, writer: &mut Writer<Header>) -> Result<()> {
    writer.file(TERMS, |out| documents.vocabulary.write(out))?;
    writer.file(DOCUMENTS, |out| write_documents(documents, out))
}

fn write_documents(documents: &Documents, out: &mut dyn Write) -> Result<()> {
    for number in [MAGIC, documents.len() as u32, documents.vocabulary.len() as u32] {
        out.write_all(&number.to_le_bytes())?;
    }
    let removed: Vec<u8> = documents.removed.iter().map(|&removed| removed.into()).collect();
    out.write_all(&removed)?;
    let mut buffer = Vec::new();
    for id in 0..documents.len() {
        buffer.clear();
        buffer.extend((documents.terms_of(id).count() as u32).to_le_bytes());
        for (term, count) in documents.terms_of(id) {
            buffer.extend(term.to_le_bytes());
            buffer.extend(count.to_le_bytes());
        }
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Reads as many texts as the manifest says. The checksum has shown that the bytes are those written; the checks here
/// are against a writer that was wrong, so that no search can leave its arrays.
pub(super) fn read(reader: &Reader<Header>) -> Result<Documents> {
    let vocabulary = IdMap::read(reader, TERMS)?;
    let bytes = reader.read(DOCUMENTS)?;
    parse(&bytes, vocabulary, reader.manifest.count).map_err(|problem| reader.corrupt(DOCUMENTS, problem))
}

fn parse(bytes: &[u8], vocabulary: IdMap, expected: usize) -> Result<Documents, String> {
    let mut rest = bytes;
    if number(&mut rest)? != MAGIC {
        return Err("it does not begin as texts do".to_owned());
    }
    let (texts, terms) = (number(&mut rest)? as usize, number(&mut rest)? as usize);
    if texts != expected || terms != vocabulary.len() {
        return Err(format!(
            "it has {texts} texts and {terms} terms, the manifest {expected} and {TERMS} {}",
            vocabulary.len()
        ));
    }
    let (removed, mut rest) = rest.split_at_checked(texts).ok_or("it ends within the marks of removal")?;
    let mut documents = Documents { vocabulary, ..Documents::default() };
    for (id, &removed) in removed.iter().enumerate() {
        let mut before = None;
        for _ in 0..number(&mut rest)? {
            let (term, count) = (number(&mut rest)?, number(&mut rest)?);
            if term as usize >= terms || before >= Some(term) || count == 0 {
                return Err(format!("text {id} has term {term} {count} times behind {before:?}"));
            }
            documents.terms.push(term);
            documents.counts.push(count);
            before = Some(term);
        }
        documents.ends.push(documents.terms.len());
        documents.removed.push(removed != 0);
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left over", rest.len()));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::analysis::Analyzer;
    use super::*;

    fn small() -> (Documents, Vec<u8>) {
        let mut documents = Documents::default();
        documents.add(&Analyzer::new(&LexicalConfig::default()), &["cat dog cat", "", "dog bird"]).unwrap();
        documents.removed[1] = true;
        let mut bytes = Vec::new();
        write_documents(&documents, &mut bytes).unwrap();
        (documents, bytes)
    }

    #[test]
    fn texts_round_trip() {
        let (documents, bytes) = small();
        let read = parse(&bytes, documents.vocabulary.clone(), 3).unwrap();
        assert_eq!((&read.ends, &read.removed), (&documents.ends, &documents.removed));
        assert_eq!((&read.terms, &read.counts), (&documents.terms, &documents.counts));
        assert!(parse(&bytes, documents.vocabulary.clone(), 2).is_err());
        assert!(parse(&bytes, IdMap::new(), 3).is_err());
    }

    proptest! {
        /// Whatever the bytes, reading ends with texts that can be searched or an error.
        #[test]
        fn damage_is_an_error_or_harmless(at in 0usize..60, value: u8, cut in 0usize..70) {
            let (documents, mut bytes) = small();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(8));
            if let Ok(documents) = parse(&bytes, documents.vocabulary, 3) {
                super::super::scoring::postings(&LexicalConfig::default(), &documents);
            }
        }
    }
}
