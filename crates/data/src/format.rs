//! The formats, their names, and how a path shows which one it holds.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::source::{find, inner_extension, listing, peek};
use crate::{Error, Result};

/// A layout of data on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Directory with `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`.
    Beir,
    /// One JSON object per line: triplets, FlagEmbedding, Tevatron 1, or a corpus.
    Jsonl,
    /// Parquet with the same columns as JSONL.
    Parquet,
    /// DPR: one JSON array of questions with contexts.
    Dpr,
    /// Tevatron JSONL: passages inline, or ids into a corpus.
    Tevatron,
    /// FlagEmbedding JSONL: `query`, `pos`, `neg`.
    FlagEmbedding,
    /// MS MARCO: directory with `collection.tsv`, queries and qrels, or a file of triples.
    MsMarco,
    /// SQuAD 1.1 or 2.0.
    Squad,
    /// Tab-separated corpus: id, text, optionally a title between them or after.
    Tsv,
    /// Corpus with one passage per line.
    Txt,
    /// Corpus whose passages are parted by blank lines.
    Paragraphs,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 11] = [
        Self::Beir,
        Self::Jsonl,
        Self::Parquet,
        Self::Dpr,
        Self::Tevatron,
        Self::FlagEmbedding,
        Self::MsMarco,
        Self::Squad,
        Self::Tsv,
        Self::Txt,
        Self::Paragraphs,
    ];

    /// The names, as configs and the command line spell them.
    pub const NAMES: [&str; 11] = [
        "beir",
        "jsonl",
        "parquet",
        "dpr",
        "tevatron",
        "flag-embedding",
        "ms-marco",
        "squad",
        "tsv",
        "txt",
        "paragraphs",
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Beir => "beir",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Dpr => "dpr",
            Self::Tevatron => "tevatron",
            Self::FlagEmbedding => "flag-embedding",
            Self::MsMarco => "ms-marco",
            Self::Squad => "squad",
            Self::Tsv => "tsv",
            Self::Txt => "txt",
            Self::Paragraphs => "paragraphs",
        }
    }

    /// The format that a file to be written should have, by its name: JSON Lines, Parquet, or a BEIR directory where
    /// the name has no extension.
    pub fn for_output(path: &Path) -> Result<Self> {
        match inner_extension(path).as_str() {
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "parquet" => Ok(Self::Parquet),
            "" => Ok(Self::Beir),
            other => Err(Error::Unsupported {
                path: path.to_owned(),
                reason: format!(
                    "nothing is written as `.{other}` by its name alone; use .jsonl, .jsonl.zst, .parquet, or name the format"
                ),
            }),
        }
    }

    /// Finds the format by extension, by what a directory holds, or by the first bytes of a `.json` file.
    pub fn detect(path: &Path) -> Result<Self> {
        let unknown = |reason: String| Error::UnknownFormat { path: path.to_owned(), reason };
        if path.is_dir() {
            return Self::detect_dir(path).ok_or_else(|| {
                unknown(format!("the directory matches no layout; it holds {}", listing(path)))
            });
        }
        if !path.exists() {
            return Err(Error::Missing { path: path.to_owned(), remedy: "check the path".into() });
        }
        match inner_extension(path).as_str() {
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "parquet" => Ok(Self::Parquet),
            "json" => Self::detect_json(path),
            "tsv" => Ok(Self::MsMarco),
            "txt" => Ok(Self::Txt),
            "" => Err(unknown("the name has no extension".into())),
            other => Err(unknown(format!("the extension .{other} is not known"))),
        }
    }

    fn detect_dir(dir: &Path) -> Option<Self> {
        if find(dir, "corpus.jsonl").is_some() {
            return Some(Self::Beir);
        }
        if find(dir, "collection.tsv").is_some() {
            return Some(Self::MsMarco);
        }
        let entries = fs_err::read_dir(dir).ok()?;
        let extensions: Vec<String> =
            entries.filter_map(|e| e.ok()).map(|e| inner_extension(&e.path())).collect();
        let has = |name: &str| extensions.iter().any(|e| e == name);
        match (has("jsonl"), has("parquet")) {
            (true, false) => Some(Self::Jsonl),
            (false, true) => Some(Self::Parquet),
            _ => None,
        }
    }

    fn detect_json(path: &Path) -> Result<Self> {
        let head = peek(path, 4096)?;
        let head = String::from_utf8_lossy(&head);
        let head = head.trim_start_matches('\u{feff}').trim_start();
        if head.starts_with('[') {
            return Ok(Self::Dpr);
        }
        let first_key = head.strip_prefix('{').map(str::trim_start).unwrap_or_default();
        if first_key.starts_with("\"data\"") || first_key.starts_with("\"version\"") {
            return Ok(Self::Squad);
        }
        if head.starts_with('{') {
            return Ok(Self::Jsonl);
        }
        Err(Error::UnknownFormat {
            path: path.to_owned(),
            reason: "the file does not begin with [ or {".into(),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        // Underscores and case do not matter on a command line.
        let plain = name.to_ascii_lowercase().replace(['_', ' '], "-");
        let plain = match plain.as_str() {
            "msmarco" => "ms-marco",
            "flagembedding" => "flag-embedding",
            other => other,
        };
        let found = Self::ALL.into_iter().find(|format| format.name() == plain);
        found.ok_or_else(|| Error::UnknownFormatName { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_everywhere() {
        for (format, name) in Format::ALL.into_iter().zip(Format::NAMES) {
            assert_eq!(format.name(), name);
            assert_eq!(name.parse::<Format>().unwrap(), format);
            assert_eq!(serde_json::to_value(format).unwrap(), serde_json::json!(name));
        }
        assert_eq!("MS_MARCO".parse::<Format>().unwrap(), Format::MsMarco);
        assert!("csv".parse::<Format>().unwrap_err().to_string().contains("flag-embedding"));
    }

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
        let error = Format::detect(&write("a.csv", "")).unwrap_err().to_string();
        assert!(error.contains("extension .csv is not known; name the format (beir"), "{error}");
        assert!(Format::detect(Path::new("/no/such")).unwrap_err().to_string().contains("not found"));
    }
}
