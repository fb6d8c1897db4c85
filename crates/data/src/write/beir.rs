//! BEIR directories.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::atomic::AtomicFile;
use super::collection::{CollectionFiles, CollectionWriter, write_collection};
use super::counts::WriteCounts;
use crate::stream::ExampleIter;
use crate::stream::Passages;
use crate::{Passage, Query, Result, RetrievalExample};

pub(crate) const QRELS_HEADER: &[u8] = b"query-id\tcorpus-id\tscore\n";

/// Writes a BEIR directory: the corpus grows with the examples, each passage and query once.
///
/// The files get their names in [`BeirWriter::finish`], the judgements last.
pub struct BeirWriter(CollectionWriter<Files>);

impl BeirWriter {
    /// Begins a directory with one split.
    pub fn create(dir: impl AsRef<Path>, split: &str) -> Result<Self> {
        Ok(Self(CollectionWriter::new(Files::create(dir.as_ref(), split)?)))
    }

    /// Adds an example: its query, its passages, and a judgement for each positive.
    pub fn push(&mut self, example: &RetrievalExample) -> Result<()> {
        self.0.push(example)
    }

    /// Adds a passage to the corpus, unless it is there; returns its id.
    pub fn push_passage(&mut self, passage: &Passage) -> Result<String> {
        self.0.push_passage(passage)
    }

    /// Completes the directory.
    pub fn finish(self) -> Result<WriteCounts> {
        self.0.finish()
    }
}

/// Writes a directory with one split.
pub(crate) fn write(
    dir: &Path,
    split: &str,
    corpus: Option<Passages>,
    examples: ExampleIter<'_>,
) -> Result<WriteCounts> {
    write_collection(Files::create(dir, split)?, corpus, examples)
}

struct Files {
    corpus: AtomicFile,
    queries: AtomicFile,
    qrels: AtomicFile,
}

impl Files {
    fn create(dir: &Path, split: &str) -> Result<Self> {
        let dir: PathBuf = dir.to_owned();
        let mut qrels = AtomicFile::create(&dir.join("qrels").join(format!("{split}.tsv")))?;
        qrels.write_all(QRELS_HEADER)?;
        Ok(Self {
            corpus: AtomicFile::create(&dir.join("corpus.jsonl"))?,
            queries: AtomicFile::create(&dir.join("queries.jsonl"))?,
            qrels,
        })
    }
}

impl CollectionFiles for Files {
    /// Tabs and line ends would break the judgements.
    fn id(&self, id: &str) -> String {
        id.replace(['\t', '\n', '\r'], " ")
    }

    fn passage(&mut self, passage: &Passage, _: &mut WriteCounts) -> Result<()> {
        self.corpus.write_json(&passage_json(passage))?;
        self.corpus.write_all(b"\n")
    }

    fn query(&mut self, query: &Query) -> Result<()> {
        self.queries.write_json(&query_json(query))?;
        self.queries.write_all(b"\n")
    }

    fn judgement(&mut self, query: &str, passage: &str) -> Result<()> {
        self.qrels.write_all(format!("{query}\t{passage}\t1\n").as_bytes())
    }

    fn finish(self) -> Result<()> {
        self.corpus.finish()?;
        self.queries.finish()?;
        self.qrels.finish()
    }
}

pub(crate) fn passage_json(passage: &Passage) -> Value {
    json!({ "_id": passage.id, "title": passage.title.as_deref().unwrap_or_default(), "text": passage.text })
}

pub(crate) fn query_json(query: &Query) -> Value {
    json!({ "_id": query.id, "text": query.text })
}
