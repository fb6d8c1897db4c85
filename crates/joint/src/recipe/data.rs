//! Questions, answers and corpus of a run.

use super::config::JointConfig;
use crate::corpus::Corpus;
use crate::{Error, Result};
use ragduet_data::{BadRows, RagRecord, read_questions};
use ragduet_train::Fingerprint;
use std::path::Path;
use std::sync::Arc;

/// Rows of the passages that are a question's own words and not known to answer it.
pub(super) fn own_copies(corpus: &Corpus, record: &RagRecord) -> Vec<u32> {
    let golden = |row: &u32| record.gold.iter().any(|g| g.id == corpus.passage(*row).id);
    corpus.copies_of(&record.question).iter().copied().filter(|row| !golden(row)).collect()
}

/// What a run is trained on, and measured on.
#[derive(Debug)]
pub(super) struct JointData {
    pub corpus: Arc<Corpus>,
    pub records: Vec<RagRecord>,
    /// Rows of each record's golden passages.
    pub gold: Vec<Vec<u32>>,
    /// Rows of each record's own copies, which answer nothing.
    pub own: Vec<Vec<u32>>,
    pub dev: Vec<RagRecord>,
    /// A hash of the few-shot examples' file.
    examples: Option<String>,
}

impl JointData {
    /// # Errors
    /// Files that do not read, or hold no question with an answer.
    pub fn read(config: &JointConfig, bad: &BadRows) -> Result<Self> {
        let d = &config.data;
        let read = |path: &Path, split: &str| -> Result<Vec<RagRecord>> {
            let (records, without) = read_questions(path, split, d.answers.as_deref(), bad)?;
            if without > 0 {
                tracing::warn!("{}: {without} questions have no answer and were left out", path.display());
            }
            if records.is_empty() {
                return Err(Error::Unusable(format!("{}: no questions with answers", path.display())));
            }
            Ok(records)
        };
        let mut records = read(&d.train, &d.split)?;
        if d.limit > 0 && d.limit < records.len() {
            tracing::info!(
                "the first {} of {} training questions, as data.limit says",
                d.limit,
                records.len()
            );
            records.truncate(d.limit);
        }
        let mut dev = d.dev.as_deref().map_or(Ok(Vec::new()), |path| read(path, &d.dev_split))?;
        if config.eval.limit > 0 {
            dev.truncate(config.eval.limit);
        }
        let corpus = Corpus::read(d.corpus.as_ref().unwrap_or(&d.train), bad)?;
        if config.retrieval.k > corpus.len() {
            tracing::warn!(
                "retrieval.k is {} and the corpus has {} passages: all of them are retrieved",
                config.retrieval.k,
                corpus.len()
            );
        }
        let gold = |r: &RagRecord| r.gold.iter().filter_map(|g| corpus.row(&g.id)).collect::<Vec<_>>();
        let gold: Vec<Vec<u32>> = records.iter().map(gold).collect();
        let missing = records.iter().zip(&gold).map(|(r, rows)| r.gold.len() - rows.len()).sum::<usize>();
        if missing > 0 {
            tracing::warn!(
                "{missing} golden passages of questions are not in the corpus and cannot be found"
            );
        }
        let own: Vec<Vec<u32>> = records.iter().map(|r| own_copies(&corpus, r)).collect();
        let copied = own.iter().filter(|rows| !rows.is_empty()).count();
        if copied > 0 {
            tracing::info!(
                "{copied} questions stand in the corpus as a passage, which is left out of what is retrieved for them"
            );
        }
        let examples = config.generator.prompt.examples_digest()?;
        Ok(Self { corpus: Arc::new(corpus), records, gold, own, dev, examples })
    }

    /// Passages, questions and answers: what the tokenizers of new models are trained on.
    pub fn texts(&self) -> [Vec<&str>; 3] {
        let answers = self.records.iter().flat_map(|r| r.answers.iter().map(String::as_str));
        [
            self.corpus.texts().iter().map(String::as_str).collect(),
            self.records.iter().map(|r| r.question.as_str()).collect(),
            answers.collect(),
        ]
    }

    /// The share of a batch's questions with a golden passage among those found, of those for which one is known.
    pub fn gold_found(&self, batch: &[usize], found: &[Vec<u32>]) -> Option<f64> {
        let known = batch.iter().map(|&i| &self.gold[i]).zip(found).filter(|(gold, _)| !gold.is_empty());
        let (mut all, mut hits) = (0usize, 0usize);
        for (gold, rows) in known {
            all += 1;
            hits += usize::from(rows.iter().any(|r| gold.contains(r)));
        }
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// A hash of what is trained on.
    pub fn fingerprint(&self) -> u64 {
        let of = |r: &RagRecord| {
            let before = (!r.history.is_empty()).then(|| format!("{:?}", r.history));
            [r.id.clone(), r.question.clone()].into_iter().chain(r.answers.clone()).chain(before)
        };
        let records: Vec<String> = self.records.iter().flat_map(of).collect();
        Fingerprint::default()
            .texts(self.corpus.ids())
            .texts(self.corpus.texts().iter().map(String::as_str))
            .texts(records.iter().map(String::as_str))
            .texts(self.examples.as_deref())
            .numbers(self.gold.iter().flat_map(|rows| {
                std::iter::once(rows.len() as u64).chain(rows.iter().map(|&r| u64::from(r)))
            }))
            .digest()
    }
}
