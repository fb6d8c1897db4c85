//! `ragduet index build|check`.

use crate::common::npy::NpyReader;
use crate::common::numbers::number;
use crate::common::{self, ModelArgs, ReadArgs, Usage, VectorArgs, WordArgs, counter};
use anyhow::{Context, Result};
use ragduet_data::read_corpus;
use ragduet_index::{
    AuditOptions, ExactConfig, ExactIndex, ExactMultiVectorIndex, HnswBuilder, HnswConfig, HnswIndex, IdMap,
    IndexKind, LexicalConfig, LexicalIndex, MultiSearchParams, MultiVectorConfig, MultiVectorIndex,
    MultiVectors, Precision, ResidualConfig, SearchParams, Similarity, SparseIndex, SparseVectors,
    VectorIndex, VectorIndexMut, Vectors, build_multi_vector, recall_against_exact, recall_of_multi_vectors,
    replace_index,
};
use ragduet_retriever::{BiEncoder, Encoded, IndexSource, Representation, Side, TokenVectors};
use ragduet_train::checkpoint::check;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Arguments of `index`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// Recall below which a graph's settings deserve a word.
const LOW_RECALL: f64 = 0.9;

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Build an index from a corpus and a model, or from embeddings that `encode` wrote.
    Build(Box<Build>),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// Folder written by `ragduet encode`.
    #[arg(long, conflicts_with = "corpus")]
    embeddings: Option<PathBuf>,
    /// Corpus: a BEIR folder or a file of passages.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Model folder or hub id, for `--corpus`.
    #[arg(short, long)]
    model: Option<String>,
    /// Output folder.
    #[arg(short, long)]
    out: PathBuf,
    /// Index type: exact or hnsw (dense vectors), multi_vector (late interaction), sparse (SPLADE), lexical (BM25, no
    /// model). If not given: by the model (dense: hnsw, or exact with --vectors); lexical without a model.
    #[arg(long, value_parser = ["exact", "hnsw", "multi_vector", "sparse", "lexical"])]
    kind: Option<String>,
    #[command(flatten)]
    vectors: VectorArgs,
    /// Late interaction: bits per residual component (1, 2, 4, 8); 0: exact MaxSim over f16 vectors.
    #[arg(long, default_value_t = ResidualConfig::default().bits, value_parser = number::<u8>(0, 8))]
    bits: u8,
    /// BM25 k1: term-frequency saturation.
    #[arg(long, default_value_t = LexicalConfig::default().k1, value_parser = number::<f64>(0.0, 1000.0))]
    k1: f64,
    /// BM25 b: document-length normalization.
    #[arg(long, default_value_t = LexicalConfig::default().b, value_parser = number::<f64>(0.0, 1.0))]
    b: f64,
    #[command(flatten)]
    words: WordArgs,
    /// HNSW builder: hnsw_rs, hnsw_rs_serial (one thread, deterministic) or native (parallel, deterministic, several
    /// times faster).
    #[arg(long, value_parser = parse_choice::<HnswBuilder>, default_value = "hnsw_rs")]
    builder: HnswBuilder,
    /// HNSW M: links per node.
    #[arg(long, default_value_t = HnswConfig::default().m, value_parser = number::<usize>(2, 256))]
    m: usize,
    /// HNSW ef_construction: candidate list size during construction.
    #[arg(long, default_value_t = HnswConfig::default().ef_construction, value_parser = number::<usize>(1, 100_000))]
    ef_construction: usize,
    /// HNSW ef_search: candidate list size during search.
    #[arg(long, default_value_t = HnswConfig::default().ef_search, value_parser = number::<usize>(1, 10_000_000))]
    ef_search: usize,
    /// HNSW: number of queries (sampled from the vectors) on which recall against exact search is measured; 0: none.
    #[arg(long, default_value_t = 200, value_parser = number::<usize>(0, 10_000_000))]
    audit: usize,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Compute precision: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    precision: ragduet_torch::Precision,
    #[command(flatten)]
    read: ReadArgs,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        match self.what {
            What::Build(b) => b.run(quiet),
        }
    }
}

struct Embedded {
    texts: Encoded,
    dim: usize,
    ids: Vec<String>,
    similarity: Similarity,
    source: IndexSource,
}

/// A choice by the name that it has in configs.
fn parse_choice<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|e| e.to_string())
}

impl Build {
    fn run(&self, quiet: bool) -> Result<()> {
        if self.vectors.given() && self.kind.as_deref().is_some_and(|kind| kind != "exact") {
            return Err(Usage(
                "--vectors, --dimensions, --rescore and --pq-parts go with --kind exact".into(),
            )
            .into());
        }
        let corpus_alone = self.model.is_none() && self.embeddings.is_none();
        if self.kind.as_deref() == Some("lexical")
            || (self.kind.is_none() && corpus_alone && self.corpus.is_some() && !self.vectors.given())
        {
            if self.kind.is_none() {
                if let Ok(old) = ragduet_index::kind(&self.out)
                    && old != IndexKind::Lexical
                {
                    return Err(Usage(format!(
                        "{} holds an index of vectors and no model is given: give one with -m, or say --kind lexical for \
                         BM25",
                        self.out.display()
                    ))
                    .into());
                }
                tracing::info!("no model is given: an index of words (BM25)");
            }
            return self.words(quiet);
        }
        let e = match (&self.embeddings, &self.corpus, &self.model) {
            (Some(dir), _, _) => from_folder(dir)?,
            (None, Some(corpus), Some(name)) => {
                let on = ModelArgs::new(name.clone(), &self.device, self.precision);
                let model = on.load()?;
                // Before the corpus is encoded, which takes long.
                match model.representation() {
                    Representation::Dense(_) => self.check_dense()?,
                    Representation::LateInteraction(_) => self.check_late()?,
                    Representation::Sparse(_) => self.check_sparse()?,
                }
                self.encode(corpus, &on, &model, quiet)?
            }
            _ => return Err(Usage("give --embeddings, or --corpus and --model".into()).into()),
        };
        let ids = IdMap::from_ids(&e.ids).with_context(|| {
            let from = self.embeddings.as_ref().or(self.corpus.as_ref());
            from.map(|p| p.display().to_string()).unwrap_or_default()
        })?;
        match &e.texts {
            Encoded::Dense(rows) => self.vectors(&e, rows, &ids, quiet),
            Encoded::LateInteraction(vectors) => self.tokens(&e, vectors, &ids, quiet),
            Encoded::Sparse(weights) => self.weights(&e, weights, &ids),
        }
    }

    /// The index, what made it, and what is needed to read its corpus again, as one folder, whole or not at all.
    fn save(
        &self,
        source: &IndexSource,
        index: impl FnOnce(&Path) -> ragduet_index::Result<()>,
    ) -> Result<()> {
        let source = IndexSource {
            format: self.read.format.map(|f| f.to_string()),
            split: self.read.split.clone(),
            skips_bad_rows: self.read.skip_bad_rows.is_some(),
            columns: self.read.map.columns()?,
            ..source.clone()
        }
        .with_contents()?;
        replace_index(&self.out, |dir| -> Result<()> {
            index(dir)?;
            Ok(source.write(dir)?)
        })
    }

    fn check_dense(&self) -> Result<()> {
        let (kind, other) = match self.kind.as_deref() {
            Some(kind @ "multi_vector") => (kind, "late-interaction"),
            Some(kind @ "sparse") => (kind, "sparse"),
            _ => return Ok(()),
        };
        Err(Usage(format!("{kind} goes with a {other} model, which this is not")).into())
    }

    fn check_late(&self) -> Result<()> {
        if self.vectors.given() || self.kind.as_deref().is_some_and(|k| k != "multi_vector") {
            return Err(Usage("a late-interaction model goes with --kind multi_vector".into()).into());
        }
        Ok(())
    }

    fn check_sparse(&self) -> Result<()> {
        if self.vectors.given() || self.kind.as_deref().is_some_and(|k| k != "sparse") {
            return Err(Usage("a sparse model goes with --kind sparse".into()).into());
        }
        Ok(())
    }

    /// An index over one vector a text.
    fn vectors(&self, e: &Embedded, rows: &[f32], ids: &IdMap, quiet: bool) -> Result<()> {
        self.check_dense()?;
        let kind = self.kind.as_deref().unwrap_or(if self.vectors.given() { "exact" } else { "hnsw" });
        let vectors = Vectors::new(rows, e.dim)?;
        let bar = counter("indexing", Some(vectors.len() as u64), quiet);
        let started = std::time::Instant::now();
        let progress = |done: usize, _| bar.set_position(done as u64);
        let mut bytes = String::new();
        if kind == "exact" {
            let mut index = ragduet_index::build(&self.vectors.config(e.dim)?, e.similarity, e.dim)?;
            index.add_with_progress(vectors, &progress)?;
            self.save(&e.source, |dir| index.save_with_ids(dir, Some(ids)))?;
            bytes = format!(", {:.0} bytes a passage", index.bytes() as f64 / vectors.len().max(1) as f64);
        } else {
            let config = HnswConfig {
                m: self.m,
                ef_construction: self.ef_construction,
                ef_search: self.ef_search,
                builder: self.builder,
                ..HnswConfig::default()
            };
            let mut index = HnswIndex::new(&config, e.similarity, e.dim)?;
            index.add_with_progress(vectors, &progress)?;
            self.save(&e.source, |dir| index.save_with_ids(dir, Some(ids)))?;
            bar.finish_and_clear();
            self.audit(&index, e, vectors)?;
        }
        bar.finish_and_clear();
        println!(
            "{}: {kind} index of {} vectors, {} dimensions, {:?}{bytes}, in {:.1} s",
            self.out.display(),
            vectors.len(),
            e.dim,
            e.similarity,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// An index over token vectors, and how many of the true neighbours it finds.
    fn tokens(&self, e: &Embedded, vectors: &TokenVectors, ids: &IdMap, quiet: bool) -> Result<()> {
        self.check_late()?;
        let started = std::time::Instant::now();
        let offsets = vectors.offsets();
        let passages = MultiVectors::new(&vectors.rows, &offsets, e.dim)?;
        let exact = ExactConfig { precision: Precision::F16 };
        let config = match self.bits {
            0 => MultiVectorConfig::Exact(exact.clone()),
            bits => MultiVectorConfig::Compressed(ResidualConfig { bits, ..ResidualConfig::default() }),
        };
        let bar = counter("indexing", None, quiet);
        let index = build_multi_vector(&config, passages)?;
        self.save(&e.source, |dir| index.save_with_ids(dir, Some(ids)))?;
        bar.finish_and_clear();
        println!(
            "{}: multi-vector index of {} passages, {} vectors of {} numbers, {:.0} bytes a passage, in {:.1} s",
            self.out.display(),
            index.live(),
            index.tokens(),
            e.dim,
            index.bytes_per_passage(),
            started.elapsed().as_secs_f64()
        );
        if self.bits > 0 && self.audit > 0 && index.live() > 0 {
            // A query's length of each of some passages asks for it.
            const TOKENS: usize = 32;
            let step = (passages.len() / self.audit).max(1);
            let (mut rows, mut borders) = (Vec::new(), vec![0]);
            for set in passages.sets().step_by(step).take(self.audit) {
                let n = set.len().min(TOKENS);
                rows.extend_from_slice(&set.data()[..n * e.dim]);
                borders.push(borders[borders.len() - 1] + n);
            }
            let queries = MultiVectors::new(&rows, &borders, e.dim)?;
            let mut truth = ExactMultiVectorIndex::new(&exact, e.dim)?;
            truth.add(passages)?;
            let r = recall_of_multi_vectors(&*index, &truth, queries, &MultiSearchParams::top(10))?;
            println!("recall@{} against exact MaxSim: {:.4} on {} queries", r.k, r.recall, r.queries);
        }
        Ok(())
    }

    /// An index over a model's weights of words.
    fn weights(&self, e: &Embedded, texts: &SparseVectors, ids: &IdMap) -> Result<()> {
        self.check_sparse()?;
        let started = std::time::Instant::now();
        let mut index = SparseIndex::new(texts.dim());
        index.add(texts)?;
        self.save(&e.source, |dir| index.save_with_ids(dir, Some(ids)))?;
        let count = index.len().max(1) as f64;
        println!(
            "{}: sparse index of {} passages, {:.1} words a passage, {:.0} bytes a passage, in {:.1} s",
            self.out.display(),
            index.len(),
            texts.active() as f64 / count,
            index.bytes() as f64 / count,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// An index over words.
    fn words(&self, quiet: bool) -> Result<()> {
        let Some(corpus) = &self.corpus else {
            return Err(Usage("an index over words is made from --corpus".into()).into());
        };
        let started = std::time::Instant::now();
        let config = LexicalConfig { k1: self.k1, b: self.b, ..self.words.config()? };
        let mut index = LexicalIndex::new(&config)?;
        let bad = self.read.bad_rows()?;
        let (mut ids, mut texts) = (IdMap::new(), Vec::new());
        let bar = counter("reading", None, quiet);
        for p in read_corpus(corpus, &self.read.options(), &bad)? {
            let p = p?;
            ids.push(&p.id)?;
            texts.push(p.full_text());
            if texts.len() == 65_536 {
                index.add(&std::mem::take(&mut texts))?;
                bar.set_position(index.len() as u64);
            }
        }
        index.add(&texts)?;
        bar.finish_and_clear();
        common::report_bad_rows(&bad)?;
        self.save(&IndexSource::new(None, Some(corpus)), |dir| index.save_with_ids(dir, Some(&ids)))?;
        println!(
            "{}: lexical index of {} passages, {:.0} bytes a passage, in {:.1} s",
            self.out.display(),
            index.len(),
            index.bytes() as f64 / index.len().max(1) as f64,
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
            if r.recall < LOW_RECALL {
                tracing::warn!(
                    "the graph misses {:.0} % of the nearest passages: build with a greater --ef-search, --ef-construction or --m, or with --kind exact",
                    (1.0 - r.recall) * 100.0
                );
            }
        }
        Ok(())
    }

    fn encode(&self, corpus: &Path, on: &ModelArgs, model: &BiEncoder, quiet: bool) -> Result<Embedded> {
        let bad = self.read.bad_rows()?;
        let (texts, ids) = common::texts_and_ids(read_corpus(corpus, &self.read.options(), &bad)?);
        let bar = counter("encoding", None, quiet);
        let progress = &mut |n, _| bar.set_position(n);
        let texts = Encoded::stream(model, Side::Passage, texts, &on.encode_settings(), progress)?;
        bar.finish_and_clear();
        common::report_bad_rows(&bad)?;
        Ok(Embedded {
            texts,
            dim: model.dim() as usize,
            ids: ids.try_iter().collect(),
            similarity: model.similarity().into(),
            source: IndexSource::new(Some(&on.model), Some(corpus)),
        })
    }
}

fn from_folder(dir: &Path) -> Result<Embedded> {
    if dir.join("manifest.json").is_file() {
        check(dir)?;
    }
    if dir.join("vectors.jsonl").is_file() {
        anyhow::bail!(
            "{}: holds a sparse model's weights of words, for Pyserini and Anserini; build an index with --corpus and \
             --model",
            dir.display()
        );
    }
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
    let path = dir.join("counts.jsonl");
    let counts: Option<Vec<usize>> = match path.is_file() {
        false => None,
        true => {
            let number = |(i, line): (usize, &str)| {
                line.parse().with_context(|| format!("{}:{}", path.display(), i + 1))
            };
            Some(fs_err::read_to_string(&path)?.lines().enumerate().map(number).collect::<Result<_>>()?)
        }
    };
    let whole = match &counts {
        None => ids.len() == total,
        Some(counts) => counts.len() == ids.len() && counts.iter().sum::<usize>() == total,
    };
    if rows.len() != total * dim || !whole {
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
        #[serde(default)]
        weights: Option<String>,
        similarity: Similarity,
    }
    let meta: Meta = serde_json::from_slice(&fs_err::read(dir.join("meta.json"))?)
        .with_context(|| format!("{}", dir.join("meta.json").display()))?;
    let source = IndexSource { model: Some(meta.model), weights: meta.weights, ..IndexSource::default() };
    let texts = match counts {
        None => Encoded::Dense(rows),
        Some(counts) => Encoded::LateInteraction(TokenVectors { rows, counts }),
    };
    Ok(Embedded { texts, dim, ids, similarity: meta.similarity, source })
}
