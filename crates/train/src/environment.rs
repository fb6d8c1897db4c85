//! What a run records of where it ran: enough to tell why two runs of one config differ.

use fs_err as fs;
use ragduet_torch::{Device, device};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The facts, as they go into `environment.json`.
pub(crate) fn describe(device: Device, now: u64, resumed: bool) -> Value {
    let libtorch = libtorch();
    json!({
        "ragduet": env!("CARGO_PKG_VERSION"),
        "git": git_revision(),
        "libtorch": libtorch.as_deref().and_then(libtorch_version),
        "libtorch_path": libtorch,
        "command": std::env::args().collect::<Vec<_>>(),
        "directory": std::env::current_dir().ok(),
        "device": format!("{device:?}"),
        "cpu": device::cpu_capabilities(),
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "omp_num_threads": std::env::var("OMP_NUM_THREADS").ok(),
        "memory": device::memory(device).ok(),
        "host": host(),
        "kernel": first_line("/proc/version"),
        "process": std::process::id(),
        "started_unix": now,
        "resumed": resumed,
    })
}

/// This machine's name.
pub(crate) fn host() -> Option<String> {
    first_line("/proc/sys/kernel/hostname")
}

fn first_line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path.as_ref()).ok()?.lines().next().map(str::to_string)
}

/// The revision of the repository the command was started in, with `-dirty` where files differ from it.
fn git_revision() -> Option<String> {
    let out = Command::new("git")
        .args(["--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    (out.status.success() && !text.trim().is_empty()).then(|| text.trim().to_string())
}

/// The folder of the libtorch that this process has loaded, which may be another than it was built against.
fn libtorch() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|l| l.ends_with("/libtorch_cpu.so"))?;
    Some(Path::new(&line[line.find('/')?..]).parent()?.parent()?.to_path_buf())
}

fn libtorch_version(root: &Path) -> Option<String> {
    // The zip has a file for it, the wheel a line of Python.
    first_line(root.join("build-version")).or_else(|| {
        let text = fs::read_to_string(root.join("version.py")).ok()?;
        let line = text.lines().find(|l| l.starts_with("__version__"))?;
        line.split('\'').nth(1).map(str::to_string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_needed_to_repeat_a_run() {
        let facts = describe(Device::Cpu, 5, false);
        assert!(facts["libtorch"].as_str().unwrap().starts_with("2.11"), "{facts}");
        assert!(!facts["command"].as_array().unwrap().is_empty());
        assert_eq!((&facts["device"], &facts["started_unix"]), (&json!("Cpu"), &json!(5)));
        assert!(facts["cpu"]["capability"].is_string() && facts["host"].is_string());
        // Tests run inside the repository, unless it was copied without its history.
        if Command::new("git").args(["rev-parse", "HEAD"]).output().is_ok_and(|o| o.status.success()) {
            let git = facts["git"].as_str().unwrap();
            assert!(git.trim_end_matches("-dirty").len() == 40, "{git}");
        }
    }
}
