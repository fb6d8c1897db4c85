//! `ragduet report`: runs as one HTML page.

use anyhow::Result;
use ragduet_report::page;
use std::path::PathBuf;

/// Arguments of `report`.
///
/// Writes one self-contained HTML file: training curves, best figures, config differences, sample questions with
/// passages and answers, environment.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Run folders (runs inside them included) and files written by `ragduet eval --save`.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Output file; an existing one is replaced.
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
