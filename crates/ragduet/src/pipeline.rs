//! Retriever, index and generator as one.

use crate::options::loading;
use crate::{Answer, CrossEncoder, Error, Generator, Hit, Index, LoadOptions, Result, Retriever};
use ragduet_data::{BadRows, Passage, ReadOptions};
use ragduet_joint::pipeline::{self, GENERATOR, INDEX, RETRIEVER};
use ragduet_retriever::st_dir::Overrides;
use std::path::Path;

/// Answers questions from an index, with sources.
///
/// ```no_run
/// use ragduet::{CrossEncoder, Generator, Index, Pipeline, Retriever};
///
/// // What `ragduet train joint` (or `train::joint`) wrote, in one piece:
/// let pipeline = Pipeline::open("runs/joint")?;
/// let answer = pipeline.ask("what causes tides?")?;
/// println!("{}", answer.text);
/// for source in &answer.sources {
///     println!("  {} {}", source.id, source.text);
/// }
///
/// // Or of parts, with a re-ranker between:
/// let (retriever, index) = (Retriever::load("runs/mine/best")?, Index::open("my.idx")?);
/// let pipeline = Pipeline::new(retriever, index, Generator::load("runs/reader/best")?)?
///     .rerank(CrossEncoder::load("runs/cross/best")?, 50);
/// # Ok::<(), ragduet::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    /// Finds passages.
    pub retriever: Retriever,
    /// The passages.
    pub index: Index,
    /// Answers from them; its `contexts` is how many.
    pub generator: Generator,
    /// Puts more passages than are shown in its order.
    reranker: Option<(CrossEncoder, usize)>,
}

impl Pipeline {
    /// Of parts.
    ///
    /// # Errors
    /// A retriever that the index was not built with (another kind, another dimension).
    pub fn new(retriever: Retriever, index: Index, generator: Generator) -> Result<Self> {
        index.check(&retriever)?;
        Ok(Self { retriever, index, generator, reranker: None })
    }

    /// Opens a joint run, or its `best` folder: retriever, index of the corpus, and generator, with the settings that they
    /// were trained with.
    ///
    /// # Errors
    /// A folder that is no pipeline; parts that do not load; a corpus that has gone or changed.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, &LoadOptions::default())
    }

    /// [`Pipeline::open`] on a device and in a precision of choice.
    ///
    /// # Errors
    /// As there; a device that is not there.
    pub fn open_with(dir: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let run = dir.as_ref();
        loading("pipeline", run, || {
            let dir = pipeline::Pipeline::find(run)
                .ok_or_else(|| Error::Argument("no pipeline is here; joint training writes one".into()))?;
            let settings = pipeline::Pipeline::read(&dir)?;
            let lengths = Overrides {
                max_query_tokens: Some(settings.max_query_tokens),
                max_passage_tokens: Some(settings.max_passage_tokens),
                ..Overrides::default()
            };
            let retriever = Retriever::open(&dir.join(RETRIEVER), options, lengths)?;
            let rows = BadRows::default().with_columns(settings.columns.clone()).quietly();
            let index = Index::open_as(&dir.join(INDEX), &settings.corpus, &ReadOptions::default(), &rows)?;
            let mut generator = Generator::load_with(dir.join(GENERATOR), options)?;
            generator.decoding = settings.decode;
            Self::new(retriever, index, generator)
        })
    }

    /// With a cross-encoder that reads the `depth` best passages of the retriever and puts them in its order.
    #[must_use]
    pub fn rerank(self, by: CrossEncoder, depth: usize) -> Self {
        Self { reranker: Some((by, depth)), ..self }
    }

    /// The `k` best passages for a question, best first.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn search(&self, question: &str, k: usize) -> Result<Vec<Hit>> {
        let Some((reranker, depth)) = &self.reranker else {
            return self.index.search(&self.retriever, question, k);
        };
        let mut hits = self.index.search(&self.retriever, question, k.max(*depth))?;
        let rest = hits.split_off(hits.len().min(*depth));
        let mut hits = reranker.rerank(question, hits)?;
        hits.extend(rest);
        hits.truncate(k);
        Ok(hits)
    }

    /// Retrieves passages for a question and answers from them.
    ///
    /// # Errors
    /// A question that is too long; memory that runs out.
    pub fn ask(&self, question: &str) -> Result<Answer> {
        self.generator.answer(question, &self.passages(question)?)
    }

    /// [`Pipeline::ask`]; `on_text` gets the answer piece by piece as it is generated.
    ///
    /// # Errors
    /// As there.
    pub fn ask_streaming(&self, question: &str, on_text: impl FnMut(&str)) -> Result<Answer> {
        self.generator.answer_streaming(question, &self.passages(question)?, on_text)
    }

    fn passages(&self, question: &str) -> Result<Vec<Passage>> {
        let hits = self.search(question, self.generator.contexts)?;
        Ok(hits.into_iter().map(|hit| hit.passage).collect())
    }
}
