//! `ragduet data convert|stats|formats`.

use crate::common::{self, ReadArgs};
use anyhow::Result;
use ragduet_data::{Format, convert, dataset_from_documents, dataset_stats};
use std::path::PathBuf;

/// Arguments of `data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Convert a dataset from one format to another.
    Convert {
        /// Input file or folder.
        from: PathBuf,
        /// Output file or folder.
        #[arg(long)]
        to: PathBuf,
        /// Output format, if the name does not tell it.
        #[arg(long)]
        to_format: Option<Format>,
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
    /// Print statistics of a dataset: counts, lengths, duplicates, overlap between splits.
    Stats {
        /// File or folder.
        path: PathBuf,
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
            What::Convert { from, to, to_format, read } => {
                let format = to_format.map_or_else(|| Format::for_output(&to), Ok)?;
                let bad = read.bad_rows();
                let counts = convert(&from, &read.options(), &to, format, &bad)?;
                common::report_bad_rows(&bad);
                println!("{}: {counts}", to.display());
            }
            What::Folder { docs, questions, out, dev, json } => {
                let report = dataset_from_documents(&docs, &questions, &out, dev)?;
                match json {
                    true => common::print_json(&report)?,
                    false => println!("{}: {report}", out.display()),
                }
            }
            What::Stats { path, read, json } => {
                let bad = read.bad_rows();
                let stats = dataset_stats(&path, &read.options(), &bad)?;
                common::report_bad_rows(&bad);
                if json {
                    common::print_json(&stats)?;
                } else {
                    println!("{stats}");
                }
            }
            What::Formats => Format::ALL.iter().for_each(|f| println!("{:<16}{}", f.name(), f.about())),
        }
        Ok(())
    }
}
