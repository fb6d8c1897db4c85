//! `weights.bin`: the texts of a sparse index.
//!
//! Little-endian throughout: `"RDSP"`, texts, words (`u32` each); then one byte a text, 1 where it was removed; then for
//! each text a count (`u32`) and that many words, ascending, each a `u32` followed by its weight, an `f32` above 0.

use std::io::Write;

use serde::{Deserialize, Serialize};

use super::vectors::SparseVectors;
use crate::Result;
use crate::store::{Reader, Writer, number};

const WEIGHTS: &str = "weights.bin";
const MAGIC: u32 = u32::from_le_bytes(*b"RDSP");

/// What a sparse index says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    /// How many words there are.
    pub(super) dim: usize,
}

pub(super) fn write(texts: &SparseVectors, removed: &[bool], writer: &mut Writer<Header>) -> Result<()> {
    writer.file(WEIGHTS, |out| write_texts(texts, removed, out))
}

fn write_texts(texts: &SparseVectors, removed: &[bool], out: &mut dyn Write) -> Result<()> {
    for number in [MAGIC, texts.len() as u32, texts.dim() as u32] {
        out.write_all(&number.to_le_bytes())?;
    }
    let removed: Vec<u8> = removed.iter().map(|&removed| removed.into()).collect();
    out.write_all(&removed)?;
    let mut buffer = Vec::new();
    for id in 0..texts.len() {
        buffer.clear();
        buffer.extend((texts.row(id).count() as u32).to_le_bytes());
        for (word, weight) in texts.row(id) {
            buffer.extend(word.to_le_bytes());
            buffer.extend(weight.to_le_bytes());
        }
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// The texts, and which were removed. The checksum has shown that the bytes are those written; the checks here are against
/// a writer that was wrong.
pub(super) fn read(reader: &Reader<Header>) -> Result<(SparseVectors, Vec<bool>)> {
    let (texts, words) = (reader.manifest.count, reader.manifest.header.dim);
    parse(&reader.read(WEIGHTS)?, texts, words).map_err(|problem| reader.corrupt(WEIGHTS, problem))
}

fn parse(bytes: &[u8], texts: usize, words: usize) -> Result<(SparseVectors, Vec<bool>), String> {
    let mut rest = bytes;
    if number(&mut rest)? != MAGIC {
        return Err("it does not begin as weights do".to_owned());
    }
    let found = (number(&mut rest)? as usize, number(&mut rest)? as usize);
    if found != (texts, words) {
        return Err(format!("it has {found:?} texts and words, the manifest {texts} and {words}"));
    }
    let (removed, mut rest) = rest.split_at_checked(texts).ok_or("it ends within the marks of removal")?;
    let mut out = SparseVectors::new(words);
    let mut row = Vec::new();
    for id in 0..texts {
        row.clear();
        for _ in 0..number(&mut rest)? {
            row.push((number(&mut rest)?, f32::from_bits(number(&mut rest)?)));
        }
        out.push(row.drain(..)).map_err(|e| format!("text {id}: {e}"))?;
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left over", rest.len()));
    }
    Ok((out, removed.iter().map(|&removed| removed != 0).collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> (SparseVectors, Vec<u8>) {
        let mut texts = SparseVectors::new(5);
        texts.push([(0, 1.0), (4, 0.5)]).unwrap();
        texts.push([]).unwrap();
        texts.push([(2, 7.0)]).unwrap();
        let mut bytes = Vec::new();
        write_texts(&texts, &[false, true, false], &mut bytes).unwrap();
        (texts, bytes)
    }

    #[test]
    fn texts_round_trip() {
        let (texts, bytes) = small();
        assert_eq!(parse(&bytes, 3, 5).unwrap(), (texts, vec![false, true, false]));
        assert!(parse(&bytes, 2, 5).is_err());
        assert!(parse(&bytes, 3, 4).is_err());
    }

    proptest! {
        /// Whatever the bytes, reading ends with texts that can be searched or an error.
        #[test]
        fn damage_is_an_error_or_harmless(at in 0usize..60, value: u8, cut in 0usize..70) {
            let (_, mut bytes) = small();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(8));
            if let Ok((texts, _)) = parse(&bytes, 3, 5) {
                let mut index = super::super::SparseIndex::new(5);
                index.add(&texts).unwrap();
                index.search(&texts, &crate::SearchParams::top(3)).unwrap();
            }
        }
    }
}
