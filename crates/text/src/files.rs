//! Atomic writing: a file is complete under its name, or absent.

use std::io::Write;
use std::path::Path;

/// Writes to a temporary name in the same directory, syncs, and renames.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs_err::rename(&temporary, path)
    })();
    if written.is_err() {
        // The write error is the one to report; a leftover that cannot be removed either adds nothing to it.
        let _ = fs_err::remove_file(&temporary);
    }
    written
}
