//! A folder that is whole under its name, or not there.

use crate::place::{Place, parent, place};
use crate::temporary::{Temporary, What, clear, is_within, remove};
use fs_err as fs;
use std::ffi::{OsStr, OsString};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// A folder being filled. It has its name once [`finish`](Self::finish) is called; dropped before, nothing of it stays,
/// and what was there is as it was.
///
/// Old and new are exchanged in one call, so that at every moment one of them is there and whole. A filesystem that
/// cannot do this (some network ones) gets two renames; killed between them the old one lies beside its place, and
/// [`recover`] puts it back.
pub struct OutputFolder<'a> {
    target: PathBuf,
    /// `None`: the target is itself under a temporary name, and filled where it is.
    temporary: Option<Temporary>,
    ours: Ours<'a>,
}

/// Which names in the old folder may go with it; `None`: all.
type Ours<'a> = Option<Box<dyn Fn(&OsStr) -> bool + 'a>>;

impl std::fmt::Debug for OutputFolder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputFolder").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<'a> OutputFolder<'a> {
    /// Begins a folder where none is, or an empty one.
    ///
    /// # Errors
    /// A folder that holds something; a place that cannot be written to.
    pub fn create(target: impl AsRef<Path>) -> Result<Self> {
        Self::begin(target.as_ref(), Some(Box::new(|_| false)))
    }

    /// Begins a folder in the place of one that holds nothing but files of these names, which go with it.
    ///
    /// # Errors
    /// A folder that holds something else; a place that cannot be written to.
    pub fn replacing(target: impl AsRef<Path>, ours: impl Fn(&OsStr) -> bool + 'a) -> Result<Self> {
        Self::begin(target.as_ref(), Some(Box::new(ours)))
    }

    /// Begins a folder in the place of one that is the program's own, whatever it holds: of a run, of a cache.
    ///
    /// # Errors
    /// A place that cannot be written to.
    pub fn replacing_own(target: impl AsRef<Path>) -> Result<Self> {
        Self::begin(target.as_ref(), None)
    }

    fn begin(target: &Path, ours: Ours<'a>) -> Result<Self> {
        let target = match place(target)? {
            Place::Path(at) => at,
            Place::Stream(at) => return Err(no_folder(&at)),
        };
        if is_within(&target) {
            fs::create_dir_all(&target)?;
            return Ok(Self { target, temporary: None, ours });
        }
        recover(&target)?;
        check(&target, &ours)?;
        fs::create_dir_all(parent(&target))?;
        let temporary = Temporary::create(&target, What::Folder)?;
        if let Ok(old) = std::fs::metadata(&target) {
            fs::set_permissions(temporary.path(), old.permissions())?;
        }
        Ok(Self { target, temporary: Some(temporary), ours })
    }

    /// The folder to fill.
    pub fn path(&self) -> &Path {
        self.temporary.as_ref().map_or(&self.target, Temporary::path)
    }

    /// Syncs all that is in it, and puts it in its place.
    ///
    /// # Errors
    /// A full disk and the like; what came into the old folder in the meantime and is not ours. The old folder stays.
    pub fn finish(self) -> Result<()> {
        let Some(mut temporary) = self.temporary else { return Ok(()) };
        sync_tree(temporary.path())?;
        check(&self.target, &self.ours)?;
        let old = put(temporary.path(), &self.target)?;
        temporary.keep();
        let synced = fs::File::open(parent(&self.target)).and_then(|folder| folder.sync_all());
        // What stays is cleared with the next output in this folder.
        let _ = old.map(|old| remove(&old));
        synced
    }
}

fn no_folder(path: &Path) -> Error {
    Error::new(ErrorKind::NotADirectory, format!("{}: no folder; give the name of a folder", path.display()))
}

/// Whether the old folder may go.
fn check(target: &Path, ours: &Ours<'_>) -> Result<()> {
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == ErrorKind::NotADirectory => return Err(no_folder(target)),
        Err(e) => return Err(e),
    };
    let Some(ours) = ours else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if !ours(&entry.file_name()) || entry.file_type()?.is_dir() {
            let name = entry.file_name();
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{}: holds {}, which would be lost, so it is not replaced; give another folder, or move that away",
                    target.display(),
                    name.to_string_lossy()
                ),
            ));
        }
    }
    Ok(())
}

/// Puts a folder in its place; returns where the old one lies now.
fn put(new: &Path, target: &Path) -> Result<Option<PathBuf>> {
    if !target.exists() {
        return fs::rename(new, target).map(|()| None);
    }
    if exchange(new, target)? {
        return Ok(Some(new.to_owned()));
    }
    let old = aside(target);
    fs::rename(target, &old)?;
    if let Err(e) = fs::rename(new, target) {
        fs::rename(&old, target)?;
        return Err(e);
    }
    Ok(Some(old))
}

/// Exchanges two folders in one step; `false` where the filesystem cannot.
fn exchange(a: &Path, b: &Path) -> Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(e @ (Errno::BUSY | Errno::XDEV)) => {
            let why = format!("{}: a mount point cannot be replaced; give a folder in it", b.display());
            Err(Error::new(Error::from(e).kind(), why))
        }
        Err(e) => {
            let e = Error::from(e);
            Err(Error::new(e.kind(), format!("{} <-> {}: {e}", a.display(), b.display())))
        }
    }
}

/// Where the old folder lies between two renames.
fn aside(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".old.ragduet");
    target.with_file_name(name)
}

/// Puts an old folder back that a kill between two renames left beside its place, and clears the temporaries of dead
/// processes beside it.
///
/// # Errors
/// What cannot be put back.
pub fn recover(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    clear(parent(target));
    let old = aside(target);
    if old.exists() {
        match target.exists() {
            true => fs::remove_dir_all(&old)?,
            false => fs::rename(&old, target)?,
        }
    }
    Ok(())
}

fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => fs::File::open(&path)?.sync_all()?,
        }
    }
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(folder: OutputFolder<'_>, text: &str) -> Result<()> {
        fs::write(folder.path().join("rows"), text)?;
        folder.finish()
    }

    fn rows(dir: &Path) -> String {
        fs::read_to_string(dir.join("rows")).unwrap()
    }

    #[test]
    fn a_folder_that_is_not_ours_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b");
        fill(OutputFolder::create(&target).unwrap(), "one").unwrap();
        let e = OutputFolder::create(&target).unwrap_err().to_string();
        assert!(e.contains("holds rows"), "{e}");
        let ours = |name: &OsStr| name == "rows";
        fill(OutputFolder::replacing(&target, ours).unwrap(), "two").unwrap();
        assert_eq!(rows(&target), "two");
        // It comes while the new one is filled.
        let folder = OutputFolder::replacing(&target, ours).unwrap();
        fs::write(target.join("thesis"), "mine").unwrap();
        let e = fill(folder, "three").unwrap_err().to_string();
        assert!(e.contains("holds thesis"), "{e}");
        assert_eq!((rows(&target).as_str(), target.join("thesis").is_file()), ("two", true));
        assert!(OutputFolder::replacing(&target, ours).is_err());
        fs::remove_file(target.join("thesis")).unwrap();
        fs::remove_file(target.join("rows")).unwrap();
        fs::create_dir(target.join("rows")).unwrap();
        assert!(OutputFolder::replacing(&target, ours).is_err(), "a folder is no file of ours");
        fill(OutputFolder::replacing_own(&target).unwrap(), "four").unwrap();
        assert_eq!(rows(&target), "four");
        let e = OutputFolder::create(target.join("rows")).unwrap_err().to_string();
        assert!(e.contains("no folder"), "{e}");
        assert!(OutputFolder::create("/dev/null").is_err());
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_to_a_folder_stays_and_one_within_another_is_filled_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("disk/real"), dir.path().join("link"));
        fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink("disk/real", &link).unwrap();
        let outer = OutputFolder::create(&link).unwrap();
        let inner = OutputFolder::create(outer.path()).unwrap();
        assert_eq!(inner.path(), outer.path());
        crate::write(inner.path().join("more"), "more").unwrap();
        fill(inner, "one").unwrap();
        assert!(!real.join("rows").exists());
        outer.finish().unwrap();
        assert_eq!(rows(&real), "one");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(dir.path().join("disk")).unwrap().count(), 1);
    }

    #[test]
    fn what_a_kill_between_two_renames_left_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("best");
        fill(OutputFolder::create(&target).unwrap(), "old").unwrap();
        fs::rename(&target, aside(&target)).unwrap();
        recover(&target).unwrap();
        assert_eq!(rows(&target), "old");
        fs::create_dir(aside(&target)).unwrap();
        recover(&target).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn it_is_there_and_whole_at_every_moment() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("best");
        fill(OutputFolder::replacing_own(&target).unwrap(), "0").unwrap();
        let (probe, other) = (dir.path().join("p"), dir.path().join("q"));
        fs::create_dir(&probe).unwrap();
        fs::create_dir(&other).unwrap();
        if !exchange(&probe, &other).unwrap() {
            eprintln!("skipped: this filesystem cannot exchange folders");
            return;
        }
        let done = AtomicBool::new(false);
        let looks = std::thread::scope(|s| {
            let watcher = s.spawn(|| {
                let mut looks = 0u64;
                while !done.load(Ordering::Relaxed) {
                    assert!(target.join("rows").is_file(), "gone after {looks} looks");
                    looks += 1;
                }
                looks
            });
            for _ in 0..100 {
                fill(OutputFolder::replacing_own(&target).unwrap(), "n").unwrap();
            }
            done.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        assert!(looks > 100);
    }
}
