//! `ragduet data convert|stats|formats`.

use crate::common::{self, ReadArgs, Usage};
use anyhow::Result;
use ragduet_data::{
    BadRows, DataKind, DatasetStats, Format, convert, convert_records, corpus_stats, dataset_from_documents,
    dataset_stats, judged_stats, pattern_of, preference_stats, read_corpus, record_stats, write_corpus,
};
use std::path::PathBuf;

/// Arguments of `data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Convert a dataset from one format to another; records and preferences for generators to JSON Lines.
    Convert {
        /// Input: a file, a folder, a pattern, or several of them.
        #[arg(required = true)]
        from: Vec<PathBuf>,
        /// Output file or folder.
        #[arg(long)]
        to: PathBuf,
        /// Output format, if the name does not tell it.
        #[arg(long)]
        to_format: Option<Format>,
        /// What the rows are, if their columns do not tell it: examples, corpus, records, preferences or
        /// labelled-completions.
        #[arg(long)]
        kind: Option<DataKind>,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Make a data set in BEIR's layout from a folder of .txt and .md files and a file of questions. A passage is a
    /// paragraph. A line of the questions: question, words of the paragraph that answers it, answer (optional, for the
    /// generator), separated by tabs.
    Folder {
        /// Folder of documents.
        docs: PathBuf,
        /// Questions, tab-separated.
        #[arg(long)]
        questions: PathBuf,
        /// Output folder.
        #[arg(short, long)]
        out: PathBuf,
        /// Share of the questions for the dev split.
        #[arg(long, default_value_t = 0.25, value_parser = share)]
        dev: f64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print statistics of a dataset: counts, lengths, duplicates, overlap between splits; of records and preferences
    /// for generators, and of a corpus.
    Stats {
        /// A file, a folder, a pattern, or several of them.
        #[arg(required = true)]
        path: Vec<PathBuf>,
        /// What the rows are, if their columns do not tell it: examples, corpus, records, preferences or
        /// labelled-completions.
        #[arg(long)]
        kind: Option<DataKind>,
        #[command(flatten)]
        read: ReadArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the data formats.
    Formats,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("from 0 to below 1".into()) }
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Convert { from, to, to_format, kind, read } => {
                let (from, options, bad) = (pattern_of(&from), read.options(), read.bad_rows());
                let kind = kind.map_or_else(|| DataKind::of(&from, &options), Ok)?;
                match kind {
                    DataKind::Examples => {
                        let format = to_format.map_or_else(|| Format::for_output(&to), Ok)?;
                        let counts = convert(&from, &options, &to, format, &bad)?;
                        common::report_bad_rows(&bad);
                        println!("{}: {counts}", to.display());
                    }
                    DataKind::Corpus => {
                        let passages = write_corpus(&to, read_corpus(&from, &options, &bad)?)?;
                        common::report_bad_rows(&bad);
                        println!("{}: {passages} passages", to.display());
                    }
                    DataKind::Records | DataKind::Preferences | DataKind::Judged => {
                        if let Some(format) = to_format {
                            let why = format!(
                                "--to-format {format}: {kind} are written as JSON Lines; leave it out"
                            );
                            return Err(Usage(why).into());
                        }
                        let rows = convert_records(&from, kind, &to, &bad)?;
                        common::report_bad_rows(&bad);
                        println!("{}: {rows} {kind}", to.display());
                    }
                }
            }
            What::Folder { docs, questions, out, dev, json } => {
                let report = dataset_from_documents(&docs, &questions, &out, dev)?;
                match json {
                    true => common::print_json(&report)?,
                    false => println!("{}: {report}", out.display()),
                }
            }
            What::Stats { path, kind, read, json } => {
                let (path, options, bad) = (pattern_of(&path), read.options(), read.bad_rows());
                let kind = kind.map_or_else(|| DataKind::of(&path, &options), Ok)?;
                match kind {
                    DataKind::Examples => show(&dataset_stats(&path, &options, &bad)?, &bad, json)?,
                    DataKind::Corpus => {
                        let corpus = Some(corpus_stats(read_corpus(&path, &options, &bad)?)?);
                        let stats = DatasetStats { corpus, read: bad.report(), ..DatasetStats::default() };
                        show(&stats, &bad, json)?;
                    }
                    DataKind::Records => show(&record_stats(&path, &bad)?, &bad, json)?,
                    DataKind::Preferences => show(&preference_stats(&path, &bad)?, &bad, json)?,
                    DataKind::Judged => show(&judged_stats(&path, &bad)?, &bad, json)?,
                }
            }
            What::Formats => Format::ALL.iter().for_each(|f| println!("{:<16}{}", f.name(), f.about())),
        }
        Ok(())
    }
}

/// Prints statistics.
fn show<T: std::fmt::Display + serde::Serialize>(stats: &T, bad: &BadRows, json: bool) -> Result<()> {
    common::report_bad_rows(bad);
    match json {
        true => common::print_json(stats)?,
        false => println!("{stats}"),
    }
    Ok(())
}
