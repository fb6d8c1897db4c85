//! From any format that is read to any that is written.

use std::path::Path;

use crate::collection::whole_corpus;
use crate::format::spec::Writer;
use crate::write::{WriteCounts, write_examples};
use crate::{BadRows, Format, ReadOptions, Result, read_corpus, read_examples};

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
