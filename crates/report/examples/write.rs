//! The page of these runs, without the rest of the binary: `write report.html RUN...`

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let out = args.next().ok_or("usage: write report.html RUN...")?;
    let runs: Vec<PathBuf> = args.collect();
    Ok(fs_err::write(out, ragduet_report::page(&runs)?.html()?)?)
}
