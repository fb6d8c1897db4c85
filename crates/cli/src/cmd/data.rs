//! `ragduet data convert|stats|formats`.

use crate::common::{self, ReadArgs};
use anyhow::Result;
use ragduet_data::{Format, convert, dataset_stats};
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
    ///
    /// Example: ragduet data convert squad.json --to triplets.jsonl.zst
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
    /// Print statistics of a dataset: counts, lengths, duplicates, overlap between splits.
    ///
    /// Example: ragduet data stats scifact --json
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
