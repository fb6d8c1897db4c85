//! What holds for every output of a command.

use super::Usage;
use anyhow::Result;
use std::path::Path;

/// Refuses an output that is the input: the rows that were read would be gone.
pub fn not_the_input(input: &Path, out: &Path) -> Result<()> {
    if !ragduet_files::is_stream(out) && ragduet_files::same(input, out) {
        return Err(Usage(format!("{}: is the input as well; give another --out", out.display())).into());
    }
    Ok(())
}
