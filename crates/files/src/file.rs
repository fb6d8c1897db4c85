//! A file that is whole under its name, or not there.

use crate::place::{Place, parent, place};
use crate::temporary::{Temporary, What, is_within};
use fs_err as fs;
use std::io::{BufWriter, Error, Result, Write};
use std::path::{Path, PathBuf};

/// A file being written. It has its name once [`finish`](Self::finish) is called; dropped before, nothing of it stays, and
/// what was there is as it was. A device or a pipe gets what is written at once.
#[derive(Debug)]
pub struct OutputFile {
    out: BufWriter<fs::File>,
    goal: Goal,
}

#[derive(Debug)]
enum Goal {
    /// Put in the place of a file.
    Replace(Temporary, PathBuf),
    /// Written where it stays: a device, a pipe, a file of a folder that is itself under a temporary name.
    InPlace,
}

impl OutputFile {
    /// Begins a file. Missing folders are made.
    ///
    /// # Errors
    /// A folder of that name; a place that cannot be written to.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let (file, goal) = match place(path.as_ref())? {
            Place::Stream(at) => {
                // At the end: what the shell, or another one who holds the descriptor, wrote before stays.
                (fs::OpenOptions::new().append(true).open(at)?, Goal::InPlace)
            }
            Place::Path(at) if at.is_dir() => {
                return Err(Error::other(format!("{}: a folder; give the name of a file", at.display())));
            }
            Place::Path(at) => {
                fs::create_dir_all(parent(&at))?;
                if is_within(&at) {
                    // A hard link that was put there shares its file with others.
                    let _ = std::fs::remove_file(&at);
                    (fs::File::create(at)?, Goal::InPlace)
                } else {
                    let temporary = Temporary::create(&at, What::File)?;
                    if let Ok(old) = std::fs::metadata(&at) {
                        fs::set_permissions(temporary.path(), old.permissions())?;
                    }
                    let (file, path) = (temporary.file().file().try_clone()?, temporary.path());
                    (fs::File::from_parts(file, path), Goal::Replace(temporary, at))
                }
            }
        };
        Ok(Self { out: BufWriter::with_capacity(256 * 1024, file), goal })
    }

    /// Writes what is buffered, syncs, and gives the file its name.
    ///
    /// # Errors
    /// A full disk and the like; nothing of the file stays then.
    pub fn finish(self) -> Result<()> {
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let Goal::Replace(mut temporary, target) = self.goal else {
            // Devices and pipes cannot be synced; a folder syncs its files itself.
            return Ok(());
        };
        file.sync_all()?;
        fs::rename(temporary.path(), &target)?;
        temporary.keep();
        // The rename itself survives a power cut only once the folder is synced.
        fs::File::open(parent(&target))?.sync_all()
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}

/// Writes a whole file.
///
/// # Errors
/// Those of [`OutputFile`].
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes.as_ref())?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn absent_until_finished_and_as_before_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/a");
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(names(&dir.path().join("deep")), ["a"]);
        let e = write(dir.path().join("deep"), "x").unwrap_err().to_string();
        assert!(e.contains("a folder"), "{e}");
    }

    #[test]
    fn links_stay_and_streams_are_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link, dangling) =
            (dir.path().join("real"), dir.path().join("link"), dir.path().join("dangling"));
        fs::write(&real, "old").unwrap();
        symlink("real", &link).unwrap();
        symlink("new", &dangling).unwrap();
        write(&link, "new").unwrap();
        write(&dangling, "there").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::read_to_string(dir.path().join("new")).unwrap(), "there");
        write("/dev/null", "x").unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(
            &fs::metadata("/dev/null").unwrap().file_type()
        ));
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let text = std::thread::scope(|s| {
            let reader = s.spawn(|| fs::read_to_string(&fifo).unwrap());
            write(&fifo, "through the pipe").unwrap();
            reader.join().unwrap()
        });
        assert_eq!(text, "through the pipe");
        assert_eq!(names(dir.path()), ["dangling", "fifo", "link", "new", "real"]);
    }
}
