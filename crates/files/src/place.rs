//! Where an output goes: links are followed, and what is no file is told apart.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many links may lead to one another; as Linux has it.
const MOST_LINKS: usize = 40;

/// Where an output goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Something that is written to and never replaced: a device, a pipe, a descriptor.
    Stream(PathBuf),
    /// A file or folder, there or not.
    Path(PathBuf),
}

/// Follows links to the place that a path names.
pub(crate) fn place(path: &Path) -> Result<Place> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let parent = parent(&at);
        // Descriptors are links to what cannot be opened by name.
        if parent.canonicalize().is_ok_and(|p| p.starts_with("/proc")) {
            return Ok(Place::Stream(at));
        }
        match std::fs::symlink_metadata(&at) {
            Ok(m) if m.is_symlink() => at = parent.join(fs_err::read_link(&at)?),
            Ok(m) if m.is_dir() => return Ok(Place::Path(at.canonicalize()?)),
            Ok(m) if !m.is_file() => return Ok(Place::Stream(at)),
            Ok(_) => return Ok(Place::Path(at)),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Place::Path(at)),
            Err(e) => return Err(Error::new(e.kind(), format!("{}: {e}", at.display()))),
        }
    }
    Err(Error::other(format!("{}: links that lead to one another", path.display())))
}

/// The folder of a path; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// Whether an output of this name is written to as it is made, like a device or a pipe, and never replaced.
pub fn is_stream(path: impl AsRef<Path>) -> bool {
    matches!(place(path.as_ref()), Ok(Place::Stream(_)))
}

/// Whether two paths name the same file or folder, which is there.
pub fn same(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    let id = |p: &Path| std::fs::metadata(p).ok().map(|m| (m.dev(), m.ino()));
    let (a, b) = (id(a.as_ref()), id(b.as_ref()));
    a.is_some() && a == b
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_and_devices_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().canonicalize().unwrap().join(name);
        fs_err::write(path("file"), "x").unwrap();
        fs_err::create_dir(path("sub")).unwrap();
        symlink("file", path("one")).unwrap();
        symlink(path("one"), path("two")).unwrap();
        symlink("sub/nothing", path("dangling")).unwrap();
        symlink("loop", path("loop")).unwrap();
        assert_eq!(place(&path("two")).unwrap(), Place::Path(path("file")));
        assert_eq!(place(&path("dangling")).unwrap(), Place::Path(path("sub/nothing")));
        assert!(place(&path("loop")).unwrap_err().to_string().contains("lead to one another"));
        assert!(is_stream("/dev/null") && is_stream("/dev/stdout") && is_stream("/dev/fd/1"));
        assert!(!is_stream(path("file")) && !is_stream(path("absent")) && !is_stream(path("sub")));
        assert!(same(path("one"), path("file")) && !same(path("absent"), path("absent")));
    }
}
