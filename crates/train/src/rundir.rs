//! The folder of a run: what was asked, where it ran, what came out.

use crate::config::differences;
use crate::{Error, Result};
use fs_err as fs;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Device, device};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An open run folder. Holds a lock until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

const LOCK: &str = "run.lock";
const CONFIG: &str = "config.toml";

impl RunDir {
    /// Creates the folder, or opens it again to resume.
    ///
    /// # Errors
    /// A folder that holds a run already (without `resume`), none to resume, another config than the run's, or
    /// another process in it.
    pub fn open(path: &Path, config: &str, resume: bool, device: Device) -> Result<Self> {
        let fail = |why: String| Error::RunDir { path: path.into(), why };
        let config_path = path.join(CONFIG);
        if resume {
            if !config_path.is_file() {
                return Err(fail("no run to resume here (config.toml is missing)".into()));
            }
            let before = fs::read_to_string(&config_path)?;
            let changed = differences(&before, config);
            if !changed.is_empty() {
                return Err(fail(format!(
                    "the run was started with another config; differing: {}. Resume with the same settings, or start \
                     a new run with --out",
                    changed.join(", ")
                )));
            }
        } else if path.exists() && fs::read_dir(path)?.next().is_some() {
            return Err(fail("not empty; continue that run with --resume, or choose another --out".into()));
        }
        fs::create_dir_all(path)?;
        lock(path)?;
        let run = Self { path: path.into() };
        if !resume {
            write_atomic(&config_path, config.as_bytes())?;
            let hash = format!("{:08x}\n", crc32fast::hash(config.as_bytes()));
            write_atomic(&path.join("config.hash"), hash.as_bytes())?;
        }
        run.note_environment(device, resume)?;
        Ok(run)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The config a run was started with.
    pub fn config_of(path: &Path) -> Result<String> {
        Ok(fs::read_to_string(path.join(CONFIG))?)
    }

    fn note_environment(&self, device: Device, resumed: bool) -> Result<()> {
        let first_line =
            |p: &str| fs::read_to_string(p).ok().and_then(|s| s.lines().next().map(str::to_string));
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let facts = json!({
            "ragduet": env!("CARGO_PKG_VERSION"),
            "command": std::env::args().collect::<Vec<_>>(),
            "directory": std::env::current_dir().ok(),
            "device": format!("{device:?}"),
            "cpu": device::cpu_capabilities(),
            "threads": std::thread::available_parallelism().map_or(1, usize::from),
            "memory": device::memory(device).ok(),
            "host": first_line("/proc/sys/kernel/hostname"),
            "kernel": first_line("/proc/version"),
            "started_unix": now,
            "resumed": resumed,
        });
        let name =
            if resumed { format!("environment.resumed-{now}.json") } else { "environment.json".into() };
        let text = serde_json::to_vec_pretty(&facts)
            .map_err(|source| Error::Json { path: self.path.join(&name), source })?;
        Ok(write_atomic(&self.path.join(name), &text)?)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // If it cannot be removed, the next run sees that its process is gone.
        let _ = fs::remove_file(self.path.join(LOCK));
    }
}

/// Takes the lock; one left by a process that is gone is taken over.
fn lock(path: &Path) -> Result<()> {
    let file = path.join(LOCK);
    for _ in 0..2 {
        match fs::OpenOptions::new().write(true).create_new(true).open(&file) {
            Ok(mut f) => {
                write!(f, "{}", std::process::id())?;
                return Ok(());
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let owner = fs::read_to_string(&file).unwrap_or_default();
                let alive = owner.trim().parse::<u32>().is_ok_and(|pid| {
                    pid != std::process::id() && Path::new(&format!("/proc/{pid}")).exists()
                });
                if alive {
                    let why = format!("process {} is running in it; wait for it or stop it", owner.trim());
                    return Err(Error::RunDir { path: path.into(), why });
                }
                fs::remove_file(&file)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(Error::RunDir { path: path.into(), why: "another process is just taking it".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_not_overwritten_and_only_resumed_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let e = RunDir::open(&path, "a = 1", true, Device::Cpu).unwrap_err().to_string();
        assert!(e.contains("no run to resume"), "{e}");
        drop(RunDir::open(&path, "a = 1\nb = 2", false, Device::Cpu).unwrap());
        let e = RunDir::open(&path, "a = 1\nb = 2", false, Device::Cpu).unwrap_err().to_string();
        assert!(e.contains("--resume"), "{e}");
        let e = RunDir::open(&path, "a = 1\nb = 3", true, Device::Cpu).unwrap_err().to_string();
        assert!(e.contains("differing: b"), "{e}");
        // A lock left by a killed process does not block.
        std::fs::write(path.join(LOCK), "4194999").unwrap();
        let run = RunDir::open(&path, "a = 1\nb = 2", true, Device::Cpu).unwrap();
        // One of a living process does.
        std::fs::write(path.join(LOCK), "1").unwrap();
        let e = RunDir::open(&path, "a = 1\nb = 2", true, Device::Cpu).unwrap_err().to_string();
        assert!(e.contains("process 1 is running"), "{e}");
        drop(run);
    }
}
