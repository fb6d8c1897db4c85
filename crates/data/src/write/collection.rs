//! Collections: the corpus grows with the examples, each passage and query is written once.

use std::collections::{HashMap, HashSet};

use super::counts::WriteCounts;
use crate::record::text_key;
use crate::stream::ExampleIter;
use crate::stream::Passages;
use crate::{Passage, Query, Result, RetrievalExample};

/// The files of a collection that is being written.
pub(crate) trait CollectionFiles {
    /// An id as the format can hold it.
    fn id(&self, id: &str) -> String {
        id.to_owned()
    }

    /// Adds a passage.
    fn passage(&mut self, passage: &Passage, counts: &mut WriteCounts) -> Result<()>;

    /// Adds a query.
    fn query(&mut self, query: &Query) -> Result<()>;

    /// Says that a passage is relevant to a query; each pair once.
    fn judgement(&mut self, query: &str, passage: &str) -> Result<()>;

    /// Gives the files their names.
    fn finish(self) -> Result<()>;
}

/// Writes a corpus, where there is one, and examples with what they need of it.
pub(crate) fn write_collection(
    mut writer: CollectionWriter<impl CollectionFiles>,
    corpus: Option<Passages>,
    examples: ExampleIter<'_>,
) -> Result<WriteCounts> {
    for passage in corpus.into_iter().flatten() {
        writer.push_passage(&passage?)?;
    }
    for example in examples {
        writer.push(&example?)?;
    }
    writer.finish()
}

/// Texts that a collection holds already: their ids, and the keys of the texts.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) passages: HashMap<String, u64>,
    pub(crate) queries: HashMap<String, u64>,
}

/// Gives each text one id and each id one text.
pub(crate) struct CollectionWriter<F> {
    files: F,
    passage_ids: HashMap<String, u64>,
    query_ids: HashMap<String, u64>,
    judged: HashSet<(u64, u64)>,
    counts: WriteCounts,
}

impl<F: CollectionFiles> CollectionWriter<F> {
    pub(crate) fn new(files: F) -> Self {
        Self::with_kept(files, Kept::default())
    }

    /// With texts that the files hold already.
    pub(crate) fn with_kept(files: F, kept: Kept) -> Self {
        let counts = WriteCounts {
            passages_kept: kept.passages.len() as u64,
            queries_kept: kept.queries.len() as u64,
            ..WriteCounts::default()
        };
        Self { files, passage_ids: kept.passages, query_ids: kept.queries, judged: HashSet::new(), counts }
    }

    /// Adds an example: its query, its passages, and a judgement for each positive.
    pub(crate) fn push(&mut self, example: &RetrievalExample) -> Result<()> {
        self.counts.add(example);
        self.counts.negatives_unlinked += example.negatives.len() as u64;
        self.counts.scores_dropped += u64::from(example.scores.is_some());
        self.counts.answers_dropped += example.answers.len() as u64;
        let Query { id, text } = &example.query;
        let id = self.files.id(id);
        let (query, new) = settle(&mut self.query_ids, id, text_key(text), &mut self.counts.ids_changed);
        if new {
            self.counts.queries += 1;
            self.files.query(&Query { id: query.clone(), text: text.clone() })?;
        }
        for passage in &example.positives {
            let passage = self.push_passage(passage)?;
            let pair = (
                xxhash_rust::xxh3::xxh3_64(query.as_bytes()),
                xxhash_rust::xxh3::xxh3_64(passage.as_bytes()),
            );
            if self.judged.insert(pair) {
                self.files.judgement(&query, &passage)?;
            }
        }
        for passage in &example.negatives {
            self.push_passage(passage)?;
        }
        Ok(())
    }

    /// Adds a passage to the corpus, unless it is there; returns its id.
    pub(crate) fn push_passage(&mut self, passage: &Passage) -> Result<String> {
        let key = text_key(&passage.full_text());
        let id = self.files.id(&passage.id);
        let (id, new) = settle(&mut self.passage_ids, id, key, &mut self.counts.ids_changed);
        if new {
            self.counts.passages += 1;
            self.files.passage(&Passage { id: id.clone(), ..passage.clone() }, &mut self.counts)?;
        }
        Ok(id)
    }

    /// Completes the files.
    pub(crate) fn finish(self) -> Result<WriteCounts> {
        self.files.finish()?;
        Ok(self.counts)
    }
}

/// The id under which a text is written, and whether it is new. An id that stands for another text already gets the
/// hash of this one appended.
fn settle(ids: &mut HashMap<String, u64>, id: String, key: u64, changed: &mut u64) -> (String, bool) {
    match ids.get(&id) {
        None => {
            ids.insert(id.clone(), key);
            (id, true)
        }
        Some(&known) if known == key => (id, false),
        Some(_) => {
            let other = format!("{id}-{key:016x}");
            let new = ids.insert(other.clone(), key).is_none();
            *changed += u64::from(new);
            (other, new)
        }
    }
}
