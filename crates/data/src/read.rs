//! Readers: any format to a stream of examples or passages, a row at a time.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::columns;
use crate::source::{inner_extension, rows_of, shards};
use crate::{BadRows, Error, Format, Passage, Result, RetrievalExample};

mod beir;
mod corpus;
mod elements;
mod ids;
mod json;
mod msmarco;
mod parquet;
pub(crate) mod rows;

pub use beir::Beir;

/// A stream of examples. Ends after its first error.
pub type Examples = Box<dyn Iterator<Item = Result<RetrievalExample>> + Send>;

/// A stream of passages. Ends after its first error.
pub type Passages = Box<dyn Iterator<Item = Result<Passage>> + Send>;

/// What a reader may need to know beside the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format, where the path does not show it.
    pub format: Option<Format>,
    /// Split of a BEIR or MS MARCO directory; `train` if not given.
    pub split: Option<String>,
    /// Corpus that ids in the examples point to (Tevatron 2, MS MARCO triples of ids).
    pub corpus: Option<PathBuf>,
    /// Queries that ids in the examples point to (MS MARCO triples of ids).
    pub queries: Option<PathBuf>,
}

impl ReadOptions {
    /// Options with a format.
    pub fn format(format: Format) -> Self {
        Self { format: Some(format), ..Self::default() }
    }

    pub(crate) fn split(&self) -> &str {
        self.split.as_deref().unwrap_or("train")
    }
}

/// Streams the examples of a file or directory. Rows that cannot be used go to `bad`.
pub fn read_examples(path: impl AsRef<Path>, options: &ReadOptions, bad: &BadRows) -> Result<Examples> {
    let path = path.as_ref();
    let format = options.format.map_or_else(|| Format::detect(path), Ok)?;
    match format {
        Format::Beir => Beir::open(path)?.examples(options.split(), bad),
        Format::Jsonl | Format::FlagEmbedding => jsonl(path, bad),
        Format::Parquet => parquet::examples(path, bad),
        Format::Dpr => json::dpr(path, bad),
        Format::Squad => json::squad(path, bad),
        Format::Tevatron => ids::tevatron(path, options, bad),
        Format::MsMarco => msmarco::examples(path, options, bad),
        Format::Txt | Format::Paragraphs | Format::Tsv => Err(Error::Unsupported {
            path: path.to_owned(),
            reason: format!(
                "{format} holds passages, not examples; triples of MS MARCO are read with format ms-marco"
            ),
        }),
    }
}

/// Streams the passages of a corpus. Rows that cannot be used go to `bad`.
pub fn read_corpus(path: impl AsRef<Path>, options: &ReadOptions, bad: &BadRows) -> Result<Passages> {
    corpus::read(path.as_ref(), options, bad)
}

fn jsonl(path: &Path, bad: &BadRows) -> Result<Examples> {
    let files = shards(path, JSONL)?;
    Ok(Box::new(rows_of(files, bad, |_, line| columns::example(columns::parse_object(line)?).map(Some))))
}

/// Extensions of JSON Lines.
pub(crate) const JSONL: &[&str] = &["jsonl", "ndjson", "json"];

/// The passages of a corpus whose ids are in `needed`.
pub(crate) fn lookup(corpus: Passages, needed: &HashSet<String>) -> Result<HashMap<String, Passage>> {
    let mut found = HashMap::with_capacity(needed.len());
    for passage in corpus {
        let passage = passage?;
        if needed.contains(&passage.id) {
            found.insert(passage.id.clone(), passage);
        }
    }
    Ok(found)
}

/// Whether a file name says JSON Lines.
pub(crate) fn is_jsonl(path: &Path) -> bool {
    matches!(inner_extension(path).as_str(), "jsonl" | "ndjson")
}
