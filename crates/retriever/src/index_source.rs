//! What an index was made from: a file beside the index, so that a search needs no other argument.

use crate::{Error, Result};
use ragduet_data::{BadRows, Columns, Format, ReadOptions};
use ragduet_nn::{fingerprint, hub};
use ragduet_torch::weights::write_atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "source.json";

/// The model and the corpus of an index; `source.json` in its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSource {
    /// Model folder or hub id; none for an index over words (BM25).
    pub model: Option<String>,
    /// The corpus, for the passages' texts.
    pub corpus: Option<PathBuf>,
    /// A hash of the model's folder when the index was made; none in indexes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// A hash of the corpus when the index was made; none in indexes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<String>,
    /// The corpus's format, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The split of the corpus's folder, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Whether bad rows of the corpus were set aside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skips_bad_rows: bool,
    /// Columns of the corpus by role, where they were given.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

impl IndexSource {
    /// With names that hold from any working directory: a model that is a folder and the corpus by absolute path.
    pub fn new(model: Option<&str>, corpus: Option<&Path>) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let lasting = |name: &str| match Path::new(name) {
            path if path.is_dir() => absolute(path).display().to_string(),
            _ => name.into(),
        };
        Self { model: model.map(lasting), corpus: corpus.map(absolute), ..Self::default() }
    }

    /// With hashes of the model's folder and of the corpus, where they are not known yet.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn with_contents(mut self) -> Result<Self> {
        if let (Some(model), None) = (&self.model, &self.weights) {
            self.weights = Some(fingerprint::of_model(&hub::resolve(model)?)?);
        }
        if let (Some(corpus), None) = (&self.corpus, &self.texts) {
            self.texts = Some(of_corpus(corpus)?);
        }
        Ok(self)
    }

    /// What reads the corpus as it was read when the index was made, without a word in the log.
    ///
    /// # Errors
    /// A format that is not known.
    pub fn reading(&self) -> Result<(ReadOptions, BadRows)> {
        let format = self.format.as_deref().map(str::parse::<Format>).transpose()?;
        let options = ReadOptions { format, split: self.split.clone(), ..ReadOptions::default() };
        let bad = if self.skips_bad_rows { BadRows::silent() } else { BadRows::default() };
        Ok((options, bad.with_columns(self.columns.clone()).quietly()))
    }

    /// Whether a model is the one that made the index of a folder.
    ///
    /// # Errors
    /// Another one, or the same one after more training.
    pub fn check_model(&self, index: &Path, model: &str) -> Result<()> {
        let Some(made_by) = &self.weights else { return Ok(()) };
        if fingerprint::of_model(&hub::resolve(model)?)? == *made_by {
            return Ok(());
        }
        Err(Error::Unusable(format!(
            "{}: `{model}` is not the model that made this index, or has been trained since; build the index again, or \
             give --model to search with it all the same",
            index.display()
        )))
    }

    /// Whether the corpus is still the one that the index was made from.
    ///
    /// # Errors
    /// Another one.
    pub fn check_corpus(&self, index: &Path) -> Result<()> {
        let (Some(corpus), Some(texts)) = (&self.corpus, &self.texts) else { return Ok(()) };
        if !ragduet_data::is_there(corpus) || of_corpus(corpus)? == *texts {
            return Ok(());
        }
        Err(Error::Unusable(format!(
            "{}: {} has changed since the index was made: its texts are not those of the vectors; build the index again, \
             or give --corpus to show its texts all the same",
            index.display(),
            corpus.display()
        )))
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

/// A hash of a corpus; of a pattern, of all that it stands for.
fn of_corpus(path: &Path) -> Result<String> {
    let files = ragduet_data::files_of(path)?;
    let hashes: Vec<String> =
        files.iter().map(|file| fingerprint::of_corpus(file)).collect::<std::io::Result<_>>()?;
    Ok(hashes.join("+"))
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
        // Contents.
        let (model, corpus) = (dir.join("model"), dir.join("corpus.jsonl"));
        fs_err::create_dir(&model).unwrap();
        fs_err::write(model.join("model.safetensors"), "weights").unwrap();
        fs_err::write(&corpus, "texts").unwrap();
        let name = model.display().to_string();
        let source = IndexSource::new(Some(&name), Some(&corpus)).with_contents().unwrap();
        source.check_model(dir, &name).unwrap();
        source.check_corpus(dir).unwrap();
        fs_err::write(model.join("model.safetensors"), "WEIGHTS").unwrap();
        fs_err::write(&corpus, "text").unwrap();
        assert!(source.check_model(dir, &name).unwrap_err().to_string().contains("trained since"));
        assert!(source.check_corpus(dir).unwrap_err().to_string().contains("has changed"));
        fs_err::write(dir.join(FILE), "{").unwrap();
        assert!(IndexSource::read(dir).unwrap_err().to_string().contains(FILE));
    }
}
