//! `ragduet encode`: texts in, embeddings out.

use crate::common::npy::NpyWriter;
use crate::common::{self, ModelArgs, ReadArgs, counter};
use anyhow::{Context, Result};
use ragduet_data::{Passages, read_corpus};
use ragduet_files::OutputFile;
use ragduet_retriever::{BiEncoder, EncodeSettings, Representation, Side, encode_rows, encode_stream};
use ragduet_train::checkpoint::replace_files;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What an encode's folder may hold.
const FILES: [&str; 5] = ["embeddings.npy", "ids.jsonl", "counts.jsonl", "vectors.jsonl", "meta.json"];

/// Arguments of `encode`.
///
/// Writes a folder: `embeddings.npy` ([texts, dim], numpy reads it), `ids.jsonl` (one JSON string a line, in the
/// same order) and `meta.json`. A late-interaction model has a vector for each token: `embeddings.npy` then holds them
/// text after text, and `counts.jsonl` how many each text has. Of a sparse model `vectors.jsonl` is written instead: a line
/// a text, {"id": ..., "vector": {word: weight}}, as Pyserini and Anserini read it. The input is streamed, so it may be larger than memory.
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
        let bad = self.read.bad_rows()?;
        let corpus = read_corpus(&self.input, &self.read.options(), &bad)?;
        let mut said = String::new();
        replace_files(&self.out, &FILES, |dir| {
            let of_model = || format!("model {} over {}", self.model.model, self.input.display());
            let encoded = match model.representation() {
                Representation::Sparse(_) => self.weights(dir, &model, side, corpus, quiet),
                _ => self.vectors(dir, &model, side, corpus, quiet),
            };
            let (done, text) = encoded.with_context(of_model)?;
            common::report_bad_rows(&bad)?;
            said = text;
            self.meta(dir, &model, done)
        })?;
        println!("{}: {said}", self.out.display());
        Ok(())
    }

    /// `embeddings.npy` and `ids.jsonl`, of a late-interaction model `counts.jsonl`; what is said of it.
    fn vectors(
        &self,
        dir: &Path,
        model: &BiEncoder,
        side: Side,
        corpus: Passages,
        quiet: bool,
    ) -> Result<(u64, String)> {
        let late = matches!(model.representation(), Representation::LateInteraction(_));
        let mut counts = late.then(|| OutputFile::create(dir.join("counts.jsonl"))).transpose()?;
        let mut npy = NpyWriter::create(&dir.join("embeddings.npy"), model.dim() as usize)?;
        let mut ids = OutputFile::create(dir.join("ids.jsonl"))?;
        let (texts, names) = common::texts_and_ids(corpus);
        let bar = counter("encoding", None, quiet);
        let started = std::time::Instant::now();
        let mut tokens = 0;
        let done = encode_rows(
            model,
            side,
            texts,
            // The index scales what it compares by cosine itself.
            &EncodeSettings { raw: true, ..self.model.encode_settings() },
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
        ids.finish()?;
        if let Some(counts) = counts {
            counts.finish()?;
        }
        npy.finish()?;
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        let said = format!(
            "{done} texts, {tokens} tokens in {seconds:.1} s ({:.1} texts/s, {:.0} tokens/s, {})",
            done as f64 / seconds,
            tokens as f64 / seconds,
            model.compute
        );
        Ok((done, said))
    }

    /// `vectors.jsonl` of a sparse model's texts; what is said of it.
    fn weights(
        &self,
        dir: &Path,
        model: &BiEncoder,
        side: Side,
        corpus: Passages,
        quiet: bool,
    ) -> Result<(u64, String)> {
        let mut out = OutputFile::create(dir.join("vectors.jsonl"))?;
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
        out.finish()?;
        bar.finish_and_clear();
        Ok((done, format!("{done} texts as weights of words")))
    }

    /// `meta.json`: how the texts were encoded.
    fn meta(&self, dir: &Path, model: &BiEncoder, texts: u64) -> Result<()> {
        let (late_interaction, sparse) = match model.representation() {
            Representation::Dense(_) => (false, None),
            Representation::LateInteraction(_) => (true, None),
            Representation::Sparse(config) => (false, Some(config)),
        };
        let weights = ragduet_nn::fingerprint::of_model(&ragduet_nn::hub::resolve(&self.model.model)?)?;
        let meta = serde_json::json!({
            "model": self.model.model, "weights": weights, "side": self.side, "texts": texts, "dim": model.dim(),
            "similarity": model.similarity(), "late_interaction": late_interaction,
            "sparse": sparse, "max_query_tokens": model.settings.max_query_tokens,
            "max_passage_tokens": model.settings.max_passage_tokens, "precision": model.compute.to_string(),
        });
        let text = serde_json::to_vec_pretty(&meta)?;
        Ok(ragduet_files::write(dir.join("meta.json"), text)?)
    }
}
