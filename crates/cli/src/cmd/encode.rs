//! `ragduet encode`: texts in, embeddings out.

use crate::common::npy::NpyWriter;
use crate::common::{self, ModelArgs, ReadArgs, counter};
use anyhow::{Context, Result};
use ragduet_data::{Passages, read_corpus};
use ragduet_retriever::{BiEncoder, Representation, Side, encode_rows, encode_stream};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Arguments of `encode`.
///
/// Writes a folder: `embeddings.npy` ([texts, dim], numpy reads it), `ids.jsonl` (one JSON string a line, in the
/// same order) and `meta.json`. A late-interaction model has a vector for each token: `embeddings.npy` then holds them
/// text after text, and `counts.jsonl` how many each text has. Of a sparse model `vectors.jsonl` is written instead: a line
/// a text, {"id": ..., "vector": {word: weight}}, as Pyserini and Anserini read it. The input is streamed, so it may be larger than memory.
///
/// Example: ragduet encode -m runs/x/best -i corpus.jsonl.gz -o embeddings
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Corpus: a BEIR directory, or a file of passages (JSON Lines, Parquet, TSV, plain text; also .gz and .zst).
    #[arg(short, long)]
    input: PathBuf,
    /// Output folder.
    #[arg(short, long)]
    out: PathBuf,
    /// Kind of text: `passage` or `query` (prompt and length limit differ).
    #[arg(long, default_value = "passage", value_parser = ["passage", "query"])]
    side: String,
    #[command(flatten)]
    read: ReadArgs,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let model = self.model.load()?;
        let side = if self.side == "query" { Side::Query } else { Side::Passage };
        let bad = self.read.bad_rows();
        let corpus = read_corpus(&self.input, &self.read.options(), &bad)?;
        fs_err::create_dir_all(&self.out)?;
        let mut counts = match model.representation() {
            Representation::Dense(_) => None,
            Representation::LateInteraction(_) => {
                Some(BufWriter::new(fs_err::File::create(self.out.join("counts.jsonl"))?))
            }
            Representation::Sparse(_) => {
                let done = self.weights(&model, side, corpus, quiet)?;
                common::report_bad_rows(&bad);
                println!("{}: {done} texts as weights of words", self.out.display());
                return Ok(());
            }
        };
        let mut npy = NpyWriter::create(&self.out.join("embeddings.npy"), model.dim() as usize)?;
        let mut ids = BufWriter::new(fs_err::File::create(self.out.join("ids.jsonl"))?);
        let (texts, names) = common::texts_and_ids(corpus);
        let bar = counter("encoding", None, quiet);
        let started = std::time::Instant::now();
        let mut tokens = 0;
        let done = encode_rows(
            &model,
            side,
            texts,
            &self.model.encode_settings(),
            &mut |n, t| {
                bar.set_position(n);
                tokens = t;
            },
            |rows, vectors| {
                npy.write(rows)?;
                for id in names.try_iter().take(vectors.len()) {
                    serde_json::to_writer(&mut ids, &id).map_err(std::io::Error::from)?;
                    ids.write_all(b"\n")?;
                }
                if let Some(counts) = &mut counts {
                    vectors.iter().try_for_each(|n| writeln!(counts, "{n}"))?;
                }
                Ok(())
            },
        )?;
        ids.flush().context("cannot write ids.jsonl")?;
        if let Some(counts) = &mut counts {
            counts.flush().context("cannot write counts.jsonl")?;
        }
        npy.finish()?;
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        self.meta(&model, done)?;
        common::report_bad_rows(&bad);
        println!(
            "{}: {done} texts, {tokens} tokens in {seconds:.1} s ({:.1} texts/s, {:.0} tokens/s, {})",
            self.out.display(),
            done as f64 / seconds,
            tokens as f64 / seconds,
            model.compute
        );
        Ok(())
    }

    /// `vectors.jsonl` and `meta.json` of a sparse model's texts.
    fn weights(&self, model: &BiEncoder, side: Side, corpus: Passages, quiet: bool) -> Result<u64> {
        let path = self.out.join("vectors.jsonl");
        let mut out = BufWriter::new(fs_err::File::create(&path)?);
        let (texts, names) = common::texts_and_ids(corpus);
        let bar = counter("encoding", None, quiet);
        let dim = model.dim() as usize;
        let word = |at: usize| {
            let token = model.tokenizer.id_to_token(at as u32);
            token.unwrap_or_else(|| format!("[{at}]"))
        };
        let progress = &mut |n, _| bar.set_position(n);
        let settings = self.model.encode_settings();
        let done = encode_stream(model, side, texts, &settings, progress, |rows| {
            for (row, id) in rows.chunks_exact(dim).zip(names.try_iter()) {
                let weights = row.iter().enumerate().filter(|(_, w)| **w > 0.0);
                let vector: serde_json::Map<String, serde_json::Value> =
                    weights.map(|(at, &w)| (word(at), w.into())).collect();
                serde_json::to_writer(&mut out, &serde_json::json!({"id": id, "vector": vector}))
                    .map_err(std::io::Error::from)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        })?;
        out.flush().with_context(|| format!("cannot write {}", path.display()))?;
        bar.finish_and_clear();
        self.meta(model, done)?;
        Ok(done)
    }

    /// `meta.json`: how the texts were encoded.
    fn meta(&self, model: &BiEncoder, texts: u64) -> Result<()> {
        let (late_interaction, sparse) = match model.representation() {
            Representation::Dense(_) => (false, None),
            Representation::LateInteraction(_) => (true, None),
            Representation::Sparse(config) => (false, Some(config)),
        };
        let dir = ragduet_nn::hub::resolve(&self.model.model)?;
        let weights = ragduet_nn::fingerprint::of_model(&dir)?;
        let meta = serde_json::json!({
            "model": self.model.model, "weights": weights, "side": self.side, "texts": texts, "dim": model.dim(),
            "similarity": model.similarity(), "late_interaction": late_interaction,
            "sparse": sparse, "max_query_tokens": model.settings.max_query_tokens,
            "max_passage_tokens": model.settings.max_passage_tokens, "precision": model.compute.to_string(),
        });
        let text = serde_json::to_vec_pretty(&meta)?;
        ragduet_torch::weights::write_atomic(&self.out.join("meta.json"), &text)?;
        Ok(())
    }
}
