//! `ragduet mine`.

use crate::common::numbers::{count, finite, number};
use crate::common::{self, ModelArgs, ReadArgs, Usage, counter};
use anyhow::Result;
use ragduet_data::{Format, PassagePool, RetrievalExample, TrainingSet, write_examples};
use ragduet_index::negatives::NegativeSelection;
use ragduet_retriever::mining::{MiningConfig, MiningIndex, mine};
use std::path::PathBuf;

/// Arguments of `mine`.
///
/// Reads training data, ranks its passages (of a collection the whole corpus) for every query, and writes the
/// examples with the chosen negatives and the model's scores.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Training data: a collection (such as a BEIR directory) or a file of examples.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Output file (JSON Lines or Parquet; .gz and .zst compress).
    #[arg(short, long)]
    out: PathBuf,
    /// Negatives per query.
    #[arg(long, default_value_t = NegativeSelection::default().count, value_parser = number::<usize>(0, 1_000_000))]
    count: usize,
    /// First eligible rank, from 0.
    #[arg(long, default_value_t = NegativeSelection::default().rank_min, value_parser = number::<usize>(0, u32::MAX as usize))]
    rank_min: usize,
    /// End of the rank window, exclusive.
    #[arg(long, value_parser = count)]
    rank_max: Option<usize>,
    /// Maximum similarity of a negative.
    #[arg(long, value_parser = finite)]
    max_score: Option<f32>,
    /// Absolute margin: a negative's similarity is at most the positive's minus this.
    #[arg(long, value_parser = finite)]
    absolute_margin: Option<f32>,
    /// Relative margin: a negative's similarity is below the positive's by at least this share of it (0.05: at most 95
    /// %).
    #[arg(long, value_parser = finite)]
    relative_margin: Option<f32>,
    /// Uniform sampling from the eligible candidates instead of the top-ranked.
    #[arg(long)]
    uniform: bool,
    /// Random seed of sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Index: auto, exact or hnsw.
    #[arg(long, default_value = "auto", value_parser = ["auto", "exact", "hnsw"])]
    index: String,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        use ragduet_index::negatives::Sampling;
        let format = Format::for_output(&self.out)?;
        if !matches!(format, Format::Jsonl | Format::Parquet) {
            return Err(Usage(format!("{}: give a .jsonl or .parquet file", self.out.display())).into());
        }
        common::outputs::not_the_input(&self.data, &self.out)?;
        let model = self.model.load()?;
        let bad = self.read.bad_rows()?;
        let set = TrainingSet::read(&self.data, &self.read.options(), PassagePool::WholeCorpus, &bad)?;
        common::report_bad_rows(&bad)?;
        let config = MiningConfig {
            index: match self.index.as_str() {
                "exact" => MiningIndex::Exact,
                "hnsw" => MiningIndex::Hnsw,
                _ => MiningIndex::Auto,
            },
            select: NegativeSelection {
                count: self.count,
                rank_min: self.rank_min,
                rank_max: self.rank_max,
                max_score: self.max_score,
                absolute_margin: self.absolute_margin,
                relative_margin: self.relative_margin,
                sampling: if self.uniform { Sampling::Uniform } else { Sampling::Top },
                seed: self.seed,
                ..NegativeSelection::default()
            },
            ..MiningConfig::default()
        };
        let bar = counter("encoding passages", Some(set.passages().len() as u64), quiet);
        let (mined, report) =
            mine(&model, &set, &config, 0, &self.model.encode_settings(), &mut |n, _| bar.set_position(n))?;
        bar.finish_and_clear();
        let passage = |p: u32| set.passages()[p as usize].clone();
        let examples = set.items().iter().enumerate().map(|(i, item)| {
            let negatives = mined[item.query as usize].iter().map(|m| passage(m.passage)).collect();
            Ok(RetrievalExample { negatives, scores: None, ..set.example(i) })
        });
        let counts = write_examples(&self.out, format, examples)?;
        if self.json {
            common::print_json(&report)
        } else {
            println!("{report}\n{}: {counts}", self.out.display());
            Ok(())
        }
    }
}
