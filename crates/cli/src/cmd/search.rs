//! `ragduet search`.

use crate::common::numbers::count;
use crate::common::{self, FusionArgs, ModelArgs, RerankArgs, Reranker, Usage, rerank};
use anyhow::{Context, Result};
use ragduet_data::{Columns, Provenance, read_corpus, read_provenance};
use ragduet_index::{IdMap, IndexKind, LexicalIndex, kind};
use ragduet_joint::pipeline::{self, Pipeline};
use ragduet_retriever::engine::{Backend, Engine, System};
use ragduet_retriever::{IndexSource, ModelIndex};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Which index is searched, and with what.
#[derive(Debug, Clone, clap::Args)]
pub struct IndexArgs {
    /// Index folder: dense, late-interaction, sparse or BM25. Given several times, the rankings are fused.
    #[arg(long)]
    index: Vec<PathBuf>,
    /// Retriever, instead of the one the index was built with.
    #[arg(short, long)]
    model: Option<String>,
    #[command(flatten)]
    fusion: FusionArgs,
    /// Corpus with the passage texts, if it has moved.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Device of the retriever: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    search_device: String,
    /// Compute precision of the retriever: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    search_precision: ragduet_torch::Precision,
    #[command(flatten)]
    rerank: RerankArgs,
    /// Columns of a pipeline's corpus.
    #[arg(skip)]
    columns: Columns,
}

impl IndexArgs {
    /// For a command with options of its own: an index, the retriever where it is not the index's, where it runs.
    pub fn new(index: PathBuf, model: Option<String>, corpus: Option<PathBuf>, device: &str) -> Self {
        let search_precision = ragduet_torch::Precision::default();
        Self {
            index: vec![index],
            fusion: FusionArgs::default(),
            model,
            corpus,
            search_device: device.into(),
            search_precision,
            rerank: RerankArgs::default(),
            columns: Columns::default(),
        }
    }

    /// Takes index, retriever and corpus of a pipeline where none are given.
    pub fn default_to(&mut self, dir: &Path, pipeline: &Pipeline) {
        if self.index.is_empty() {
            self.index.push(dir.join(pipeline::INDEX));
        }
        self.model.get_or_insert_with(|| dir.join(pipeline::RETRIEVER).display().to_string());
        self.corpus.get_or_insert_with(|| pipeline.corpus.clone());
        self.columns = pipeline.columns.clone();
    }

    /// The `k` best passages of each question, with their texts where the corpus is there.
    pub fn find(
        &self,
        questions: Vec<String>,
        k: usize,
        ef: Option<usize>,
        quiet: bool,
    ) -> Result<Vec<Found>> {
        if self.index.is_empty() {
            return Err(Usage("give an index with --index".into()).into());
        }
        let mut systems = Vec::new();
        let (mut corpus, mut from) = (self.corpus.clone(), None);
        for dir in &self.index {
            let (system, source) = self.open(dir)?;
            if let Some(source) = source.filter(|s| from.is_none() && s.corpus.is_some()) {
                // A corpus that has moved is read as the one that it was.
                if corpus.is_none() {
                    source.check_corpus(dir)?;
                    corpus.clone_from(&source.corpus);
                }
                from = Some(source);
            }
            systems.push(Rc::new(system));
        }
        let engine = Engine::new(systems, self.fusion.config()?)?;
        let reranker = self.rerank.load(&self.search_device, self.search_precision)?;
        let depth = reranker.as_ref().map_or(k, |r| k.max(r.depth));
        let hits = engine.search(&questions, depth, ef, &ragduet_retriever::EncodeSettings::default())?;
        let mut found: Vec<Found> = questions
            .into_iter()
            .zip(hits)
            .map(|(question, hits)| Found {
                question,
                hits: hits
                    .into_iter()
                    .map(|(id, score)| Line {
                        id,
                        score,
                        title: None,
                        text: None,
                        metadata: Provenance::new(),
                    })
                    .collect(),
            })
            .collect();
        if let Some(corpus) = corpus {
            if ragduet_data::is_there(&corpus) {
                let pipeline = || IndexSource { columns: self.columns.clone(), ..IndexSource::default() };
                add_texts(&mut found, &corpus, &from.unwrap_or_else(pipeline))?;
            } else if !quiet {
                tracing::warn!("{} is gone; give --corpus to see texts", corpus.display());
            }
        }
        if let Some(reranker) = &reranker {
            for f in &mut found {
                reorder(f, reranker, k)?;
            }
        }
        Ok(found)
    }
}

impl IndexArgs {
    /// An index with what made it.
    fn open(&self, dir: &Path) -> Result<(System, Option<IndexSource>)> {
        let source = IndexSource::read(dir)?;
        let backend = if kind(dir)? == IndexKind::Lexical {
            Backend::Lexical(Box::new(LexicalIndex::open(dir)?))
        } else {
            if let (None, Some(source)) = (&self.model, &source)
                && let Some(model) = &source.model
            {
                source.check_model(dir, model)?;
            }
            let name = self.model.clone().or_else(|| source.as_ref().and_then(|s| s.model.clone()));
            let why = "does not say which model made it; give --model";
            let name = name.ok_or_else(|| Usage(format!("{} {why}", dir.display())))?;
            let model = ModelArgs::new(name, &self.search_device, self.search_precision).load()?;
            Backend::Model(Box::new(model), ModelIndex::open(dir)?)
        };
        let ids = IdMap::open_or_number(dir, backend.rows())?;
        let system = System::new(backend, ids).with_context(|| dir.display().to_string())?;
        Ok((system, source))
    }
}

/// The best `k` of what was found, in a cross-encoder's order; scores are its logits.
fn reorder(found: &mut Found, by: &Reranker, k: usize) -> Result<()> {
    let texts: Vec<String> = found
        .hits
        .iter()
        .take(by.depth)
        .map(|h| {
            let text = h.text.as_ref().ok_or_else(|| {
                Usage(format!(
                    "passage `{}` has no text at hand to re-rank; give the corpus with --corpus",
                    h.id
                ))
            })?;
            Ok(h.title.as_ref().map_or_else(|| text.clone(), |title| format!("{title} {text}")))
        })
        .collect::<Result<_>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let order = by.model.order(&found.question, &texts, rerank::TOKENS)?;
    let mut old: Vec<Option<Line>> = std::mem::take(&mut found.hits).into_iter().map(Some).collect();
    for (place, logit) in order {
        found.hits.extend(old[place].take().map(|line| Line { score: logit as f32, ..line }));
    }
    found.hits.truncate(k);
    Ok(())
}

/// Arguments of `search`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    from: IndexArgs,
    /// Questions; without any, one per line of standard input.
    questions: Vec<String>,
    /// Passages per question.
    #[arg(short, default_value_t = 10, value_parser = count)]
    k: usize,
    /// HNSW ef_search: candidate list size, instead of the index's.
    #[arg(long, value_parser = count)]
    ef: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a question found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// The question.
    pub question: String,
    /// Best first.
    pub hits: Vec<Line>,
}

/// A passage that was found.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub id: String,
    /// How well it matches.
    pub score: f32,
    /// Its title, where the corpus is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its text, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What else its corpus says of it: page, source, other columns.
    #[serde(skip_serializing_if = "Provenance::is_empty")]
    pub metadata: Provenance,
}

/// Columns in a line: `page 3, source a.pdf`.
pub fn described(metadata: &Provenance) -> String {
    let said = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => shortened(text, 80),
        other => shortened(&other.to_string(), 80),
    };
    metadata.iter().map(|(name, value)| format!("{name} {}", said(value))).collect::<Vec<_>>().join(", ")
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let questions = match self.questions.is_empty() {
            true => std::io::stdin().lines().collect::<Result<Vec<_>, _>>()?,
            false => self.questions.clone(),
        };
        let found = self.from.find(questions, self.k, self.ef, quiet)?;
        if self.json {
            return common::print_json(&found);
        }
        for f in &found {
            println!("{}", f.question);
            for (rank, h) in f.hits.iter().enumerate() {
                println!("{:>4}. {:.4}  {}  {}", rank + 1, h.score, h.id, h.title.as_deref().unwrap_or(""));
                if let Some(text) = &h.text {
                    println!("      {}", shortened(text, 300));
                }
                if !h.metadata.is_empty() {
                    println!("      ({})", described(&h.metadata));
                }
            }
        }
        Ok(())
    }
}

fn shortened(text: &str, most: usize) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

fn add_texts(found: &mut [Found], corpus: &Path, from: &IndexSource) -> Result<()> {
    let wanted: HashSet<String> = found.iter().flat_map(|f| f.hits.iter().map(|h| h.id.clone())).collect();
    let (options, bad) = from.reading()?;
    let mut texts = HashMap::new();
    for p in read_corpus(corpus, &options, &bad)? {
        let p = p?;
        if wanted.contains(&p.id) {
            texts.insert(p.id.clone(), p);
        }
        if texts.len() == wanted.len() {
            break;
        }
    }
    let metadata = read_provenance(corpus, &options, &texts, &bad)?;
    for h in found.iter_mut().flat_map(|f| &mut f.hits) {
        if let Some(columns) = metadata.get(&h.id) {
            h.metadata.clone_from(columns);
        }
        if let Some(p) = texts.get(&h.id) {
            h.title.clone_from(&p.title);
            h.text = Some(p.text.clone());
        }
    }
    Ok(())
}
