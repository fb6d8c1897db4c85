//! The formats: one table, with a row for each.
//!
//! A row is the format's name in the code, what it looks like, and its [`Spec`](spec::Spec): how a path shows it, what
//! it is read as, how it is written. Whatever reads, writes or lists formats goes through the table, so a new format is
//! a file in `format/`, its `mod` and its row here, and a test.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::collection::parts::Parts;
use crate::source::inner_extension;
use crate::{Error, Result};

mod arrow;
mod beir;
mod csv;
mod detect;
mod documents;
mod dpr;
mod head;
mod jsonl;
mod llama_index;
mod ms_marco;
mod parquet;
pub(crate) mod spec;
mod squad;
mod tevatron;
mod text;

use spec::Spec;

/// Makes the enum of the formats and what is known of each from the table.
macro_rules! formats {
    ($(#[doc = $about:literal] $variant:ident = $spec:expr;)+) => {
        /// A layout of data on disk.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Format {
            $(#[doc = $about] $variant,)+
        }

        impl Format {
            /// All formats.
            pub const ALL: [Self; [$($spec.name),+].len()] = [$(Self::$variant),+];

            /// The names, as configs and the command line spell them.
            pub const NAMES: [&str; Self::ALL.len()] = [$($spec.name),+];

            /// What it looks like, in a sentence.
            pub fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about.trim_ascii(),)+
                }
            }

            pub(crate) fn spec(self) -> &'static Spec {
                match self {
                    $(Self::$variant => const { &$spec },)+
                }
            }
        }
    };
}

formats! {
    /// Directory with `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`.
    Beir = beir::BEIR;
    /// One JSON object per line: triplets, FlagEmbedding, Tevatron 1, or a corpus.
    Jsonl = jsonl::JSONL;
    /// Parquet with the same columns as JSONL.
    Parquet = parquet::PARQUET;
    /// Arrow IPC with the same columns as JSONL: streams, Feather files, folders of `datasets.save_to_disk`.
    Arrow = arrow::ARROW;
    /// CSV with a header, and the same columns as JSONL.
    Csv = csv::CSV;
    /// DPR: one JSON array of questions with contexts, or of passages.
    Dpr = dpr::DPR;
    /// Tevatron JSONL: passages inline, or ids into a corpus.
    Tevatron = tevatron::TEVATRON;
    /// FlagEmbedding JSONL: `query`, `pos`, `neg`.
    FlagEmbedding = jsonl::FLAG_EMBEDDING;
    /// MS MARCO: directory with `collection.tsv`, queries and qrels, or a file of triples.
    MsMarco = ms_marco::MS_MARCO;
    /// SQuAD 1.1 or 2.0.
    Squad = squad::SQUAD;
    /// LlamaIndex's `EmbeddingQAFinetuneDataset`: one JSON object of `queries`, `corpus` and `relevant_docs`.
    LlamaIndex = llama_index::LLAMA_INDEX;
    /// Tab-separated, with a header and the same columns as JSONL; a corpus without one is id, text, perhaps title.
    Tsv = text::TSV;
    /// Corpus with one passage per line.
    Txt = text::TXT;
    /// Corpus whose passages are parted by blank lines.
    Paragraphs = text::PARAGRAPHS;
    /// Folder of `.txt` and `.md` files as a corpus, a passage each; or one `.md` file.
    Documents = documents::DOCUMENTS;
}

impl Format {
    /// The name.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The format that a file to be written should have, by its name: JSON Lines, Parquet, or a BEIR directory where
    /// the name has no extension.
    pub fn for_output(path: &Path) -> Result<Self> {
        let extension = inner_extension(path);
        let found = Self::ALL.into_iter().find(|format| format.spec().output.contains(&extension.as_str()));
        found.ok_or_else(|| {
            let known: Vec<String> = Self::ALL
                .iter()
                .flat_map(|format| format.spec().output)
                .filter(|e| !e.is_empty())
                .map(|e| format!(".{e}"))
                .collect();
            Error::Unsupported {
                path: path.to_owned(),
                reason: format!(
                    "nothing is written as `.{extension}` by its name alone; use {} (also .gz, .zst), or name the \
                     format ({})",
                    known.join(", "),
                    Self::names(|spec| spec.writer.is_some())
                ),
            }
        })
    }

    /// The collection that a path holds; `None` where the format has none, or the path holds something else of it.
    pub(crate) fn collection(self, path: &Path) -> Result<Option<Box<dyn Parts>>> {
        self.spec().collection.map_or(Ok(None), |open| open(path))
    }

    /// The names of the formats of which something is true, for messages.
    pub(crate) fn names(which: impl Fn(&Spec) -> bool) -> String {
        let names: Vec<&str> = Self::ALL.into_iter().filter(|f| which(f.spec())).map(|f| f.name()).collect();
        names.join(", ")
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
        let fits = |spec: &Spec| spec.name == plain || spec.aliases.contains(&plain.as_str());
        Self::ALL
            .into_iter()
            .find(|format| fits(format.spec()))
            .ok_or_else(|| Error::UnknownFormatName { name: name.into(), known: Self::NAMES.join(", ") })
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Any text: the names are the table's, which a schema would only repeat.
impl schemars::JsonSchema for Format {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Format".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string"})
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
            assert_eq!(serde_json::from_value::<Format>(serde_json::json!(name)).unwrap(), format);
        }
        assert_eq!("MS_MARCO".parse::<Format>().unwrap(), Format::MsMarco);
        assert_eq!("flagembedding".parse::<Format>().unwrap(), Format::FlagEmbedding);
        assert!("xlsx".parse::<Format>().unwrap_err().to_string().contains("flag-embedding"));
        let error = serde_json::from_str::<Format>("\"xlsx\"").unwrap_err().to_string();
        assert!(error.contains("no format is named \"xlsx\"; the formats are beir, "), "{error}");
    }

    #[test]
    fn every_row_is_read_and_known_by_one_name() {
        let mut names = std::collections::HashSet::new();
        for format in Format::ALL {
            let spec = format.spec();
            assert!(
                spec.examples.is_some() || spec.corpus.is_some() || spec.collection.is_some(),
                "{format}"
            );
            assert!(!format.about().is_empty());
            for name in [spec.name].iter().chain(spec.aliases) {
                assert!(names.insert(*name), "{name} is the name of two formats");
                assert_eq!(name.parse::<Format>().unwrap(), format);
            }
        }
    }

    #[test]
    fn output_by_name() {
        for (name, format) in [
            ("a.jsonl.zst", Format::Jsonl),
            ("a.ndjson", Format::Jsonl),
            ("a.parquet", Format::Parquet),
            ("folder", Format::Beir),
        ] {
            assert_eq!(Format::for_output(Path::new(name)).unwrap(), format);
        }
        let error = Format::for_output(Path::new("a.json")).unwrap_err().to_string();
        assert!(error.contains("`.json`") && error.contains("use .jsonl, .ndjson, .parquet"), "{error}");
        assert!(error.contains("dpr") && !error.contains("squad"), "{error}");
    }
}
