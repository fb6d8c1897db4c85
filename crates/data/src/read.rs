//! Readers: any format to a stream of examples or passages, a row at a time.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::format::spec::Reading;
use crate::patterns::expand;
use crate::shown::with_first;
use crate::stream::{Examples, Passages};
use crate::{BadRows, Error, Format, PairLabels, Result};

pub(crate) mod arrow;
pub(crate) mod corpora;
pub(crate) mod elements;
mod literal;
pub(crate) mod named;
pub(crate) mod parquet;
pub(crate) mod rows;
mod scanner;
pub(crate) mod table;

/// What a reader may need to know beside the path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadOptions {
    /// The format, where the path does not show it.
    pub format: Option<Format>,
    /// Split of a collection that has splits (BEIR and MS MARCO directories); `train` if not given.
    pub split: Option<String>,
    /// Corpus that ids in the examples point to (Tevatron 2, MS MARCO triples of ids).
    pub corpus: Option<PathBuf>,
    /// Queries that ids in the examples point to (MS MARCO triples of ids).
    pub queries: Option<PathBuf>,
    /// What the labels of pairs and of lists of documents mean.
    pub labels: PairLabels,
}

impl ReadOptions {
    /// Options with a format.
    pub fn format(format: Format) -> Self {
        Self { format: Some(format), ..Self::default() }
    }

    pub(crate) fn split(&self) -> &str {
        self.split.as_deref().unwrap_or("train")
    }

    /// The format given, or that the path shows.
    pub(crate) fn format_of(&self, path: &Path) -> Result<Format> {
        self.format.map_or_else(|| Format::detect(path), Ok)
    }
}

/// What a path stands for, where that is one file or folder; else the pattern itself.
pub(crate) fn alone(path: &Path) -> Result<Cow<'_, Path>> {
    let mut all = expand(path)?;
    Ok(match all.pop() {
        Some(one) if all.is_empty() => Cow::Owned(one),
        _ => Cow::Borrowed(path),
    })
}

/// Streams the examples of a file or directory. Rows that cannot be used go to `bad`.
pub fn read_examples(path: impl AsRef<Path>, options: &ReadOptions, bad: &BadRows) -> Result<Examples> {
    let path = &*alone(path.as_ref())?;
    let format = options.format_of(path)?;
    if let Some(parts) = format.collection(path)? {
        return Ok(with_first(path, EXAMPLE, bad, parts.examples(options.split(), bad, bad)?));
    }
    let read = format.spec().examples.ok_or_else(|| Error::Unsupported {
        path: path.to_owned(),
        reason: format!(
            "{format} holds passages, not examples; examples are read from {}",
            Format::names(|spec| spec.examples.is_some() || spec.collection.is_some())
        ),
    })?;
    let open_corpus =
        options.corpus.as_ref().map(|corpus| move || read_corpus(corpus, &ReadOptions::default(), bad));
    let examples = read(&Reading {
        path,
        corpus: open_corpus.as_ref().map(|open| open as &dyn Fn() -> Result<Passages>),
        queries: options.queries.as_deref(),
        split: options.split.as_deref(),
        labels: options.labels,
        bad,
    })?;
    Ok(with_first(path, EXAMPLE, bad, examples))
}

/// What a log calls an example.
const EXAMPLE: &str = "example";
/// What a log calls a passage.
const PASSAGE: &str = "passage";

/// Streams the passages of a corpus. Rows that cannot be used go to `bad`.
pub fn read_corpus(path: impl AsRef<Path>, options: &ReadOptions, bad: &BadRows) -> Result<Passages> {
    let path = &*alone(path.as_ref())?;
    let format = options.format_of(path)?;
    if let Some(parts) = format.collection(path)? {
        return Ok(with_first(path, PASSAGE, bad, parts.corpus(bad)?));
    }
    let read = format.spec().corpus.ok_or_else(|| Error::Unsupported {
        path: path.to_owned(),
        reason: format!(
            "{format} holds examples; convert it to a collection ({}) to get a corpus",
            Format::names(|spec| spec.collection.is_some() && spec.writer.is_some())
        ),
    })?;
    let (split, labels) = (options.split.as_deref(), options.labels);
    let passages = read(&Reading { path, corpus: None, queries: None, split, labels, bad })?;
    Ok(with_first(path, PASSAGE, bad, passages))
}
