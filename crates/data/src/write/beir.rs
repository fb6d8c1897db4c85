//! BEIR directories.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::atomic::AtomicFile;
use crate::record::text_key;
use crate::{Passage, Query, Result, RetrievalExample};

pub(crate) const QRELS_HEADER: &[u8] = b"query-id\tcorpus-id\tscore\n";

/// What was written, and what the format had no place for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCounts {
    /// Examples.
    pub examples: u64,
    /// Positives of the examples.
    pub positives: u64,
    /// Negatives of the examples.
    pub negatives: u64,
    /// Distinct passages (BEIR only).
    pub passages: u64,
    /// Distinct queries (BEIR only).
    pub queries: u64,
    /// Ids that stood for two texts; the later text got an id of its own (BEIR only).
    pub ids_changed: u64,
    /// Negatives whose passages are in the corpus but whose relation to the query the format cannot express.
    pub negatives_unlinked: u64,
    /// Examples whose teacher scores the format has no place for.
    pub scores_dropped: u64,
    /// Answers that the format has no place for.
    pub answers_dropped: u64,
}

impl std::fmt::Display for WriteCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            ("examples", self.examples),
            ("positives", self.positives),
            ("negatives", self.negatives),
            ("passages", self.passages),
            ("queries", self.queries),
            ("ids changed", self.ids_changed),
            ("negatives unlinked", self.negatives_unlinked),
            ("scores dropped", self.scores_dropped),
            ("answers dropped", self.answers_dropped),
        ];
        let told: Vec<String> =
            counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        f.write_str(&told.join(", "))
    }
}

impl WriteCounts {
    pub(crate) fn add(&mut self, example: &RetrievalExample) {
        self.examples += 1;
        self.positives += example.positives.len() as u64;
        self.negatives += example.negatives.len() as u64;
    }
}

/// Writes a BEIR directory: the corpus grows with the examples, each passage and query once.
///
/// The files get their names in [`BeirWriter::finish`], the judgements last.
pub struct BeirWriter {
    corpus: AtomicFile,
    queries: AtomicFile,
    qrels: AtomicFile,
    passage_ids: HashMap<String, u64>,
    query_ids: HashMap<String, u64>,
    judged: std::collections::HashSet<(u64, u64)>,
    counts: WriteCounts,
}

impl BeirWriter {
    /// Begins a directory with one split.
    pub fn create(dir: impl AsRef<Path>, split: &str) -> Result<Self> {
        let dir: PathBuf = dir.as_ref().to_owned();
        let mut qrels = AtomicFile::create(&dir.join("qrels").join(format!("{split}.tsv")))?;
        qrels.write_all(QRELS_HEADER)?;
        Ok(Self {
            corpus: AtomicFile::create(&dir.join("corpus.jsonl"))?,
            queries: AtomicFile::create(&dir.join("queries.jsonl"))?,
            qrels,
            passage_ids: HashMap::new(),
            query_ids: HashMap::new(),
            judged: std::collections::HashSet::new(),
            counts: WriteCounts::default(),
        })
    }

    /// Adds an example: its query, its passages, and a judgement for each positive.
    pub fn push(&mut self, example: &RetrievalExample) -> Result<()> {
        self.counts.add(example);
        self.counts.negatives_unlinked += example.negatives.len() as u64;
        self.counts.scores_dropped += u64::from(example.scores.is_some());
        self.counts.answers_dropped += example.answers.len() as u64;
        let Query { id, text } = &example.query;
        let (query, new) = settle(&mut self.query_ids, id, text_key(text), &mut self.counts.ids_changed);
        if new {
            self.counts.queries += 1;
            self.queries.write_json(&query_json(&Query { id: query.clone(), text: text.clone() }))?;
            self.queries.write_all(b"\n")?;
        }
        for passage in &example.positives {
            let passage = self.push_passage(passage)?;
            let pair = (
                xxhash_rust::xxh3::xxh3_64(query.as_bytes()),
                xxhash_rust::xxh3::xxh3_64(passage.as_bytes()),
            );
            if self.judged.insert(pair) {
                self.qrels.write_all(format!("{query}\t{passage}\t1\n").as_bytes())?;
            }
        }
        for passage in &example.negatives {
            self.push_passage(passage)?;
        }
        Ok(())
    }

    /// Adds a passage to the corpus, unless it is there; returns its id.
    pub fn push_passage(&mut self, passage: &Passage) -> Result<String> {
        let key = text_key(&passage.full_text());
        let (id, new) = settle(&mut self.passage_ids, &passage.id, key, &mut self.counts.ids_changed);
        if new {
            self.counts.passages += 1;
            self.corpus.write_json(&passage_json(&Passage { id: id.clone(), ..passage.clone() }))?;
            self.corpus.write_all(b"\n")?;
        }
        Ok(id)
    }

    /// Completes the directory.
    pub fn finish(self) -> Result<WriteCounts> {
        self.corpus.finish()?;
        self.queries.finish()?;
        self.qrels.finish()?;
        Ok(self.counts)
    }
}

/// The id under which a text is written, and whether it is new. An id that stands for another text already gets the
/// hash of this one appended.
fn settle(ids: &mut HashMap<String, u64>, id: &str, key: u64, changed: &mut u64) -> (String, bool) {
    // Tabs and line ends would break the judgements.
    let clean = id.replace(['\t', '\n', '\r'], " ");
    match ids.get(&clean) {
        None => {
            ids.insert(clean.clone(), key);
            (clean, true)
        }
        Some(&known) if known == key => (clean, false),
        Some(_) => {
            let other = format!("{clean}-{key:016x}");
            let new = ids.insert(other.clone(), key).is_none();
            *changed += u64::from(new);
            (other, new)
        }
    }
}

pub(crate) fn passage_json(passage: &Passage) -> Value {
    json!({ "_id": passage.id, "title": passage.title.as_deref().unwrap_or_default(), "text": passage.text })
}

pub(crate) fn query_json(query: &Query) -> Value {
    json!({ "_id": query.id, "text": query.text })
}
