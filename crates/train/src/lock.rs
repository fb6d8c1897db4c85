//! One process per run folder.
//!
//! The kernel holds the lock (`flock`) and gives it up when the process ends, however it ends. The file also names
//! its owner: for the message, and for filesystems that have no such locks (some network ones), where the owner is
//! looked up in /proc.

use crate::environment::host;
use crate::{Error, Result};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The lock's file in a run folder.
pub(crate) const LOCK: &str = "run.lock";

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: fs::File,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    pid: u32,
    host: Option<String>,
    /// When the process started, in ticks since boot: pids come again, in containers right after a restart.
    started: Option<u64>,
}

impl Owner {
    fn me() -> Self {
        let pid = std::process::id();
        Self { pid, host: host(), started: started(pid) }
    }

    /// A bare pid is what an earlier version wrote.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        serde_json::from_str(text)
            .ok()
            .or_else(|| Some(Self { pid: text.parse().ok()?, host: None, started: None }))
    }

    /// Whether it runs; `None` where it is on another machine, which this one cannot look into.
    fn runs(&self) -> Option<bool> {
        if self.host.is_some() && self.host != host() {
            return None;
        }
        let now = started(self.pid);
        Some(now.is_some() && (self.started.is_none() || self.started == now))
    }
}

/// The 22nd field of /proc/<pid>/stat; the second, the name, may hold spaces and brackets.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

impl Lock {
    /// Takes the lock of a run folder. One left by a process that is gone is taken over.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        let fail = |why: String| Error::RunDir { path: dir.into(), why };
        // An owner that ends removes the file; whoever had opened it by then holds the lock of no file, and looks
        // again.
        for _ in 0..16 {
            let mut file =
                fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let locked = match flock(file.file(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => true,
                Err(Errno::NOSYS | Errno::NOTSUP | Errno::NOLCK | Errno::INVAL) => false,
                Err(Errno::WOULDBLOCK) => {
                    let who = Owner::parse(&fs::read_to_string(&path).unwrap_or_default())
                        .map_or("another process".into(), |o| format!("process {}", o.pid));
                    return Err(fail(format!("{who} is running in it; wait for it or stop it")));
                }
                Err(e) => return Err(fail(format!("{LOCK}: {}", std::io::Error::from(e)))),
            };
            let open = file.metadata()?;
            if !fs::metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (open.dev(), open.ino())) {
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            if let Some(owner) = Owner::parse(&text).filter(|o| *o != Owner::me()) {
                match owner.runs() {
                    Some(true) => {
                        let pid = owner.pid;
                        return Err(fail(format!("process {pid} is running in it; wait for it or stop it")));
                    }
                    None if !locked => {
                        return Err(fail(format!(
                            "process {} on {} may be running in it; if it is not, remove {LOCK}",
                            owner.pid,
                            owner.host.unwrap_or_default()
                        )));
                    }
                    _ => {}
                }
            }
            let me = serde_json::to_string(&Owner::me())
                .map_err(|source| Error::Json { path: path.clone(), source })?;
            file.set_len(0)?;
            std::io::Seek::rewind(&mut file)?;
            file.write_all(me.as_bytes())?;
            return Ok(Self { path, _file: file });
        }
        Err(fail("other processes are just taking it".into()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held. If it cannot be, the next process sees that nobody holds it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn fails(dir: &Path) -> String {
        Lock::take(dir).unwrap_err().to_string()
    }

    #[test]
    fn one_at_a_time_also_within_a_process() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let e = fails(dir.path());
        assert!(e.contains(&format!("process {} is running", std::process::id())), "{e}");
        drop(lock);
        assert!(!dir.path().join(LOCK).exists());
        drop(Lock::take(dir.path()).unwrap());
    }

    #[test]
    fn what_a_killed_process_left_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join(LOCK), text).unwrap();
        let host = host().unwrap();
        let gone = format!("{{\"pid\":4194999,\"host\":\"{host}\",\"started\":1}}");
        // The pid came again: process 1 runs, but was not started then.
        let reused = format!("{{\"pid\":1,\"host\":\"{host}\",\"started\":987654321987}}");
        // The kernel gave the lock, so the owner on the other machine is gone.
        let elsewhere = "{\"pid\":1,\"host\":\"no-such-host\",\"started\":1}".to_string();
        for text in ["", "4194999", "garbage", &gone, &reused, &elsewhere] {
            write(text);
            drop(Lock::take(dir.path()).unwrap_or_else(|e| panic!("{text}: {e}")));
        }
        write("1");
        assert!(fails(dir.path()).contains("process 1 is running"));
        let alive = Owner { pid: 1, host: Some(host), started: started(1) };
        write(&serde_json::to_string(&alive).unwrap());
        assert!(fails(dir.path()).contains("process 1 is running"));
    }

    #[test]
    fn many_at_once_hold_it_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, held) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(_lock) = Lock::take(dir.path()) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            held.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(held.load(Ordering::SeqCst) > 8);
    }
}
