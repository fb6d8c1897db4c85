//! `ragduet report`: runs as one HTML page.

use anyhow::Result;
use ragduet_report::page;
use std::path::PathBuf;

/// Arguments of `report`.
///
/// Writes one HTML file that opens without a network: curves of all runs over one another, best figures, what the configs
/// differ in, sample questions with their passages, the environment.
///
/// Example: ragduet report runs/a runs/b answers.jsonl -o report.html
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folders of runs (those in them are taken as well), and files that `ragduet eval --save` wrote.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// File to write; one that is there is replaced.
    #[arg(short, long, default_value = "report.html")]
    out: PathBuf,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let page = page(&self.runs)?;
        let html = page.html()?;
        ragduet_torch::weights::write_atomic(&self.out, html.as_bytes())?;
        println!("{}: {} runs, {} KiB", self.out.display(), page.runs.len(), html.len() / 1024);
        Ok(())
    }
}
