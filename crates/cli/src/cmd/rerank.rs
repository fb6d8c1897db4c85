//! `ragduet rerank`.

use crate::common::{self, ReadArgs, RerankArgs, Usage};
use anyhow::{Context, Result};
use ragduet_metrics::{Run, evaluate};
use ragduet_retriever::evaluate::{EvalSet, default_measures};
use ragduet_torch::Precision;
use std::path::PathBuf;

/// Arguments of `rerank`.
///
/// Re-ranks the top passages of each question of a TREC run file with a cross-encoder, writes the new run file, and
/// evaluates both if the questions are judged.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    rerank: RerankArgs,
    /// Input ranking (TREC run file).
    #[arg(long)]
    run: PathBuf,
    /// BEIR folder.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Drops passages with the id of their query from both rankings, as BEIR's evaluation does (ArguAna, Quora).
    #[arg(long)]
    drop_identical_ids: bool,
    /// Output ranking (TREC run file).
    #[arg(short, long)]
    out: PathBuf,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Compute precision: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    precision: Precision,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let Some(reranker) = self.rerank.load(&self.device, self.precision)? else {
            return Err(Usage("give the cross-encoder with --rerank".into()).into());
        };
        let bad = self.read.bad_rows()?;
        let mut options = self.read.options();
        options.split.get_or_insert_with(|| "test".into());
        let set = EvalSet::read(&self.data, &options, None, 0, &bad)?;
        common::report_bad_rows(&bad)?;
        common::outputs::not_the_input(&self.run, &self.out)?;
        let mut before = Run::read_trec(&self.run)?;
        super::eval::own_passages(&mut before, self.drop_identical_ids);
        let after = reranker
            .ranking(&set, &before, quiet)
            .with_context(|| format!("{} over {}", self.run.display(), self.data.display()))?;
        after
            .write_trec(&self.out, "ragduet")
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        let measures = default_measures();
        let [old, new] = [&before, &after].map(|run| evaluate(&set.qrels, run, &measures));
        super::eval::say_missing(&self.run, &set.qrels, &old)?;
        super::train::print_table(&[("before", Some(&old)), ("after", Some(&new))]);
        println!("{} questions; {}", after.len(), self.out.display());
        Ok(())
    }
}
