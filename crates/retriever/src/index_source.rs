//! What an index was made from: a file beside the index, so that a search needs no other argument.

use crate::{Error, Result};
use ragduet_torch::weights::write_atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "source.json";

/// The model and the corpus of an index; `source.json` in its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexSource {
    /// Model folder or hub id; none for an index over words (BM25).
    pub model: Option<String>,
    /// The corpus, for the passages' texts.
    pub corpus: Option<PathBuf>,
}

impl IndexSource {
    /// With names that hold from any working directory: a model that is a folder and the corpus by absolute path.
    pub fn new(model: Option<&str>, corpus: Option<&Path>) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let lasting = |name: &str| match Path::new(name) {
            path if path.is_dir() => absolute(path).display().to_string(),
            _ => name.into(),
        };
        Self { model: model.map(lasting), corpus: corpus.map(absolute) }
    }

    /// Reads the file of an index; `None` where there is none.
    ///
    /// # Errors
    /// A file that cannot be read or does not parse.
    pub fn read(index: &Path) -> Result<Option<Self>> {
        let path = index.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&fs_err::read(&path)?);
        parsed.map(Some).map_err(|source| Error::Json { path, source })
    }

    /// Writes the file into the folder of an index.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn write(&self, index: &Path) -> Result<()> {
        let path = index.join(FILE);
        let text =
            serde_json::to_vec_pretty(self).map_err(|source| Error::Json { path: path.clone(), source })?;
        Ok(write_atomic(&path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_folders_become_absolute() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(IndexSource::read(dir).unwrap(), None);
        let source = IndexSource::new(Some("src"), Some(Path::new("corpus.jsonl")));
        assert!(Path::new(source.model.as_ref().unwrap()).is_absolute());
        assert!(source.corpus.as_ref().unwrap().is_absolute());
        assert_eq!(IndexSource::new(Some("org/name"), None).model.as_deref(), Some("org/name"));
        source.write(dir).unwrap();
        assert_eq!(IndexSource::read(dir).unwrap(), Some(source));
        fs_err::write(dir.join(FILE), "{").unwrap();
        assert!(IndexSource::read(dir).unwrap_err().to_string().contains(FILE));
    }
}
