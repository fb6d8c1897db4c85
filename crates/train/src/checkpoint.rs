//! Checkpoints: complete or absent, verified, the last few kept, the best kept apart.

use crate::{Error, Result};
use fs_err as fs;
use ragduet_torch::weights::write_atomic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";

/// Size and checksum of every file of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, (u64, u32)>,
}

/// The checkpoints of a run.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// In `<run>/checkpoints`, keeping the last `keep` (at least 1). Leftovers of a killed process are removed.
    pub fn open(run: &Path, keep: usize) -> Result<Self> {
        let dir = run.join("checkpoints");
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(Self { dir, keep: keep.max(1) })
    }

    /// Writes the checkpoint of a step: `write` fills a temporary folder, which is synced and renamed.
    pub fn save<E: From<Error>>(
        &self,
        step: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let target = self.dir.join(format!("step-{step:09}"));
        replace_dir(&target, write)?;
        // Later steps are damaged ones that a resume passed over: they are superseded now.
        let (past, superseded): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|p| step_of(p).is_some_and(|s| s <= step));
        for old in past.iter().rev().skip(self.keep).chain(&superseded) {
            fs::remove_dir_all(old).map_err(Error::from)?;
        }
        Ok(target)
    }

    /// The newest checkpoint that is complete; damaged ones are named and passed over.
    pub fn latest(&self) -> Result<Option<(u64, PathBuf)>> {
        for path in self.list()?.into_iter().rev() {
            match check(&path) {
                Ok(()) => {
                    let step = step_of(&path).unwrap_or(0);
                    return Ok(Some((step, path)));
                }
                Err(e) => tracing::warn!("{e}; trying the one before"),
            }
        }
        Ok(None)
    }

    fn list(&self) -> Result<Vec<PathBuf>> {
        let mut all: Vec<PathBuf> = fs::read_dir(&self.dir)?
            .map(|e| e.map(|e| e.path()))
            .collect::<std::io::Result<Vec<_>>>()?
            .into_iter()
            .filter(|p| step_of(p).is_some())
            .collect();
        all.sort();
        Ok(all)
    }
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Fills a folder under a temporary name, writes a manifest, syncs everything and puts it in the place of `target`.
/// Killed at any moment, `target` is the old or the new one; should it be killed between the two renames, the old one
/// lies beside it as `<name>.old` and [`recover`] puts it back.
pub fn replace_dir<E: From<Error>>(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let sibling = |ext: &str| {
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(ext);
        target.with_file_name(name)
    };
    let (tmp, old) = (sibling(".tmp"), sibling(".old"));
    recover(target)?;
    let prepare = || -> Result<()> {
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        Ok(fs::create_dir_all(&tmp)?)
    };
    prepare()?;
    write(&tmp)?;
    let put = || -> Result<()> {
        let manifest = Manifest { files: digest(&tmp, &tmp)? };
        let text = serde_json::to_vec(&manifest)
            .map_err(|source| Error::Json { path: tmp.join(MANIFEST), source })?;
        write_atomic(&tmp.join(MANIFEST), &text)?;
        sync_tree(&tmp)?;
        if target.exists() {
            fs::rename(target, &old)?;
        }
        fs::rename(&tmp, target)?;
        if let Some(parent) = target.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        Ok(())
    };
    put()?;
    Ok(())
}

/// Puts `<name>.old` back where a kill left no `<name>`.
pub fn recover(target: &Path) -> Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".old");
    let old = target.with_file_name(name);
    if old.exists() {
        if target.exists() {
            fs::remove_dir_all(&old)?;
        } else {
            fs::rename(&old, target)?;
        }
    }
    Ok(())
}

/// Whether every file is there with the size and checksum of the manifest.
pub fn check(dir: &Path) -> Result<()> {
    let damaged = |why: String| Error::Checkpoint { path: dir.into(), why };
    let path = dir.join(MANIFEST);
    let bytes = fs::read(&path).map_err(|_| damaged("no manifest.json".into()))?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|e| damaged(format!("manifest.json: {e}")))?;
    let found = digest(dir, dir)?;
    for (name, want) in &manifest.files {
        match found.get(name) {
            Some(have) if have == want => {}
            Some(_) => return Err(damaged(format!("{name} differs from its checksum"))),
            None => return Err(damaged(format!("{name} is missing"))),
        }
    }
    Ok(())
}

fn digest(root: &Path, dir: &Path) -> Result<BTreeMap<String, (u64, u32)>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            out.extend(digest(root, &path)?);
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        if name == MANIFEST {
            continue;
        }
        let (mut file, mut hasher, mut size) = (fs::File::open(&path)?, crc32fast::Hasher::new(), 0u64);
        let mut buf = vec![0u8; 1 << 20];
        loop {
            let n = file.read(&mut buf)?;
            if n == 0 {
                break;
            }
            hasher.update(&buf[..n]);
            size += n as u64;
        }
        out.insert(name, (size, hasher.finalize()));
    }
    Ok(out)
}

fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            fs::File::open(&path)?.sync_all()?;
        }
    }
    Ok(fs::File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |d: &Path| {
            fs::create_dir_all(d.join("sub"))?;
            fs::write(d.join("sub/a"), text)?;
            Ok(fs::write(d.join("b"), "b")?)
        }
    }

    #[test]
    fn keeps_the_last_and_passes_over_damaged_ones() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::open(dir.path(), 2).unwrap();
        assert!(c.latest().unwrap().is_none());
        for step in [5, 10, 15] {
            c.save(step, fill("x")).unwrap();
        }
        assert_eq!(c.list().unwrap().len(), 2);
        assert_eq!(c.latest().unwrap().unwrap().0, 15);
        fs::write(dir.path().join("checkpoints/step-000000015/sub/a"), "y").unwrap();
        assert_eq!(c.latest().unwrap().unwrap().0, 10);
        fs::remove_file(dir.path().join("checkpoints/step-000000010/manifest.json")).unwrap();
        assert!(c.latest().unwrap().is_none());
    }

    #[test]
    fn a_failed_or_killed_save_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let c = Checkpoints::open(dir.path(), 3).unwrap();
        c.save(1, fill("one")).unwrap();
        let failed: Result<PathBuf> = c.save(2, |d| {
            fs::write(d.join("half"), "h")?;
            Err(Error::RunDir { path: d.into(), why: "disk full".into() })
        });
        assert!(failed.is_err());
        let c = Checkpoints::open(dir.path(), 3).unwrap();
        assert_eq!(c.latest().unwrap().unwrap().0, 1);
        assert_eq!(fs::read_dir(dir.path().join("checkpoints")).unwrap().count(), 1);
        // Killed between the two renames of a replacement.
        let best = dir.path().join("best");
        replace_dir(&best, fill("old")).unwrap();
        fs::rename(&best, dir.path().join("best.old")).unwrap();
        recover(&best).unwrap();
        assert!(check(&best).is_ok());
        replace_dir(&best, fill("new")).unwrap();
        assert_eq!(fs::read_to_string(best.join("sub/a")).unwrap(), "new");
    }
}
