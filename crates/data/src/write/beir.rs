//! BEIR directories.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ragduet_files::OutputFolder;
use serde_json::{Value, json};

use super::atomic::AtomicFile;
use super::collection::{CollectionFiles, CollectionWriter, Kept, write_collection};
use super::counts::WriteCounts;
use crate::record::text_key;
use crate::source::find;
use crate::stream::ExampleIter;
use crate::stream::Passages;
use crate::{Error, Passage, Query, Result, RetrievalExample};

pub(crate) const QRELS_HEADER: &[u8] = b"query-id\tcorpus-id\tscore\n";

/// Writes a split of a BEIR directory: the corpus grows with the examples, each passage and query once.
///
/// A new directory appears whole in [`BeirWriter::finish`]. Of one that is there, passages and queries stay, and so do
/// the judgements of other splits.
pub struct BeirWriter(CollectionWriter<Files>);

impl BeirWriter {
    /// Begins a split of a directory.
    pub fn create(dir: impl AsRef<Path>, split: &str) -> Result<Self> {
        let (files, kept) = Files::create(dir.as_ref(), split)?;
        Ok(Self(CollectionWriter::with_kept(files, kept)))
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

/// Writes a split of a directory.
pub(crate) fn write(
    dir: &Path,
    split: &str,
    corpus: Option<Passages>,
    examples: ExampleIter<'_>,
) -> Result<WriteCounts> {
    let (files, kept) = Files::create(dir, split)?;
    write_collection(CollectionWriter::with_kept(files, kept), corpus, examples)
}

struct Files {
    /// The new directory; `None` where there is one already.
    folder: Option<OutputFolder<'static>>,
    corpus: AtomicFile,
    queries: AtomicFile,
    qrels: AtomicFile,
}

impl Files {
    fn create(dir: &Path, split: &str) -> Result<(Self, Kept)> {
        let is_new = !dir.exists() || fs_err::read_dir(dir)?.next().is_none();
        let folder = is_new.then(|| OutputFolder::create(dir)).transpose()?;
        let at = folder.as_ref().map_or(dir, OutputFolder::path).to_path_buf();
        let qrels = format!("qrels/{split}.tsv");
        for name in ["corpus.jsonl", "queries.jsonl", qrels.as_str()] {
            if let Some(path) = find(dir, name).filter(|p| !p.ends_with(name)) {
                let reason = "is compressed, and is not written anew; give another folder, or decompress it";
                return Err(Error::Unsupported { path, reason: reason.into() });
            }
        }
        let mut files = Self {
            corpus: AtomicFile::create(&at.join("corpus.jsonl"))?,
            queries: AtomicFile::create(&at.join("queries.jsonl"))?,
            qrels: AtomicFile::create(&at.join(qrels))?,
            folder,
        };
        files.qrels.write_all(QRELS_HEADER)?;
        let mut kept = Kept::default();
        if files.folder.is_none() {
            kept.passages = keep(&dir.join("corpus.jsonl"), &mut files.corpus)?;
            kept.queries = keep(&dir.join("queries.jsonl"), &mut files.queries)?;
        }
        Ok((files, kept))
    }
}

/// Copies the lines of a file that is there; the ids in it, and the keys of their texts.
fn keep(path: &Path, to: &mut AtomicFile) -> Result<HashMap<String, u64>> {
    #[derive(serde::Deserialize)]
    struct Row {
        #[serde(rename = "_id")]
        id: String,
        title: Option<String>,
        text: String,
    }
    let mut ids = HashMap::new();
    if !path.is_file() {
        return Ok(ids);
    }
    for (number, line) in BufReader::new(fs_err::File::open(path)?).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let Ok(Row { id, title, text }) = serde_json::from_str(line.trim_start_matches('\u{feff}')) else {
            let reason = format!(
                "line {} is no row with a text `_id` and a `text`, so nothing can be added; mend it, or give another \
                 folder",
                number + 1
            );
            return Err(Error::Unsupported { path: path.to_owned(), reason });
        };
        let text = Passage { id: String::new(), title: title.filter(|t| !t.is_empty()), text }.full_text();
        ids.insert(id, text_key(&text));
        to.write_all(line.as_bytes())?;
        to.write_all(b"\n")?;
    }
    Ok(ids)
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
        // The judgements last: at every moment those that are there have their texts.
        self.corpus.finish()?;
        self.queries.finish()?;
        self.qrels.finish()?;
        self.folder.map_or(Ok(()), |folder| Ok(folder.finish()?))
    }
}

pub(crate) fn passage_json(passage: &Passage) -> Value {
    json!({ "_id": passage.id, "title": passage.title.as_deref().unwrap_or_default(), "text": passage.text })
}

pub(crate) fn query_json(query: &Query) -> Value {
    json!({ "_id": query.id, "text": query.text })
}
