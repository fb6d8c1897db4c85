//! How a path shows which format it holds: by its extension, by what a folder holds, by how a `.json` file begins.

use std::path::{Path, PathBuf};

use super::Format;
use super::head::Head;
use crate::patterns::{expand, is_pattern};
use crate::source::{inner_extension, listing};
use crate::{Error, Result};

impl Format {
    /// Finds the format by extension, by what a directory holds, or by the first bytes of a `.json` file.
    pub fn detect(path: &Path) -> Result<Self> {
        if is_pattern(path) {
            return Self::of_pattern(path);
        }
        if path.is_dir() {
            return Self::of_folder(path).ok_or_else(|| {
                Self::unknown(path, format!("the directory matches no layout; it holds {}", listing(path)))
            });
        }
        if !path.exists() {
            return Err(Error::Missing { path: path.to_owned(), remedy: "check the path".into() });
        }
        let extension = inner_extension(path);
        let takes = |format: &Self| format.spec().files.contains(&extension.as_str());
        if extension == "json" {
            let head = Head::read(path)?;
            let fits = |format: &Self| format.spec().content.is_some_and(|content| content(&head));
            if let Some(format) = Self::ALL.into_iter().filter(takes).find(fits) {
                return Ok(format);
            }
            if let Some(reason) = no_lines(&head) {
                return Err(Self::unknown(path, reason));
            }
        }
        let any = |format: &Self| format.spec().content.is_none();
        Self::ALL.into_iter().filter(takes).find(any).ok_or_else(|| {
            Self::unknown(
                path,
                match extension.as_str() {
                    "" => "the name has no extension".into(),
                    other => format!("the extension .{other} is not known"),
                },
            )
        })
    }

    /// The one format of all that a pattern stands for.
    fn of_pattern(path: &Path) -> Result<Self> {
        let all = expand(path)?;
        let mut formats = all.iter().map(|one| -> Result<(Self, &PathBuf)> { Ok((Self::detect(one)?, one)) });
        let Some((first, one)) = formats.next().transpose()? else {
            return Err(Self::unknown(path, "it stands for nothing".into()));
        };
        for other in formats {
            let (format, other) = other?;
            if format != first {
                let reason = format!(
                    "{} is {first} and {} is {format}: data of several files is of one format",
                    one.display(),
                    other.display()
                );
                return Err(Self::unknown(path, reason));
            }
        }
        let collection = |one: &PathBuf| first.collection(one).map(|found| found.is_some());
        if all.len() > 1 && collection(one)? {
            let reason = format!(
                "{} is {first}, a collection of its own: several of them are not read as one; name one, or convert them to JSON Lines and name those files",
                one.display()
            );
            return Err(Error::Unsupported { path: path.to_owned(), reason });
        }
        Ok(first)
    }

    fn of_folder(dir: &Path) -> Option<Self> {
        let holds = |format: &Self| format.spec().folder.is_some_and(|holds| holds(dir));
        if let Some(format) = Self::ALL.into_iter().find(holds) {
            return Some(format);
        }
        let entries = fs_err::read_dir(dir).ok()?;
        let extensions: Vec<String> =
            entries.filter_map(|e| e.ok()).map(|e| inner_extension(&e.path())).collect();
        let mut fits = Self::ALL.into_iter().filter(|format| {
            format.spec().shards.is_some_and(|shards| extensions.iter().any(|e| e == shards))
        });
        // Shards of two formats could be either.
        fits.next().filter(|_| fits.next().is_none())
    }

    fn unknown(path: &Path, reason: String) -> Error {
        Error::UnknownFormat { path: path.to_owned(), reason, known: Self::NAMES.join(", ") }
    }
}

/// Why a `.json` file cannot be JSON Lines.
fn no_lines(head: &Head) -> Option<String> {
    if !head.is_object() {
        return Some("the file does not begin with [ or {".into());
    }
    if !head.is_spread() {
        return None;
    }
    let layouts: Vec<String> = Format::ALL
        .into_iter()
        .filter(|format| format.spec().files.contains(&"json"))
        .map(|format| format!("{format} ({})", format.about().trim_end_matches('.')))
        .collect();
    let keys: Vec<&str> = head.keys().into_iter().map(|(key, _)| key).collect();
    Some(format!(
        "one JSON object over several lines, with the keys {}, is no layout that is known; a .json file may be {}",
        keys.join(", "),
        layouts.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detection() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::write(&path, text).unwrap();
            path
        };
        assert_eq!(Format::detect(&write("a.jsonl.zst", "")).unwrap(), Format::Jsonl);
        assert_eq!(Format::detect(&write("a.json", " [{}]")).unwrap(), Format::Dpr);
        assert_eq!(Format::detect(&write("b.json", "{\"version\": 1}")).unwrap(), Format::Squad);
        assert_eq!(Format::detect(&write("c.json", "{\"query\": 1}\n")).unwrap(), Format::Jsonl);
        let error = Format::detect(&write("a.xlsx", "")).unwrap_err().to_string();
        assert!(error.contains("extension .xlsx is not known; name the format (beir"), "{error}");
        assert!(Format::detect(Path::new("/no/such")).unwrap_err().to_string().contains("not found"));
        let error =
            Format::detect(&write("d.json", "{\n \"rows\": [],\n \"n\": 0\n}")).unwrap_err().to_string();
        assert!(error.contains("with the keys rows, n, is no layout"), "{error}");
        for format in Format::ALL.iter().filter(|format| format.spec().files.contains(&"json")) {
            assert!(error.contains(&format!("{format} (")), "{format}: {error}");
        }
    }
}
