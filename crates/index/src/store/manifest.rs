//! The content of `index.json`.
//!
//! An index writes its settings as JSON and reads its own kind's again: the manifest knows no kind's settings.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::rows::{Precision, Rows};
use crate::{IndexKind, Result, Similarity};

pub(crate) const FORMAT: &str = "ragduet-index";
pub(crate) const VERSION: u32 = 1;

/// Settings under the name of their kind, as a config has them: `{"hnsw": {"m": 16, ...}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    /// The settings of a kind of index.
    pub(crate) fn new(kind: &str, settings: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(settings).map_err(std::io::Error::other)?;
        Ok(Self(Map::from_iter([(kind.to_owned(), value)])))
    }

    /// The settings, if they are of this kind.
    pub(crate) fn of<C: DeserializeOwned>(&self, kind: &str) -> serde_json::Result<Option<C>> {
        self.0.get(kind).map(|value| serde_json::from_value(value.clone())).transpose()
    }
}

/// The content of `index.json`: what all kinds of index say, and the header of one kind (`H`) beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest<H> {
    pub(crate) format: String,
    pub(crate) version: u32,
    pub(crate) kind: IndexKind,
    /// Rows (passages).
    pub(crate) count: usize,
    #[serde(flatten)]
    pub(crate) header: H,
    pub(crate) files: BTreeMap<String, FileSum>,
}

/// What an index over single vectors says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VectorHeader {
    pub(crate) dim: usize,
    pub(crate) similarity: Similarity,
    pub(crate) precision: Precision,
    /// The settings that the index was asked to be built with.
    pub(crate) requested: Settings,
    /// What was really built, for readers of the file; nothing depends on it.
    pub(crate) actual: serde_json::Value,
}

/// A header of which nothing is asked.
pub(crate) type AnyHeader = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileSum {
    pub(crate) bytes: u64,
    pub(crate) crc32: u32,
}

impl<H> Manifest<H> {
    pub(crate) fn new(kind: IndexKind, count: usize, header: H) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, kind, count, header, files: BTreeMap::new() }
    }
}

impl VectorHeader {
    pub(crate) fn new(rows: &Rows, requested: Settings, actual: serde_json::Value) -> Self {
        Self {
            dim: rows.dim(),
            similarity: rows.similarity(),
            precision: rows.precision(),
            requested,
            actual,
        }
    }
}
