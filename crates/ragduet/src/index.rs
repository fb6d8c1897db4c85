//! Passages that can be searched.

use crate::retriever::owned;
use crate::{Error, Result, Retriever};
use ragduet_data::{BadRows, Passage, ReadOptions, read_corpus as corpus_of, write_corpus};
use ragduet_index::{IdMap, IndexConfig, MultiVectorConfig, SearchParams, replace_index};
use ragduet_joint::corpus::Corpus;
use ragduet_retriever::{IndexSource, ModelIndex, Representation};
use std::path::Path;

/// The passages in the folder of an index that [`Index::save`] wrote.
const PASSAGES: &str = "passages.jsonl";

/// Reads a corpus: a file of passages (JSON Lines, TSV, Parquet, plain text; also .gz and .zst) or a dataset folder that
/// has one, such as BEIR's. A row that cannot be used is an error.
///
/// # Errors
/// No such file, a format that is not known, a row that is no passage (with its line).
pub fn read_corpus(path: impl AsRef<Path>) -> Result<Vec<Passage>> {
    let passages = corpus_of(path.as_ref(), &ReadOptions::default(), &BadRows::default())?;
    Ok(passages.collect::<Result<_, _>>()?)
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// How well it matches: the retriever's similarity; after [`CrossEncoder::rerank`](crate::CrossEncoder::rerank) its
    /// logit. Higher is better.
    pub score: f32,
    /// The passage: `id`, `title`, `text`.
    pub passage: Passage,
}

/// Passages with what a retriever makes of them: exact search over vectors, compressed token vectors for late interaction,
/// an inverted index for sparse models.
///
/// ```no_run
/// use ragduet::{Index, Retriever, read_corpus};
///
/// let retriever = Retriever::load("runs/mine/best")?;
/// let index = Index::build(&retriever, read_corpus("my-data/corpus.jsonl")?)?;
/// index.save("my.idx")?;
/// for hit in index.search(&retriever, "what causes tides?", 5)? {
///     println!("{:.3} {} {}", hit.score, hit.passage.id, hit.passage.text);
/// }
/// # Ok::<(), ragduet::Error>(())
/// ```
pub struct Index {
    index: ModelIndex,
    ids: IdMap,
    corpus: Corpus,
    /// The model that it was built with, where that is known.
    model: Option<String>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("passages", &self.len()).field("model", &self.model).finish()
    }
}

impl Index {
    /// Encodes passages and indexes them. Of a passage the retriever reads title and text.
    ///
    /// # Errors
    /// No passage, two with the same id; memory that runs out.
    pub fn build(retriever: &Retriever, passages: Vec<Passage>) -> Result<Self> {
        Self::build_as(retriever, passages, &IndexConfig::default())
    }

    /// [`Index::build`] of another kind than exact search: approximate (HNSW), or over fewer bits.
    ///
    /// # Errors
    /// As there; settings that cannot work, a retriever that is not dense.
    pub fn build_with(retriever: &Retriever, passages: Vec<Passage>, config: &IndexConfig) -> Result<Self> {
        let representation = retriever.model().representation();
        match representation {
            Representation::Dense(_) => Self::build_as(retriever, passages, config),
            Representation::LateInteraction(_) | Representation::Sparse(_) => Err(Error::Argument(format!(
                "the settings are those of an index over single vectors, and this is a {} retriever: take Index::build",
                representation.name()
            ))),
        }
    }

    fn build_as(retriever: &Retriever, passages: Vec<Passage>, config: &IndexConfig) -> Result<Self> {
        let corpus = Corpus::new(passages)?;
        let ids = IdMap::from_ids(corpus.ids())?;
        let texts = corpus.texts().iter().map(|t| Ok(t.clone()));
        let many = MultiVectorConfig::default();
        let (model, encode) = (retriever.model(), retriever.settings());
        let index = ModelIndex::build(model, texts, config, &many, encode, &mut |_, _| ())?;
        Ok(Self { index, ids, corpus, model: retriever.name().map(str::to_string) })
    }

    /// Opens an index that [`Index::save`] or `ragduet index build` wrote; the latter has its passages where the corpus was.
    ///
    /// # Errors
    /// A folder that is no index, or one over words (BM25); damaged files; a corpus that has gone or changed.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let (own, source) = (dir.join(PASSAGES), IndexSource::read(dir)?.unwrap_or_default());
        let corpus = if own.is_file() {
            Some(own)
        } else {
            source.check_corpus(dir)?;
            source.corpus
        };
        let corpus = corpus.ok_or_else(|| {
            Error::Argument(format!("{}: its passages are not known: open it with its corpus", dir.display()))
        })?;
        Self::open_with_corpus(dir, corpus)
    }

    /// [`Index::open`] with passages from elsewhere: of a corpus that has moved, or where none was noted.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_corpus(dir: impl AsRef<Path>, corpus: impl AsRef<Path>) -> Result<Self> {
        let (dir, from) = (dir.as_ref(), corpus.as_ref());
        let source = IndexSource::read(dir)?.unwrap_or_default();
        let own = from == dir.join(PASSAGES);
        let (options, rows) = if own { IndexSource::default().reading()? } else { source.reading()? };
        Self::open_as(dir, from, &options, &rows)
    }

    /// [`Index::open_with_corpus`] with what says how the corpus is read.
    pub(crate) fn open_as(dir: &Path, from: &Path, options: &ReadOptions, rows: &BadRows) -> Result<Self> {
        let index = ModelIndex::open(dir)?;
        let ids = IdMap::open_or_number(dir, index.len())?;
        let source = IndexSource::read(dir)?.unwrap_or_default();
        let corpus = Corpus::read_with(from, options, rows)?;
        if let Some(id) = ids.iter().find(|id| corpus.row(id).is_none()) {
            return Err(Error::Argument(format!(
                "{}: passage `{id}` is not in {}: the corpus has changed since, build the index again",
                dir.display(),
                from.display()
            )));
        }
        Ok(Self { index, ids, corpus, model: source.model })
    }

    /// Writes the index with its passages as one folder, complete or not at all. What is there is replaced, if it is an
    /// index. `ragduet search --index` reads it as well.
    ///
    /// # Errors
    /// A folder that is something else, or that cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let source = IndexSource::new(self.model(), Some(&dir.join(PASSAGES)));
        replace_index(dir, |dir| {
            self.index.save(dir, &self.ids)?;
            let rows = 0..self.corpus.len() as u32;
            write_corpus(dir.join(PASSAGES), rows.map(|row| Ok(self.corpus.passage(row).clone())))?;
            Ok(source.write(dir)?)
        })
    }

    /// The `k` best passages for a question, best first. `retriever`: the one that the index was built with.
    ///
    /// # Errors
    /// A retriever of another kind or dimension; memory that runs out.
    pub fn search(&self, retriever: &Retriever, question: &str, k: usize) -> Result<Vec<Hit>> {
        Ok(self.search_all(retriever, &[question], k)?.pop().unwrap_or_default())
    }

    /// [`Index::search`] for several questions at once, which is faster: `hits[question][rank]`.
    ///
    /// # Errors
    /// As there.
    pub fn search_all(
        &self,
        retriever: &Retriever,
        questions: &[impl AsRef<str>],
        k: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        self.check(retriever)?;
        let params = SearchParams::top(k);
        let found = self.index.search(retriever.model(), &owned(questions), &params, retriever.settings())?;
        let hit = |h: &ragduet_index::Hit| {
            let row = self.ids.id(h.id).and_then(|id| self.corpus.row(id));
            let gone = || Error::Argument(format!("the index has a row {} without a passage", h.id));
            Ok(Hit { score: h.score, passage: self.corpus.passage(row.ok_or_else(gone)?).clone() })
        };
        found.iter().map(|hits| hits.iter().map(hit).collect()).collect()
    }

    /// Whether a retriever's vectors are of this index's kind and dimension.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn check(&self, retriever: &Retriever) -> Result<()> {
        Ok(self.index.check(retriever.model())?)
    }

    /// Number of passages.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The folder or hub id of the model that it was built with, where that is known.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// A passage by its id.
    pub fn passage(&self, id: &str) -> Option<&Passage> {
        self.corpus.row(id).map(|row| self.corpus.passage(row))
    }
}
