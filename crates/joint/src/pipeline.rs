//! A retriever, an index and a generator as one folder that answers questions: `best` of a joint run.

use crate::corpus::Corpus;
use crate::refreshed_index::RefreshedIndex;
use crate::retrieve::{Asked, Candidates, RetrievalConfig, retrieve};
use crate::{Error, Result};
use ragduet_data::{BadRows, Columns, Found, RagRecord};
use ragduet_generator::answers::{AnswerOptions, Answered, answer_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::decode::DecodeConfig;
use ragduet_generator::prepare::PromptConfig;
use ragduet_generator::{Generator, TrainedWith};
use ragduet_reranker::CrossEncoder;
use ragduet_retriever::BiEncoder;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Device, Precision, Quantize};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders of a pipeline: a sentence-transformers model, a transformers model, the index of the corpus.
pub const RETRIEVER: &str = "retriever";
/// See [`RETRIEVER`].
pub const GENERATOR: &str = "generator";
/// See [`RETRIEVER`].
pub const INDEX: &str = "index";
const FILE: &str = "pipeline.json";

/// What a pipeline is beside its models and its index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Where the passages' texts are.
    pub corpus: PathBuf,
    /// Passages in a prompt.
    pub contexts: usize,
    /// Prompt format and length limit.
    pub prompt: PromptConfig,
    /// Decoding.
    pub decode: DecodeConfig,
    /// Longest question in tokens.
    pub max_query_tokens: usize,
    /// Longest passage in tokens.
    pub max_passage_tokens: usize,
    /// Columns of the corpus by role, where they were given.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

impl Pipeline {
    /// Whether a folder is one, or a run that has one as its `best`; then that folder.
    pub fn find(dir: &Path) -> Option<PathBuf> {
        [dir.to_path_buf(), dir.join("best")].into_iter().find(|d| d.join(FILE).is_file())
    }

    /// Writes the description.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::Unusable(format!("{FILE}: {e}")))?;
        Ok(write_atomic(&dir.join(FILE), &text)?)
    }

    /// Reads it.
    ///
    /// # Errors
    /// No such file; one that is no description.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|e| Error::Unusable(format!("{}: {e}", path.display())))
    }
}

/// How a generator was prompted when it was trained: by the description of the pipeline that its folder is part of, else
/// by what lies in the folder, or the config of the run that it is `best` of. `None` for any other model.
///
/// # Errors
/// A description that is there and cannot be read.
pub fn trained_with(generator: &Path) -> Result<Option<TrainedWith>> {
    if let Some(own) = TrainedWith::read(generator)? {
        return Ok(Some(own));
    }
    let folder = generator.canonicalize().unwrap_or_else(|_| generator.to_owned());
    match folder.parent().filter(|p| p.join(FILE).is_file()) {
        Some(parent) => {
            let p = Pipeline::read(parent)?;
            Ok(Some(TrainedWith { prompt: p.prompt, contexts: p.contexts, length_norm: None }))
        }
        None => Ok(TrainedWith::find(generator)?),
    }
}

/// A pipeline that is loaded.
#[derive(Debug)]
pub struct RagPipeline {
    /// What it is beside its parts.
    pub settings: Pipeline,
    /// Retriever: model, optimizer, which encoders are trained.
    pub retriever: BiEncoder,
    /// Generator: model, prompt, loss, optimizer.
    pub generator: Generator,
    /// The passages.
    pub corpus: Arc<Corpus>,
    /// What puts more passages than are asked for in its order, where there is one.
    pub reranker: Option<Reranker>,
    index: RefreshedIndex,
}

/// A cross-encoder behind the retriever.
#[derive(Debug)]
pub struct Reranker {
    /// The model.
    pub model: CrossEncoder,
    /// How many of the retriever's passages it reads.
    pub depth: usize,
    /// Tokens per forward pass.
    pub batch_tokens: usize,
}

impl RagPipeline {
    /// Of parts that are loaded; encodes the corpus.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn assemble(
        settings: Pipeline,
        retriever: BiEncoder,
        generator: Generator,
        corpus: Arc<Corpus>,
    ) -> Result<Self> {
        let config = RetrievalConfig::default();
        let index = RefreshedIndex::build(&retriever, corpus.texts(), &config.index, &config.encode(), 0)?;
        Ok(Self { settings, retriever, generator, corpus, reranker: None, index })
    }

    /// From `best` of a joint run, or the run. `corpus`: where the passages are, if they have moved.
    ///
    /// # Errors
    /// A folder that is no pipeline; parts that do not load or do not belong together.
    pub fn open(dir: &Path, corpus: Option<&Path>, device: Device, precision: Precision) -> Result<Self> {
        let dir = Pipeline::find(dir).ok_or_else(|| {
            Error::Unusable(format!("{}: no pipeline here (`train joint` writes one)", dir.display()))
        })?;
        let settings = Pipeline::read(&dir)?;
        let compute = precision.resolve(device);
        let overrides = Overrides {
            max_query_tokens: Some(settings.max_query_tokens),
            max_passage_tokens: Some(settings.max_passage_tokens),
            answers: true,
            ..Overrides::default()
        };
        let retriever = st_dir::load(&dir.join(RETRIEVER), device, compute, &overrides)?;
        let held = retriever.frozen_base();
        let folder = dir.join(GENERATOR);
        let generator = Generator::load_to_answer(&folder, device, compute, Quantize::None, held.as_ref())?;
        let corpus = {
            let rows = BadRows::default().with_columns(settings.columns.clone()).quietly();
            Corpus::read(corpus.unwrap_or(&settings.corpus), &rows)?
        };
        let index = RefreshedIndex::open(&dir.join(INDEX), 0)?;
        index.check(&retriever, &corpus)?;
        Ok(Self { settings, retriever, generator, corpus: Arc::new(corpus), reranker: None, index })
    }

    /// The `k` best passages of each question.
    ///
    /// # Errors
    /// Those of the encoder and the index.
    pub fn find(&self, questions: &[String], k: usize) -> Result<Candidates> {
        let config = RetrievalConfig { k, overfetch: k, ..RetrievalConfig::default() };
        let asked = Asked { questions, barred: &[] };
        retrieve(&self.retriever, self.corpus.texts(), &self.index, asked, &config, false)
    }

    /// Records with the `k` best passages as their contexts, re-ranked where there is something to do so.
    ///
    /// # Errors
    /// As [`RagPipeline::find`]; those of the cross-encoder.
    pub fn retrieve(&self, records: &[RagRecord], k: usize) -> Result<Vec<RagRecord>> {
        let questions: Vec<String> = records.iter().map(|r| r.question.clone()).collect();
        let depth = self.reranker.as_ref().map_or(k, |r| r.depth.max(k));
        let found = self.find(&questions, depth)?;
        let mut out = with_contexts(&records.iter().collect::<Vec<_>>(), &found, &self.corpus);
        if let Some(r) = &self.reranker {
            for record in &mut out {
                let texts: Vec<String> = record.contexts.iter().map(|f| f.passage.full_text()).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let order = r.model.order(&record.question, &texts, r.batch_tokens)?;
                let found = |(at, logit): &(usize, f64)| Found {
                    passage: record.contexts[*at].passage.clone(),
                    score: Some(*logit as f32),
                };
                record.contexts = order.iter().take(k).map(found).collect();
            }
        }
        Ok(out)
    }

    /// Answers records from their contexts.
    ///
    /// # Errors
    /// Prompts that cannot be made, and those of decoding.
    pub fn answer(
        &self,
        records: &[RagRecord],
        batch: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Answered>> {
        let options = AnswerOptions {
            prompt: &self.settings.prompt,
            contexts: ContextConfig::retrieved(self.settings.contexts),
            decode: &self.settings.decode,
            batch,
            seed: self.settings.decode.seed,
        };
        Ok(answer_all(&self.generator, records, &options, progress)?.0)
    }
}

/// Records with the passages that were found for them.
pub(crate) fn with_contexts(records: &[&RagRecord], found: &Candidates, corpus: &Corpus) -> Vec<RagRecord> {
    let filled = records.iter().zip(found.rows.iter().zip(&found.scores)).map(|(r, (rows, scores))| {
        let contexts = rows
            .iter()
            .zip(scores)
            .map(|(&row, &score)| Found { passage: corpus.passage(row).clone(), score: Some(score) });
        RagRecord { contexts: contexts.collect(), ..(*r).clone() }
    });
    filled.collect()
}
