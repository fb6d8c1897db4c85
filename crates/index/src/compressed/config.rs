//! Settings of a compressed index.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Precision, Result};

/// Settings of a compressed index: in what form rows are scanned, and what is kept beside them.
///
/// ```toml
/// [index.compressed]
/// form = { binary = {} }
/// dimensions = 256
/// rescore = { rows = "int8", factor = 4 }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionConfig {
    /// In what form rows are scanned.
    pub form: Form,
    /// Scan only the first so many numbers of each vector (scaled to length 1 again under the cosine): for models
    /// trained with Matryoshka losses (Kusupati et al., arXiv 2205.13147). Rows kept for rescoring stay whole.
    pub dimensions: Option<usize>,
    /// Find more rows than were asked for, and score those again by rows of a finer form.
    pub rescore: Option<RescoreConfig>,
}

/// In what form rows are scanned. Bytes are those of a row of `d` numbers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Form {
    /// As they are: `4 d` bytes. Of use with `dimensions`.
    F32,
    /// Rounded: `2 d` bytes.
    F16,
    /// A byte a number and a scale a row: `d + 4` bytes.
    #[default]
    Int8,
    /// The signs and a scale a row: `d / 8 + 4` bytes. Wants rescoring.
    Binary(BinaryConfig),
    /// The nearest of 256 centroids for each part of a row: as many bytes as there are parts. Wants rescoring.
    Pq(PqConfig),
}

/// Settings of rows kept as signs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BinaryConfig {
    /// What a query is compared as.
    pub query: BinaryQuery,
}

/// What a query is compared as with the signs of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BinaryQuery {
    /// Its numbers, rounded to six bits: finds clearly more, takes some times as long.
    #[default]
    Numbers,
    /// Its signs: the Hamming distance, as sentence-transformers' `ubinary`.
    Signs,
}

/// Settings of product quantisation (Jégou, Douze and Schmid, 2011).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PqConfig {
    /// Parts that a row is cut into, as equal as can be; a byte each. Eight numbers a part are usual.
    pub parts: usize,
    /// Rounds of k-means over the first rows added, from which the centroids are learnt.
    pub rounds: usize,
    /// Seeds the choice of the rows to learn from.
    pub seed: u64,
}

impl Default for PqConfig {
    fn default() -> Self {
        Self { parts: 48, rounds: 12, seed: 0 }
    }
}

/// How rows that were found are scored again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RescoreConfig {
    /// The form that is kept for it, of all numbers.
    pub rows: RescoreRows,
    /// So many times the hits asked for are scored again.
    pub factor: usize,
}

/// The form of rows that are kept to score with again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RescoreRows {
    /// Four bytes a number: scores are exact. May stay on disk.
    F32,
    /// Two bytes a number. May stay on disk.
    F16,
    /// A byte a number and a scale a row.
    #[default]
    Int8,
}

impl Default for RescoreConfig {
    fn default() -> Self {
        Self { rows: RescoreRows::default(), factor: 4 }
    }
}

impl Form {
    /// The precision of rows that are plain numbers.
    pub(crate) fn precision(&self) -> Option<Precision> {
        match self {
            Self::F32 => Some(Precision::F32),
            Self::F16 => Some(Precision::F16),
            Self::Int8 | Self::Binary(_) | Self::Pq(_) => None,
        }
    }
}

impl From<RescoreRows> for Form {
    fn from(rows: RescoreRows) -> Self {
        match rows {
            RescoreRows::F32 => Self::F32,
            RescoreRows::F16 => Self::F16,
            RescoreRows::Int8 => Self::Int8,
        }
    }
}

impl CompressionConfig {
    /// Numbers of a vector that are scanned.
    pub(crate) fn width(&self, dim: usize) -> usize {
        self.dimensions.unwrap_or(dim)
    }

    pub(crate) fn validate(&self, dim: usize) -> Result<()> {
        let bad = |key, got: usize, remedy| Err(Error::BadConfig { key, got: got.to_string(), remedy });
        if dim == 0 {
            return bad("dim", dim, "vectors have numbers");
        }
        if let Some(dimensions) = self.dimensions
            && !(1..=dim).contains(&dimensions)
        {
            return bad("dimensions", dimensions, "it lies between 1 and the numbers of a vector");
        }
        if let Form::Pq(pq) = &self.form {
            if !(1..=self.width(dim)).contains(&pq.parts) {
                return bad("parts", pq.parts, "it lies between 1 and the numbers that are scanned");
            }
            if pq.rounds == 0 {
                return bad("rounds", 0, "it is at least 1; 12 is usual");
            }
        }
        if let Some(rescore) = &self.rescore
            && rescore.factor == 0
        {
            return bad("factor", 0, "it is at least 1; 4 is usual");
        }
        Ok(())
    }
}
