//! The folder of a run: what was asked, where it ran, what came out.

use crate::config::differences;
use crate::environment;
use crate::groups::matches_pattern;
use crate::lock::{LOCK, Lock};
use crate::{Error, Result};
use fs_err as fs;
use ragduet_torch::Device;
use ragduet_torch::weights::write_atomic;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open run folder. Holds a lock until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: Lock,
}

const CONFIG: &str = "config.toml";
/// Records that were given passages for a run before it began; part of the run, made before its config.
pub const RETRIEVED: &str = "retrieved";
/// As `sha256sum` writes it: `sha256sum -c config.hash` checks it.
const HASH: &str = "config.hash";

impl RunDir {
    /// Creates the folder, or opens it again to resume with the very config of the run.
    ///
    /// # Errors
    /// As [`RunDir::open_with`].
    pub fn open(path: &Path, config: &str, resume: bool, device: Device) -> Result<Self> {
        Self::open_with(path, config, resume, device, &[])
    }

    /// Creates the folder, or opens it again to resume. `config` is the resolved one, as TOML; on a resume it may
    /// differ from the run's at the keys in `may_differ` (patterns as in `optim.freeze`) and is then kept beside it.
    ///
    /// # Errors
    /// A folder that holds a run already (without `resume`), none to resume, another config than the run's, or
    /// another process in it.
    pub fn open_with(
        path: &Path,
        config: &str,
        resume: bool,
        device: Device,
        may_differ: &[&str],
    ) -> Result<Self> {
        // Looked at before anything is made, and once more when nobody else can be at it.
        may_be_opened(path, resume)?;
        fs::create_dir_all(path)?;
        let lock = Lock::take(path)?;
        may_be_opened(path, resume)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if resume {
            same_config(path, config, now, may_differ)?;
        } else {
            // The config last: a folder with a config is one that can be resumed.
            write_atomic(&path.join(HASH), hash_line(config).as_bytes())?;
            write_atomic(&path.join(CONFIG), config.as_bytes())?;
        }
        let name = if resume { format!("environment.resumed-{now}.json") } else { "environment.json".into() };
        let file = path.join(name);
        let facts = environment::describe(device, now, resume);
        let text =
            serde_json::to_vec_pretty(&facts).map_err(|source| Error::Json { path: file.clone(), source })?;
        write_atomic(&file, &text)?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The config a run was started with.
    pub fn config_of(path: &Path) -> Result<String> {
        Ok(fs::read_to_string(path.join(CONFIG))?)
    }
}

fn fail<T>(path: &Path, why: String) -> Result<T> {
    Err(Error::RunDir { path: path.into(), why })
}

fn may_be_opened(path: &Path, resume: bool) -> Result<()> {
    if resume {
        if !path.join(CONFIG).is_file() {
            return fail(path, "no run to resume here (config.toml is missing)".into());
        }
    } else if path.exists() {
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // What a start that was killed before the config was there leaves behind.
            let leftover = [CONFIG, HASH].iter().any(|f| name.starts_with(&format!("{f}.tmp")));
            if name != LOCK && name != HASH && name != RETRIEVED && !leftover {
                return fail(
                    path,
                    "not empty; continue that run with --resume, or choose another --out".into(),
                );
            }
        }
    }
    Ok(())
}

fn same_config(path: &Path, config: &str, now: u64, may_differ: &[&str]) -> Result<()> {
    let before = fs::read_to_string(path.join(CONFIG))?;
    // Earlier versions wrote a shorter hash, of another kind.
    let hash = fs::read_to_string(path.join(HASH)).unwrap_or_default();
    if hash.split_whitespace().next().is_some_and(|h| h.len() == 64) && hash != hash_line(&before) {
        return fail(
            path,
            "config.toml was changed after the run was started (config.hash tells); put it back, or start a new run \
             with --out"
                .into(),
        );
    }
    let all = differences(&before, config);
    let changed: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|key| !may_differ.iter().any(|p| matches_pattern(p, key)))
        .collect();
    if !changed.is_empty() {
        return fail(
            path,
            format!(
                "the run was started with another config; differing: {}. Resume with the same settings, or start a \
                 new run with --out",
                changed.join(", ")
            ),
        );
    }
    if !all.is_empty() {
        tracing::info!("resuming with other values of {}", all.join(", "));
        write_atomic(&path.join(format!("config.resumed-{now}.toml")), config.as_bytes())?;
    }
    Ok(())
}

fn hash_line(config: &str) -> String {
    let hex: String = Sha256::digest(config.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{hex}  {CONFIG}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, config: &str, resume: bool) -> Result<RunDir> {
        RunDir::open(path, config, resume, Device::Cpu)
    }

    fn fails(path: &Path, config: &str, resume: bool) -> String {
        open(path, config, resume).unwrap_err().to_string()
    }

    #[test]
    fn a_run_is_not_overwritten_and_only_resumed_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let e = fails(&path, "a = 1", true);
        assert!(e.contains("no run to resume") && !path.exists(), "{e}");
        let run = open(&path, "a = 1\nb = 2", false).unwrap();
        let e = fails(&path, "a = 1\nb = 2", true);
        assert!(e.contains("is running in it"), "{e}");
        drop(run);
        let e = fails(&path, "a = 1\nb = 2", false);
        assert!(e.contains("--resume"), "{e}");
        let e = fails(&path, "a = 1\nb = 3", true);
        assert!(e.contains("differing: b."), "{e}");
        // A lock left by a killed process does not block; one of a living process does.
        std::fs::write(path.join(LOCK), "4194999").unwrap();
        drop(open(&path, "a = 1\nb = 2", true).unwrap());
        std::fs::write(path.join(LOCK), "1").unwrap();
        let e = fails(&path, "a = 1\nb = 2", true);
        assert!(e.contains("process 1 is running"), "{e}");
    }

    #[test]
    fn harmless_keys_may_differ_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let (old, new) = ("lr = 1.0\n[log]\nevery = 1\n", "lr = 1.0\n[log]\nevery = 5\n");
        drop(open(&path, old, false).unwrap());
        let again = |config, keys: &[&str]| RunDir::open_with(&path, config, true, Device::Cpu, keys);
        assert!(again(new, &["log.file"]).unwrap_err().to_string().contains("log.every"));
        drop(again(new, &["log"]).unwrap());
        assert_eq!(RunDir::config_of(&path).unwrap(), old);
        let kept = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path());
        let kept: Vec<_> = kept.filter(|p| p.to_string_lossy().contains("config.resumed")).collect();
        assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), new);
    }

    #[test]
    fn a_config_that_was_edited_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        drop(open(&path, "a = 1\n", false).unwrap());
        // The check value of SHA-256 over these bytes, from sha256sum.
        let hash = std::fs::read_to_string(path.join(HASH)).unwrap();
        assert_eq!(hash, "cb78bd8a17f7b751fe0d4663366dcbc257204033ef7ddd64b1f2969573b5b2e2  config.toml\n");
        std::fs::write(path.join(CONFIG), "a = 2\n").unwrap();
        let e = fails(&path, "a = 2\n", true);
        assert!(e.contains("changed after the run was started"), "{e}");
        // A run of an earlier version.
        std::fs::write(path.join(HASH), "0badcafe\n").unwrap();
        drop(open(&path, "a = 2\n", true).unwrap());
    }

    #[test]
    fn a_start_that_was_killed_leaves_a_folder_that_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        for file in [LOCK, HASH, "config.hash.tmp77", "config.toml.tmp77"] {
            std::fs::write(dir.path().join(file), "4194999").unwrap();
        }
        drop(open(dir.path(), "a = 1\n", false).unwrap());
        drop(open(dir.path(), "a = 1\n", true).unwrap());
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("thesis.tex"), "").unwrap();
        assert!(fails(other.path(), "a = 1\n", false).contains("not empty"));
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 1, "nothing was put there");
    }
}
