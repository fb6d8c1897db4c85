//! Checkpoints: complete or absent, verified, the last few kept, the best kept apart.

use crate::{Error, Result};
use fs_err as fs;
pub use ragduet_files::recover;
use ragduet_files::{OutputFolder, clear};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SaveConfig {
    /// Optimizer steps between checkpoints; 0: at the end only.
    pub every_steps: u64,
    /// Number of checkpoints kept; older ones are deleted.
    pub keep: usize,
}

impl Default for SaveConfig {
    fn default() -> Self {
        Self { every_steps: 200, keep: 2 }
    }
}

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
    /// In `<run>/checkpoints`, keeping the last `keep` (at least 1). What a killed process left half-done is put
    /// back or removed.
    pub fn open(run: &Path, keep: usize) -> Result<Self> {
        let dir = run.join("checkpoints");
        fs::create_dir_all(&dir)?;
        clear(&dir);
        let found: Vec<PathBuf> =
            fs::read_dir(&dir)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
        for path in found.iter().filter(|p| p.extension().is_some_and(|e| e == "tmp")) {
            fs::remove_dir_all(path)?;
        }
        for path in &found {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(step) = name.strip_prefix('.').and_then(|n| n.strip_suffix(".old.ragduet")) {
                recover(dir.join(step))?;
            }
        }
        Ok(Self { dir, keep: keep.max(1) })
    }

    /// Writes the checkpoint of a step: `write` fills a temporary folder, which is synced and renamed. Then removes
    /// what is over the number to keep, and checkpoints of later steps: they are damaged ones that a resume passed
    /// over, and training takes another course from here.
    pub fn save<E: From<Error>>(
        &self,
        step: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let target = self.dir.join(format!("step-{step:09}"));
        replace_dir(&target, write)?;
        let (past, left): (Vec<_>, Vec<_>) = self.list()?.into_iter().partition(|(s, _)| *s <= step);
        for (_, path) in &left {
            tracing::warn!("{}: removed; training goes on from before it", path.display());
        }
        let excess = past.len().saturating_sub(self.keep);
        for (_, path) in past.iter().take(excess).chain(&left) {
            discard(path);
        }
        Ok(target)
    }

    /// The newest checkpoint that is complete; damaged ones are named and passed over. `None`: there is none yet.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where there are checkpoints but all are damaged: starting from step 0 would throw the
    /// run away unasked.
    pub fn latest(&self) -> Result<Option<(u64, PathBuf)>> {
        let mut newest = None;
        for (step, path) in self.list()?.into_iter().rev() {
            match check(&path) {
                Ok(()) => return Ok(Some((step, path))),
                Err(e) => {
                    tracing::warn!("{e}; trying the one before");
                    newest.get_or_insert(e);
                }
            }
        }
        match newest {
            None => Ok(None),
            Some(e) => Err(Error::Checkpoint {
                path: self.dir.clone(),
                why: format!(
                    "no checkpoint here is complete; the newest: {e}. Start a new run with --out, or remove this \
                     folder to begin this one again"
                ),
            }),
        }
    }

    /// Steps and folders, by step.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if let Some(step) = step_of(&path) {
                all.push((step, path));
            }
        }
        all.sort();
        Ok(all)
    }
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Removes a folder under another name first: killed in the midst of it, no folder with half its files is left that
/// looks like a damaged checkpoint. That it cannot be removed is no reason to stop training.
fn discard(path: &Path) {
    let away = sibling(path, ".tmp");
    let removed = fs::rename(path, &away).and_then(|()| fs::remove_dir_all(&away));
    if let Err(e) = removed {
        tracing::warn!("an old checkpoint stays: {e}");
    }
}

/// Fills a folder, writes a manifest and puts it in the place of `target`, which is the run's own, whole or not at all.
///
/// # Errors
/// Those of `write`; a folder that cannot be written.
pub fn replace_dir<E: From<Error>>(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    fill(OutputFolder::replacing_own(target).map_err(Error::from)?, write)
}

/// Fills a new folder, writes a manifest and gives it its name, whole or not at all.
///
/// # Errors
/// A folder of that name that holds something; those of `write`; a folder that cannot be written.
pub fn new_dir<E: From<Error>>(target: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    fill(OutputFolder::create(target).map_err(Error::from)?, write)
}

/// Fills a folder, writes a manifest and puts it in the place of one that holds nothing but files of these names.
///
/// # Errors
/// A folder that holds something else; those of `write`; a folder that cannot be written.
pub fn replace_files<E: From<Error>>(
    target: &Path,
    names: &[&str],
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let ours = |name: &std::ffi::OsStr| name == MANIFEST || names.iter().any(|n| name == *n);
    fill(OutputFolder::replacing(target, ours).map_err(Error::from)?, write)
}

fn fill<E: From<Error>>(
    folder: OutputFolder<'_>,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    write(folder.path())?;
    seal(folder.path())?;
    Ok(folder.finish().map_err(Error::from)?)
}

/// Writes the manifest.
fn seal(dir: &Path) -> Result<()> {
    let manifest = Manifest { files: digest(dir, dir)? };
    let path = dir.join(MANIFEST);
    let text = serde_json::to_vec(&manifest).map_err(|source| Error::Json { path: path.clone(), source })?;
    Ok(ragduet_files::write(path, text)?)
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
        // Training went on from step 10: the damaged one of step 15 must not push the new one out.
        let c = Checkpoints::open(dir.path(), 1).unwrap();
        let new = c.save(12, fill("z")).unwrap();
        assert_eq!(c.list().unwrap(), [(12, new.clone())]);
        assert_eq!(c.latest().unwrap(), Some((12, new.clone())));
        // Starting over from step 0 is not for the program to decide.
        fs::remove_file(new.join("manifest.json")).unwrap();
        let e = c.latest().unwrap_err().to_string();
        assert!(e.contains("no manifest.json") && e.contains("--out"), "{e}");
    }

    #[test]
    fn a_missing_and_a_longer_file_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("best");
        replace_dir(&target, fill("x")).unwrap();
        check(&target).unwrap();
        fs::write(target.join("b"), "bb").unwrap();
        assert!(check(&target).unwrap_err().to_string().contains("b differs"));
        fs::remove_file(target.join("b")).unwrap();
        assert!(check(&target).unwrap_err().to_string().contains("b is missing"));
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
        assert_eq!(
            fs::read_dir(dir.path().join("checkpoints")).unwrap().count(),
            1,
            "its space is given back"
        );
        // Killed while writing step 3, and between the two renames of step 1.
        fs::create_dir(dir.path().join("checkpoints/step-000000003.tmp")).unwrap();
        fs::create_dir(dir.path().join("checkpoints/.step-000000003.77-0.ragduet")).unwrap();
        let one = dir.path().join("checkpoints/step-000000001");
        fs::rename(&one, dir.path().join("checkpoints/.step-000000001.old.ragduet")).unwrap();
        let c = Checkpoints::open(dir.path(), 3).unwrap();
        assert_eq!(c.latest().unwrap().unwrap().0, 1);
        assert_eq!(fs::read_dir(dir.path().join("checkpoints")).unwrap().count(), 1);
        // Killed between the two renames of a replacement.
        let best = dir.path().join("best");
        replace_dir(&best, fill("old")).unwrap();
        fs::rename(&best, dir.path().join(".best.old.ragduet")).unwrap();
        recover(&best).unwrap();
        assert!(check(&best).is_ok());
        replace_dir(&best, fill("new")).unwrap();
        assert_eq!(fs::read_to_string(best.join("sub/a")).unwrap(), "new");
    }
}
