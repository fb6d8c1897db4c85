//! `train generator --index`: passages for records that have none.

use crate::cmd::search::{IndexArgs, Line};
use crate::common::numbers::count;
use anyhow::Result;
use ragduet_data::{Found, Passage, RagRecord, Style, rag_line, read_records};
use ragduet_generator::recipe::config::SftConfig;
use ragduet_train::RETRIEVED;
use std::path::{Path, PathBuf};

/// Retrieval for records without passages.
#[derive(Debug, Default, clap::Args)]
pub struct Retrieval {
    /// Index whose top passages are added to records without contexts; the result is kept in the run folder.
    #[arg(long, conflicts_with = "resume")]
    index: Option<PathBuf>,
    /// Retriever, instead of the one the index was built with.
    #[arg(long, requires = "index")]
    retriever: Option<String>,
    /// Corpus of the index, if it has moved.
    #[arg(long, requires = "index")]
    corpus: Option<PathBuf>,
    /// Passages per record.
    #[arg(short, default_value_t = 5, requires = "index", value_parser = count)]
    k: usize,
}

/// Fills the contexts of the records that have none, and points the config at what it wrote.
pub fn retrieve(r: &Retrieval, config: &mut SftConfig, out: &Path, quiet: bool) -> Result<()> {
    let Some(index) = &r.index else { return Ok(()) };
    if out.join("config.toml").exists() {
        let why = format!("{} holds a run already; choose another --out", out.display());
        return Err(crate::common::Usage(why).into());
    }
    let from = IndexArgs::new(index.clone(), r.retriever.clone(), r.corpus.clone(), &config.run.device);
    let dir = out.join(RETRIEVED);
    fs_err::create_dir_all(&dir)?;
    let sidecar = config.data.skip_bad_rows.then(|| dir.join("bad_rows.jsonl"));
    // The records that are written have the usual names.
    let columns = std::mem::take(&mut config.data.columns);
    let bad = crate::common::bad_rows(sidecar.as_ref()).with_columns(columns);
    let format = config.data.format.take();
    for (name, path) in [("train", Some(&mut config.data.train)), ("dev", config.data.dev.as_mut())] {
        let Some(path) = path else { continue };
        let mut records: Vec<RagRecord> = read_records(&*path, format, &bad)?.collect::<Result<_, _>>()?;
        // A plain prompt has no place for passages.
        let mut bare: Vec<&mut RagRecord> =
            records.iter_mut().filter(|r| r.contexts.is_empty() && r.style != Style::Plain).collect();
        let questions: Vec<String> = bare.iter().map(|r| r.question.clone()).collect();
        let found = if questions.is_empty() { Vec::new() } else { from.find(questions, r.k, None, quiet)? };
        for (record, found) in bare.iter_mut().zip(found) {
            let passage = |hit: Line| {
                let text = hit.text?;
                let passage = Passage { id: hit.id, title: hit.title, text };
                Some(Found { passage, score: Some(hit.score) })
            };
            record.contexts =
                found.hits.into_iter().map(passage).collect::<Option<_>>().ok_or_else(|| {
                    crate::common::Usage("the index's corpus is not at hand; give --corpus".into())
                })?;
        }
        tracing::info!("{name}: {} of {} records were given passages", bare.len(), records.len());
        let file = dir.join(format!("{name}.rag.jsonl"));
        let lines: String = records.iter().map(|r| rag_line(r) + "\n").collect();
        ragduet_files::write(&file, lines)?;
        *path = file;
    }
    crate::common::report_bad_rows(&bad)?;
    Ok(())
}
