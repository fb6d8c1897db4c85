//! From any format that is read to any that is written.

use std::path::Path;

use crate::collection::whole_corpus;
use crate::format::spec::Writer;
use crate::source::is_jsonl;
use crate::write::atomic::AtomicFile;
use crate::write::{WriteCounts, write_examples};
use crate::{
    BadRows, Error, Format, Kind, ReadOptions, Result, rag_line, read_corpus, read_examples, read_judged,
    read_preferences, read_rag,
};

/// Converts a data set. Returns what was written and what the target has no place for; rows that could not be read
/// are in the report of `bad`.
///
/// A collection gets the split that `options` names (`train` if none) and, where
/// the source has a corpus of its own, the whole of it.
pub fn convert(
    from: impl AsRef<Path>,
    options: &ReadOptions,
    to: impl AsRef<Path>,
    format: Format,
    bad: &BadRows,
) -> Result<WriteCounts> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let mut examples = read_examples(from, options, bad)?;
    let Some(Writer::Collection(write)) = &format.spec().writer else {
        return write_examples(to, format, examples);
    };
    // `read_examples` reports the rows of the corpus.
    let silent = bad.silenced();
    let corpus = match &options.corpus {
        Some(corpus) => Some(read_corpus(corpus, &ReadOptions::default(), &silent)?),
        None => whole_corpus(from, options, &silent)?,
    };
    write(to, options.split(), corpus, &mut examples)
}

/// Converts data for generators to JSON Lines: records to those of [`read_rag`], preferences to those of
/// [`read_preferences`]. Returns the number of rows.
///
/// # Errors
/// An output that is no JSON Lines; the first bad row, or as `bad` says.
pub fn convert_records(from: &Path, kind: Kind, to: &Path, bad: &BadRows) -> Result<u64> {
    if !is_jsonl(to) {
        return Err(Error::Unsupported {
            path: to.to_owned(),
            reason: format!("{kind} are written as JSON Lines: name the output .jsonl (also .gz, .zst)"),
        });
    }
    let lines: Box<dyn Iterator<Item = Result<String>>> = match kind {
        Kind::Preferences => Box::new(read_preferences(from, bad)?.map(|row| row.map(|r| r.line()))),
        Kind::Completions => Box::new(read_judged(from, bad)?.map(|row| row.map(|r| r.line()))),
        _ => Box::new(read_rag(from, bad)?.map(|row| row.map(|r| rag_line(&r)))),
    };
    let mut file = AtomicFile::create(to)?;
    let mut count = 0;
    for line in lines {
        file.write_all(line?.as_bytes())?;
        file.write_all(b"\n")?;
        count += 1;
    }
    file.finish()?;
    Ok(count)
}
