//! Collections: a corpus, queries and judgements, perhaps answers, whatever the format.
//!
//! Whoever searches, mines, measures or trains on judged queries reads through [`Collection`] or [`TrainingSet::read`]
//! and does not ask for the format: also passages that nobody judged are there where the format has them.

use std::path::{Path, PathBuf};

pub(crate) mod parts;
mod pooled;

use crate::read::{alone, read_corpus};
use crate::shown::{log_first, with_first};
use crate::stream::{Examples, Judgements, Passages, Queries};
use crate::{BadRows, Error, Format, ReadOptions, Result, RetrievalExample, TrainingSet, TrainingSetBuilder};
use crate::{answers::read_answers, read::read_examples};

pub use parts::Answers;
use parts::Parts;
use pooled::Pooled;

/// A corpus with queries, judgements by split, and perhaps answers.
#[derive(Debug)]
pub struct Collection {
    path: PathBuf,
    format: Format,
    parts: Box<dyn Parts>,
}

impl Collection {
    /// Opens the collection that a path holds. Examples in another format become one: their passages are the corpus,
    /// their positives the judgements. They are read here and held in memory, and `bad` gets their rows.
    ///
    /// # Errors
    /// A path that holds neither.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions, bad: &BadRows) -> Result<Self> {
        let path = &*alone(path.as_ref())?;
        if let Some(collection) = Self::find(path, options)? {
            return Ok(collection);
        }
        let set = TrainingSet::from_examples(read_examples(path, options, bad)?)?;
        let format = options.format_of(path)?;
        Ok(Self { path: path.to_owned(), format, parts: Box::new(Pooled::new(set)) })
    }

    /// The collection that a path holds; `None` where it holds only examples, or only passages.
    ///
    /// # Errors
    /// A path whose format is not known, or that lacks a part.
    pub fn find(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Option<Self>> {
        let path = &*alone(path.as_ref())?;
        let format = options.format_of(path)?;
        let parts = format.collection(path)?;
        Ok(parts.map(|parts| Self { path: path.to_owned(), format, parts }))
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The names of the splits, sorted; `None` for a collection without splits, which is one whatever split is asked
    /// for.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn splits(&self) -> Result<Option<Vec<String>>> {
        self.parts.splits()
    }

    /// Streams the corpus.
    ///
    /// # Errors
    /// A file that cannot be read; here and in the methods below, the first bad row, or as `bad` says.
    pub fn corpus(&self, bad: &BadRows) -> Result<Passages> {
        self.parts.corpus(bad)
    }

    /// Streams the queries of a split, or of all; those of other splits may be among them.
    ///
    /// # Errors
    /// See [`Collection::corpus`].
    pub fn queries(&self, split: Option<&str>, bad: &BadRows) -> Result<Queries> {
        self.parts.queries(split, bad)
    }

    /// Streams the judgements of a split, irrelevant ones included.
    ///
    /// # Errors
    /// See [`Collection::corpus`]; a split that is not there.
    pub fn qrels(&self, split: &str, bad: &BadRows) -> Result<Judgements> {
        Ok(Box::new(self.parts.qrels(split, bad)?.map(|row| row.map(|(_, qrel)| qrel))))
    }

    /// The file that holds the judgements of a split.
    ///
    /// # Errors
    /// A split that is not there.
    pub fn judgements_file(&self, split: &str) -> Result<PathBuf> {
        Ok(self.parts.places(split)?.qrels)
    }

    /// One example per query of the split with its relevant passages. Judgements of queries or passages that are not
    /// there are bad rows. Memory holds the queries and judged passages of the split.
    ///
    /// # Errors
    /// See [`Collection::qrels`].
    pub fn examples(&self, split: &str, bad: &BadRows) -> Result<Examples> {
        Ok(with_first(&self.path, "example", bad, self.parts.examples(split, bad, bad)?))
    }

    /// Like [`Collection::examples`], with the rows of corpus and queries left to those who read these on their own.
    pub(crate) fn examples_of_read(&self, split: &str, bad: &BadRows) -> Result<Examples> {
        self.parts.examples(split, bad, &bad.silenced())
    }

    /// Like [`Collection::examples`], with the judged queries that have no relevant passage.
    pub(crate) fn judged(&self, split: &str, bad: &BadRows) -> Result<Vec<RetrievalExample>> {
        let judged = parts::join(&*self.parts, split, bad, bad)?;
        if let Some(first) = judged.first() {
            log_first(&self.path, "example", bad, first);
        }
        Ok(judged)
    }

    /// Answers by question id: those of a file, or the collection's own.
    ///
    /// # Errors
    /// See [`Collection::corpus`]; no file and no answers.
    pub fn answers(&self, given: Option<&Path>, bad: &BadRows) -> Result<Answers> {
        let own = || match self.parts.answers(bad)? {
            Some(answers) => Ok(answers),
            None => Err(Error::Unsupported {
                path: self.path.clone(),
                reason: format!(
                    "this {} data has no answers; give a file of them with `_id` and `answers`, or put it into a BEIR \
                     folder as answers.jsonl",
                    self.format
                ),
            }),
        };
        given.map_or_else(own, |path| read_answers(path, bad))
    }
}

/// Which passages of a collection go into the pool of a training set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassagePool {
    /// Those of the examples.
    Judged,
    /// Those that nobody judged as well, for mining.
    WholeCorpus,
}

impl TrainingSet {
    /// Pools training data of any format: of a collection one item per query of the split (`train` if not given), with
    /// all its relevant passages; of examples one each. The whole corpus is the collection's, or the one that ids in
    /// the examples point to.
    ///
    /// # Errors
    /// Files that cannot be read, rows that are refused.
    pub fn read(
        path: impl AsRef<Path>,
        options: &ReadOptions,
        pool: PassagePool,
        bad: &BadRows,
    ) -> Result<Self> {
        let path = path.as_ref();
        let mut builder = TrainingSetBuilder::default();
        for example in read_examples(path, options, bad)? {
            builder.push(example?)?;
        }
        if pool == PassagePool::WholeCorpus {
            // The corpus was read, counted and checked for the examples; this pass reads the same file again.
            for passage in whole_corpus(path, options, &bad.silenced())?.into_iter().flatten() {
                builder.add_passage(passage?)?;
            }
        }
        builder.finish()
    }
}

/// All passages that belong to some training data, where there are more than those of the examples.
pub(crate) fn whole_corpus(path: &Path, options: &ReadOptions, bad: &BadRows) -> Result<Option<Passages>> {
    match (Collection::find(path, options)?, &options.corpus) {
        (Some(collection), _) => collection.corpus(bad).map(Some),
        (None, Some(corpus)) => read_corpus(corpus, &ReadOptions::default(), bad).map(Some),
        (None, None) => Ok(None),
    }
}
