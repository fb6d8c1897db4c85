//! Temporary names, and the locks that tell whose writer is dead.

use crate::place::parent;
use fs_err as fs;
use rustix::fs::{FlockOperation, flock};
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Result};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const SUFFIX: &[u8] = b".ragduet";
/// Bytes of a target's name that its temporary's name begins with: a name has at most 255.
const MOST_OF_NAME: usize = 180;

/// A file or folder under a temporary name beside its target, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    /// Holds the lock: until it is closed, nobody takes the temporary for one of a dead process.
    lock: fs::File,
    kept: bool,
}

/// What is made under the temporary name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Folder,
}

impl Temporary {
    /// Begins one, and clears what dead processes left in the same folder.
    pub(crate) fn create(target: &Path, what: What) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = parent(target);
        clear(folder);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(name(target.file_name().unwrap_or_default(), number));
            let made = match what {
                What::File => fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path),
                What::Folder => fs::create_dir(&path).and_then(|()| fs::File::open(&path)),
            };
            let lock = match made {
                // One of a process that had this number before, on a filesystem without locks.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            let _ = flock(lock.file(), FlockOperation::NonBlockingLockExclusive);
            // Between its making and its lock another process may have taken it for a dead one's.
            if is_at(&lock, &path) {
                return Ok(Self { path, lock, kept: false });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was made, to write to.
    pub(crate) fn file(&self) -> &fs::File {
        &self.lock
    }

    /// Leaves what lies under the temporary name to the caller.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // What failed before is what is reported.
            let _ = remove(&self.path);
        }
    }
}

fn is_at(file: &fs::File, path: &Path) -> bool {
    let id = |m: &std::fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// `.<name>.<pid>-<number>.ragduet`
fn name(of: &OsStr, number: u64) -> OsString {
    let bytes = of.as_bytes();
    let mut name = OsString::from(".");
    name.push(OsStr::from_bytes(&bytes[..bytes.len().min(MOST_OF_NAME)]));
    name.push(format!(".{}-{number}", std::process::id()));
    name.push(OsStr::from_bytes(SUFFIX));
    name
}

/// Whether a name is one that [`name`] gives.
fn is_ours(name: &OsStr) -> bool {
    let Some(rest) = name.as_bytes().strip_suffix(SUFFIX).filter(|n| n.starts_with(b".")) else {
        return false;
    };
    let Some(dot) = rest.iter().rposition(|&b| b == b'.') else { return false };
    let mut numbers = rest[dot + 1..].split(|&b| b == b'-');
    let mut number = || numbers.next().is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit));
    number() && number() && numbers.next().is_none()
}

/// Whether a path is that of a temporary, or within one: what is written there gets its place with it.
pub(crate) fn is_within(path: &Path) -> bool {
    path.components().any(|c| is_ours(c.as_os_str()))
}

/// Removes the temporaries that dead processes left in a folder.
///
/// One that cannot be removed, or whose filesystem knows no locks, stays: it is no reason to fail.
pub fn clear(folder: impl AsRef<Path>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| is_ours(&e.file_name())) {
        let path = entry.path();
        let Ok(file) = std::fs::File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove(&path);
        }
    }
}

/// Removes a file or a folder with all that is in it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_ones_of_ours_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(250);
        let live = Temporary::create(&dir.path().join(long), What::Folder).unwrap();
        let file = Temporary::create(&dir.path().join("a.jsonl"), What::File).unwrap();
        let others =
            [".a.ragduet", ".a.1-.ragduet", "a.1-2.ragduet", ".a.1-2.ragduet.txt", ".a.1-2-3.ragduet"];
        for name in others {
            fs::write(dir.path().join(name), "mine").unwrap();
        }
        fs::write(dir.path().join(".a.jsonl.1-2.ragduet"), "dead").unwrap();
        fs::create_dir(dir.path().join(".ix.77-0.ragduet")).unwrap();
        fs::write(dir.path().join(".ix.77-0.ragduet/rows"), "dead").unwrap();
        clear(dir.path());
        assert!(live.path().is_dir() && file.path().is_file());
        assert!(is_within(&live.path().join("x/y")) && !is_within(dir.path()));
        drop((live, file));
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let mut expected = others.map(OsString::from);
        expected.sort();
        assert_eq!(left, expected);
    }
}
