//! Folders of a run that its checkpoints share by hard links: the index, a refresh under way, the kept best weights.
//!
//! Their files are replaced and never written to again, so a link stays what it was.

use crate::Result;
use std::path::Path;

/// Makes `to` a folder with the files of `from`; nothing where there is no `from`.
pub(super) fn link(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            link(&path, &target)?;
        } else if fs_err::hard_link(&path, &target).is_err() {
            // Another filesystem, or one without links.
            fs_err::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Makes `to` a folder with the files of `from` and no others; none where there is no `from`.
pub(super) fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs_err::remove_dir_all(to)?;
    }
    link(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_replaced_later_stays_in_the_checkpoint() {
        let tmp = tempfile::tempdir().unwrap();
        let (run, kept) = (tmp.path().join("index"), tmp.path().join("checkpoint/index"));
        fs::create_dir_all(run.join("sub")).unwrap();
        fs::write(run.join("sub/rows"), "old").unwrap();
        link(&run, &kept).unwrap();
        fs::remove_dir_all(&run).unwrap();
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("other"), "new").unwrap();
        assert_eq!(fs::read_to_string(kept.join("sub/rows")).unwrap(), "old");
        replace(&kept, &run).unwrap();
        assert!(run.join("sub/rows").is_file() && !run.join("other").exists());
        // What the checkpoint does not have is gone.
        replace(&tmp.path().join("checkpoint/none"), &run).unwrap();
        assert!(!run.exists());
    }
}
