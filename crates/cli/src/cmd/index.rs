//! `ragduet index build`.

mod embedded;
mod said;

use self::embedded::{Embedded, Texts};
use crate::common::numbers::number;
use crate::common::{self, ModelArgs, ReadArgs, Usage, VectorArgs, WordArgs, counter};
use anyhow::Result;
use ragduet_data::read_corpus;
use ragduet_index::{
    ExactConfig, HnswBuilder, HnswConfig, IdMap, IndexConfig, IndexKind, LexicalConfig, LexicalIndex,
    MultiVectorConfig, Precision, ResidualConfig, SparseIndex, replace_index, write_index,
    write_multi_vector_index,
};
use ragduet_retriever::{BiEncoder, IndexSource, Representation};
use serde::de::DeserializeOwned;
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
    ///
    /// Vectors stay in a file (of a corpus one without a name in the output's folder, 4 bytes a number), so they may be
    /// larger than memory. Held are the ids and: exact and int8 a block of vectors; pq 16384 of them; hnsw all vectors and
    /// the graph; multi_vector 64 for each centroid, and for --audit what a search holds; sparse and lexical all of the index.
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
        let started = std::time::Instant::now();
        let e = match (&self.embeddings, &self.corpus, &self.model) {
            (Some(dir), _, _) => {
                let e = embedded::of_folder(dir)?;
                match &e.texts {
                    Texts::Dense(_) => self.check_dense()?,
                    Texts::LateInteraction(..) => self.check_late()?,
                    Texts::Sparse(_) => self.check_sparse()?,
                }
                e
            }
            (None, Some(corpus), Some(name)) => {
                let on = ModelArgs::new(name.clone(), &self.device, self.precision);
                let model = on.load()?;
                self.check(model.representation())?;
                return self.of_corpus(corpus, &on, &model, quiet);
            }
            _ => return Err(Usage("give --embeddings, or --corpus and --model".into()).into()),
        };
        let mut bytes = 0;
        self.save(&e.source, |dir| {
            bytes = self.write(dir, &e, quiet)?;
            Ok(())
        })?;
        self.say(e, bytes, started)
    }

    /// An index of what a model makes of a corpus.
    fn of_corpus(&self, corpus: &Path, on: &ModelArgs, model: &BiEncoder, quiet: bool) -> Result<()> {
        let mut built = None;
        let source = IndexSource::new(Some(&on.model), Some(corpus));
        self.save(&source, |dir| {
            // The vectors lie in the new index's folder until it is whole: without a name, so that nothing stays.
            let e = embedded::of_corpus(corpus, &self.read, on, model, dir, quiet)?;
            let started = std::time::Instant::now();
            let bytes = self.write(dir, &e, quiet)?;
            built = Some((e, bytes, started));
            Ok(())
        })?;
        built.map_or(Ok(()), |(e, bytes, started)| self.say(e, bytes, started))
    }

    /// Whether what was asked for goes with a model, before the corpus is encoded, which takes long.
    fn check(&self, representation: &Representation) -> Result<()> {
        match representation {
            Representation::Dense(_) => self.check_dense(),
            Representation::LateInteraction(_) => self.check_late(),
            Representation::Sparse(_) => self.check_sparse(),
        }
    }

    /// Builds the index in a folder; returns its bytes, where they are known without opening it.
    fn write(&self, dir: &Path, e: &Embedded, quiet: bool) -> Result<usize> {
        let total = match &e.texts {
            Texts::Dense(vectors) | Texts::LateInteraction(vectors, _) => vectors.len(),
            Texts::Sparse(_) => e.ids.len(),
        };
        let bar = counter("indexing", Some(total as u64), quiet);
        let progress = |done: usize, _| bar.set_position(done as u64);
        let ids = Some(&e.ids);
        let bytes = match &e.texts {
            Texts::Dense(vectors) => {
                let config = self.dense(vectors.dim())?;
                write_index(dir, &config, e.similarity, vectors, ids, &progress)?
            }
            Texts::LateInteraction(vectors, lengths) => {
                write_multi_vector_index(dir, &self.late(), vectors, lengths, ids, &progress)?;
                0
            }
            Texts::Sparse(weights) => {
                let mut index = SparseIndex::new(weights.dim());
                index.add(weights)?;
                index.save_with_ids(dir, ids)?;
                index.bytes()
            }
        };
        bar.finish_and_clear();
        Ok(bytes)
    }

    /// Settings of an index over one vector a text.
    fn dense(&self, dim: usize) -> Result<IndexConfig> {
        match self.kind.as_deref() {
            None if !self.vectors.given() => {}
            None | Some("exact") => return self.vectors.config(dim),
            Some(_) => {}
        }
        Ok(IndexConfig::Hnsw(HnswConfig {
            m: self.m,
            ef_construction: self.ef_construction,
            ef_search: self.ef_search,
            builder: self.builder,
            ..HnswConfig::default()
        }))
    }

    /// Settings of an index over token vectors.
    fn late(&self) -> MultiVectorConfig {
        match self.bits {
            0 => MultiVectorConfig::Exact(ExactConfig { precision: Precision::F16 }),
            bits => MultiVectorConfig::Compressed(ResidualConfig { bits, ..ResidualConfig::default() }),
        }
    }

    /// The index, what made it, and what is needed to read its corpus again, as one folder, whole or not at all.
    fn save(&self, source: &IndexSource, index: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
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
        self.save(&IndexSource::new(None, Some(corpus)), |dir| Ok(index.save_with_ids(dir, Some(&ids))?))?;
        println!(
            "{}: lexical index of {} passages, {:.0} bytes a passage, in {:.1} s",
            self.out.display(),
            index.len(),
            index.bytes() as f64 / index.len().max(1) as f64,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
