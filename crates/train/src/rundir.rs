//! The folder of a run: what was asked, where it ran, what came out.

use crate::config::differences;
use crate::environment;
use crate::lock::{LOCK, Lock};
use crate::resume::check_changes;
use crate::{Error, Result, RunOptions};
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
    /// Whether the folder was made for this run.
    made: bool,
    _lock: Lock,
}

const CONFIG: &str = "config.toml";
/// Before the time of a resume that changed the config.
const RESUMED: &str = "config.resumed-";
/// Records that were given passages for a run before it began; part of the run, made before its config.
pub const RETRIEVED: &str = "retrieved";
/// Rows of the data that were set aside: also what a start that failed leaves, since its message speaks of them.
const BAD_ROWS: &str = "bad_rows.jsonl";
/// As `sha256sum` writes it: `sha256sum -c config.hash` checks it.
const HASH: &str = "config.hash";

impl RunDir {
    /// Creates the folder of a run, or opens it again to resume. `config`: the resolved one, as TOML; on a resume it may
    /// differ from the run's as [`crate::resume`] says and is then kept beside it.
    ///
    /// # Errors
    /// A folder that holds a run already (without `resume`), none to resume, a config that differs in what cannot
    /// change, or another process in it.
    pub fn open(config: &str, options: &RunOptions, device: Device) -> Result<Self> {
        let (path, resume) = (options.out.as_path(), options.resume);
        // Looked at before anything is made, and once more when nobody else can be at it.
        may_be_opened(path, resume)?;
        let made = !path.exists();
        fs::create_dir_all(path)?;
        let lock = Lock::take(path)?;
        may_be_opened(path, resume)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if resume {
            same_config(path, config, now, &options.allow)?;
        } else if let Some(key) = options.allow.first() {
            return fail(path, format!("--allow {key} goes with --resume"));
        } else {
            write_config(path, config)?;
        }
        let name = if resume { format!("environment.resumed-{now}.json") } else { "environment.json".into() };
        let file = path.join(name);
        let facts = environment::describe(device, now, resume);
        let text =
            serde_json::to_vec_pretty(&facts).map_err(|source| Error::Json { path: file.clone(), source })?;
        write_atomic(&file, &text)?;
        Ok(Self { path: path.into(), made, _lock: lock })
    }

    /// A start of the run; one that goes on is none, and takes nothing back.
    pub(crate) fn start(&self, resumes: bool) -> Start {
        Start { path: self.path.clone(), made: self.made, armed: !resumes }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the config that a run has: that of its start, or of the last resume that changed it.
    ///
    /// # Errors
    /// No run.
    pub fn config_of(path: &Path) -> Result<PathBuf> {
        let mut all = vec![path.join(CONFIG)];
        fs::metadata(&all[0])?;
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(RESUMED) && name.ends_with(".toml") {
                all.push(path.join(name));
            }
        }
        // The numbers in the names are times of as many digits.
        all[1..].sort_unstable();
        Ok(all.pop().unwrap_or_default())
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
            let leftover = name.starts_with('.') && name.ends_with(".ragduet");
            if ![LOCK, HASH, RETRIEVED, BAD_ROWS].contains(&name.as_str()) && !leftover {
                return fail(
                    path,
                    "not empty; continue that run with --resume, or choose another --out".into(),
                );
            }
        }
    }
    Ok(())
}

fn same_config(path: &Path, config: &str, now: u64, allow: &[String]) -> Result<()> {
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
    let changed = differences(&fs::read_to_string(RunDir::config_of(path)?)?, config);
    if !changed.is_empty() && !has_learned(path)? {
        tracing::info!("nothing is learned yet: the run begins with other values of {}", changed.join(", "));
        return write_config(path, config);
    }
    check_changes(path, &changed, allow, is_joint(config))?;
    if !changed.is_empty() {
        tracing::info!("resuming with other values of {}", changed.join(", "));
        write_atomic(&path.join(format!("{RESUMED}{now}.toml")), config.as_bytes())?;
    }
    Ok(())
}

/// The config last: a folder with a config is one that can be resumed.
fn write_config(path: &Path, config: &str) -> Result<()> {
    write_atomic(&path.join(HASH), hash_line(config).as_bytes())?;
    Ok(write_atomic(&path.join(CONFIG), config.as_bytes())?)
}

/// Whether a run has a checkpoint or a model: something that other settings would not give.
fn has_learned(path: &Path) -> Result<bool> {
    let checkpoints = path.join("checkpoints");
    Ok(path.join("best").exists() || checkpoints.is_dir() && fs::read_dir(checkpoints)?.next().is_some())
}

/// Whether a config is of a run that trains retriever and generator together.
fn is_joint(config: &str) -> bool {
    toml::from_str::<toml::Table>(config)
        .is_ok_and(|t| ["retriever", "generator"].iter().all(|k| t.contains_key(*k)))
}

/// A run that is being started. Dropped before it has [`succeeded`](Self::succeeded), it takes back what it has written.
#[derive(Debug)]
pub(crate) struct Start {
    path: PathBuf,
    made: bool,
    armed: bool,
}

impl Start {
    /// The run has begun: what it writes from here on stays.
    pub(crate) fn succeeded(&mut self) {
        self.armed = false;
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // The folder held nothing before but what is kept here. The first error is the one that is reported.
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_name().to_str() {
                Some(LOCK | RETRIEVED | BAD_ROWS) => continue,
                _ if path.is_dir() => drop(fs::remove_dir_all(path)),
                _ => drop(fs::remove_file(path)),
            }
        }
        if self.made {
            // The lock goes first where nothing else is left; a folder with something in it stays.
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn hash_line(config: &str) -> String {
    let hex: String = Sha256::digest(config.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{hex}  {CONFIG}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, config: &str, resume: bool) -> Result<RunDir> {
        RunDir::open(config, &RunOptions { resume, ..RunOptions::new(path) }, Device::Cpu)
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
        fs::create_dir(path.join("best")).unwrap();
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
    fn changed_settings_are_kept_and_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let text = |lr, epochs, every| {
            format!("[run]\nlog_every = {every}\nepochs = {epochs}\n[optim]\nlr = {lr}\neps = {lr}\n")
        };
        drop(open(&path, &text(0.1, 1, 5), false).unwrap());
        fs::create_dir(path.join("best")).unwrap();
        assert_eq!(RunDir::config_of(&path).unwrap(), path.join(CONFIG));
        drop(open(&path, &text(0.1, 1, 7), true).unwrap());
        let kept = RunDir::config_of(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), text(0.1, 1, 7));
        let allowing = |config: &str, allow: &[&str]| {
            let allow = allow.iter().map(|a| (*a).to_string()).collect();
            RunDir::open(config, &RunOptions { resume: true, allow, ..RunOptions::new(&path) }, Device::Cpu)
        };
        let e = allowing(&text(0.1, 2, 7), &[]).unwrap_err().to_string();
        assert!(e.contains("--allow run.epochs"), "{e}");
        let e = allowing(&text(0.2, 2, 7), &["run.epochs", "optim.lr"]).unwrap_err().to_string();
        assert!(e.contains("differing: optim.eps."), "{e}");
        std::fs::write(path.join("config.resumed-9999999999.toml"), text(0.1, 1, 7)).unwrap();
        drop(allowing(&text(0.1, 1, 7), &[]).unwrap());
        let e = RunDir::open(
            &text(0.1, 1, 7),
            &RunOptions { allow: vec!["batch".into()], ..RunOptions::new(dir.path().join("new")) },
            Device::Cpu,
        );
        assert!(e.unwrap_err().to_string().contains("goes with --resume"));
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
    fn a_start_that_failed_leaves_nothing_and_before_a_checkpoint_any_setting_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let run = open(&path, "a = 1\n", false).unwrap();
        drop((run.start(false), run));
        assert!(!path.exists());
        fs::create_dir_all(path.join(RETRIEVED)).unwrap();
        let run = open(&path, "a = 2\n", false).unwrap();
        fs::create_dir(path.join("teacher")).unwrap();
        fs::write(path.join(BAD_ROWS), "row").unwrap();
        drop((run.start(false), run));
        let mut left: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [BAD_ROWS, RETRIEVED]);
        let run = open(&path, "a = 3\n", false).unwrap();
        let mut start = run.start(false);
        start.succeeded();
        drop((start, run));
        drop(open(&path, "a = 4\n", true).unwrap());
        assert_eq!(fs::read_to_string(path.join(CONFIG)).unwrap(), "a = 4\n");
        fs::create_dir_all(path.join("checkpoints/step-000000001")).unwrap();
        assert!(fails(&path, "a = 5\n", true).contains("differing: a."));
    }

    #[test]
    fn a_start_that_was_killed_leaves_a_folder_that_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        for file in [LOCK, HASH, ".config.hash.77-0.ragduet", ".config.toml.77-0.ragduet"] {
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
