//! `ragduet index build|check`.

use crate::common::npy::NpyReader;
use crate::common::{self, ModelArgs, ReadArgs, Usage, counter};
use anyhow::{Context, Result};
use ragduet_data::read_corpus;
use ragduet_index::{
    AuditOptions, ExactConfig, ExactIndex, HnswConfig, HnswIndex, IdMap, Precision, SearchParams, Similarity,
    VectorIndex, VectorIndexMut, Vectors, recall_against_exact,
};
use ragduet_retriever::{Side, encode_stream};
use serde::{Deserialize, Serialize};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Build an index from a corpus and a model, or from the folder that `encode` wrote.
    ///
    /// Example: ragduet index build -m runs/x/best --corpus corpus.jsonl -o corpus.idx --kind hnsw
    Build(Box<Build>),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// Folder written by `ragduet encode`.
    #[arg(long, conflicts_with = "corpus")]
    embeddings: Option<PathBuf>,
    /// Corpus to encode.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Model folder or hub id, for `--corpus`.
    #[arg(short, long)]
    model: Option<String>,
    /// Folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// exact or hnsw.
    #[arg(long, default_value = "hnsw", value_parser = ["exact", "hnsw"])]
    kind: String,
    /// Stored vectors of an exact index: f32 or f16.
    #[arg(long, default_value = "f32", value_parser = ["f32", "f16"])]
    vectors: String,
    /// HNSW: links per row.
    #[arg(long, default_value_t = HnswConfig::default().m)]
    m: usize,
    /// HNSW: how widely the build looks.
    #[arg(long, default_value_t = HnswConfig::default().ef_construction)]
    ef_construction: usize,
    /// HNSW: how widely a search looks.
    #[arg(long, default_value_t = HnswConfig::default().ef_search)]
    ef_search: usize,
    /// HNSW: queries (drawn from the rows) on which recall against exact search is measured; 0 for none.
    #[arg(long, default_value_t = 200)]
    audit: usize,
    /// Where to run: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Compute precision: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    precision: ragduet_torch::Precision,
    #[command(flatten)]
    read: ReadArgs,
}

/// What an index was made from, beside its files, so that `search` needs no other argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// Model folder or id; none of an index over words.
    pub model: Option<String>,
    /// The corpus, for showing texts.
    pub corpus: Option<PathBuf>,
}

/// The file that holds [`Source`].
pub const SOURCE_FILE: &str = "source.json";

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        match self.what {
            What::Build(b) => b.run(quiet),
        }
    }
}

struct Embedded {
    rows: Vec<f32>,
    dim: usize,
    ids: Vec<String>,
    similarity: Similarity,
    source: Option<Source>,
}

impl Build {
    fn run(&self, quiet: bool) -> Result<()> {
        let e = match (&self.embeddings, &self.corpus, &self.model) {
            (Some(dir), _, _) => from_folder(dir)?,
            (None, Some(corpus), Some(model)) => self.encode(corpus, model, quiet)?,
            _ => return Err(Usage("give --embeddings, or --corpus and --model".into()).into()),
        };
        let ids = IdMap::from_ids(&e.ids)?;
        let vectors = Vectors::new(&e.rows, e.dim)?;
        let bar = counter("indexing", Some(vectors.len() as u64), quiet);
        let started = std::time::Instant::now();
        let progress = |done: usize, _| bar.set_position(done as u64);
        if self.kind == "exact" {
            let precision = if self.vectors == "f16" { Precision::F16 } else { Precision::F32 };
            let mut index = ExactIndex::new(&ExactConfig { precision }, e.similarity, e.dim)?;
            index.add_with_progress(vectors, &progress)?;
            index.save_with_ids(&self.out, Some(&ids))?;
        } else {
            let config = HnswConfig {
                m: self.m,
                ef_construction: self.ef_construction,
                ef_search: self.ef_search,
                ..HnswConfig::default()
            };
            let mut index = HnswIndex::new(&config, e.similarity, e.dim)?;
            index.add_with_progress(vectors, &progress)?;
            index.save_with_ids(&self.out, Some(&ids))?;
            bar.finish_and_clear();
            self.audit(&index, &e, vectors)?;
        }
        bar.finish_and_clear();
        if let Some(source) = &e.source {
            let text = serde_json::to_vec_pretty(source)?;
            ragduet_torch::weights::write_atomic(&self.out.join(SOURCE_FILE), &text)?;
        }
        println!(
            "{}: {} index of {} vectors, {} dimensions, {:?}, in {:.1} s",
            self.out.display(),
            self.kind,
            vectors.len(),
            e.dim,
            e.similarity,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// Every vector must find itself, and a sample of them their true neighbours.
    fn audit(&self, index: &HnswIndex, e: &Embedded, vectors: Vectors<'_>) -> Result<()> {
        let found = index.audit(&AuditOptions::default());
        println!(
            "self-audit: {} of {} vectors find themselves, {} unreachable",
            found.searched - found.missed.len(),
            found.searched,
            found.unreachable.len()
        );
        if self.audit > 0 && !vectors.is_empty() {
            let mut exact = ExactIndex::new(&ExactConfig::default(), e.similarity, e.dim)?;
            exact.add(vectors)?;
            let step = (vectors.len() / self.audit).max(1);
            let sample: Vec<f32> = vectors.rows().step_by(step).take(self.audit).flatten().copied().collect();
            let r =
                recall_against_exact(index, &exact, Vectors::new(&sample, e.dim)?, &SearchParams::top(10))?;
            println!("recall@{} against exact search: {:.4} on {} queries", r.k, r.recall, r.queries);
        }
        Ok(())
    }

    fn encode(&self, corpus: &Path, model_name: &str, quiet: bool) -> Result<Embedded> {
        let args = ModelArgs::new(model_name.into(), &self.device, self.precision);
        let model = args.load()?;
        let bad = self.read.bad_rows();
        let (send, receive) = channel();
        let texts = read_corpus(corpus, &self.read.options(), &bad)?.map(move |p| {
            let p = p?;
            let _ = send.send(p.id.clone());
            Ok(p.full_text())
        });
        let bar = counter("encoding", None, quiet);
        let mut rows = Vec::new();
        let progress = &mut |n, _| bar.set_position(n);
        encode_stream(&model, Side::Passage, texts, &args.encode_settings(), progress, |r| {
            rows.extend_from_slice(r);
            Ok(())
        })?;
        bar.finish_and_clear();
        common::report_bad_rows(&bad);
        let absolute = |p: &Path| std::path::absolute(p).unwrap_or_else(|_| p.into());
        let model_path = Path::new(model_name);
        let model_name =
            if model_path.is_dir() { absolute(model_path).display().to_string() } else { model_name.into() };
        Ok(Embedded {
            rows,
            dim: model.dim() as usize,
            ids: receive.try_iter().collect(),
            similarity: model.settings.similarity.into(),
            source: Some(Source { model: Some(model_name), corpus: Some(absolute(corpus)) }),
        })
    }
}

fn from_folder(dir: &Path) -> Result<Embedded> {
    let mut npy = NpyReader::open(&dir.join("embeddings.npy"))?;
    let (total, dim) = (npy.rows, npy.dim);
    let rows = npy.next_rows(total)?;
    let path = dir.join("ids.jsonl");
    let ids = std::io::BufReader::new(fs_err::File::open(&path)?)
        .lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str::<String>(&line?).with_context(|| format!("{}:{}", path.display(), i + 1))
        })
        .collect::<Result<Vec<_>>>()?;
    if rows.len() != total * dim || ids.len() != total {
        anyhow::bail!(
            "{}: {} ids for {total} rows, of which {} are there; encode again",
            dir.display(),
            ids.len(),
            rows.len() / dim.max(1)
        );
    }
    #[derive(Deserialize)]
    struct Meta {
        model: String,
        similarity: Similarity,
    }
    let meta: Meta = serde_json::from_slice(&fs_err::read(dir.join("meta.json"))?)
        .with_context(|| format!("{}", dir.join("meta.json").display()))?;
    let source = Some(Source { model: Some(meta.model), corpus: None });
    Ok(Embedded { rows, dim, ids, similarity: meta.similarity, source })
}
