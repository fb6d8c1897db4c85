//! From any format that is read to any that is written.

use std::path::Path;

use crate::write::{BeirWriter, WriteCounts, write_examples};
use crate::{BadRows, Format, ReadOptions, Result, read_corpus, read_examples};

/// Converts a data set. Returns what was written and what the target has no place for; rows that could not be read
/// are in the report of `bad`.
///
/// A BEIR directory gets the split that `options` names (`train` if none) and, where the source has a corpus of its
/// own, the whole of it.
pub fn convert(
    from: impl AsRef<Path>,
    options: &ReadOptions,
    to: impl AsRef<Path>,
    format: Format,
    bad: &BadRows,
) -> Result<WriteCounts> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let examples = read_examples(from, options, bad)?;
    if format != Format::Beir {
        return write_examples(to, format, examples);
    }
    let source = options.format.map_or_else(|| Format::detect(from), Ok)?;
    let mut writer = BeirWriter::create(to, options.split())?;
    let corpus = match (source, &options.corpus) {
        (_, Some(corpus)) => Some((corpus.as_path(), None)),
        (Format::Beir | Format::MsMarco, None) if from.is_dir() => Some((from, options.format)),
        (Format::Squad, None) => Some((from, Some(Format::Squad))),
        _ => None,
    };
    if let Some((path, format)) = corpus {
        // `read_examples` reports the rows of the corpus.
        for passage in
            read_corpus(path, &ReadOptions { format, ..ReadOptions::default() }, &BadRows::silent())?
        {
            writer.push_passage(&passage?)?;
        }
    }
    for example in examples {
        writer.push(&example?)?;
    }
    writer.finish()
}
