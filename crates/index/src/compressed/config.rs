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
    /// Storage form of the scanned vectors.
    pub form: Form,
    /// Truncation: only the first N components are scanned (re-normalized for cosine), for models trained with
    /// Matryoshka losses (Kusupati et al., arXiv 2205.13147). Vectors kept for rescoring stay whole. Absent: all.
    pub dimensions: Option<usize>,
    /// Rescoring: more candidates than requested are retrieved and scored again with finer vectors. Absent: none.
    pub rescore: Option<RescoreConfig>,
}

/// Storage form of the scanned vectors; sizes are for d components.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Form {
    /// f32: `4 d` bytes. Useful with `dimensions`.
    F32,
    /// f16: `2 d` bytes.
    F16,
    /// 8-bit integers with a scale per vector: `d + 4` bytes.
    #[default]
    Int8,
    /// Signs with a scale per vector: `d / 8 + 4` bytes. Use with rescoring.
    Binary(BinaryConfig),
    /// Product quantization: one byte (of 256 centroids) per sub-vector. Use with rescoring.
    Pq(PqConfig),
}

/// Binary quantization.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BinaryConfig {
    /// Representation of the query.
    pub query: BinaryQuery,
}

/// Representation of the query against binary vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BinaryQuery {
    /// Six-bit components: clearly higher recall, several times slower.
    #[default]
    Numbers,
    /// Signs: Hamming distance, as sentence-transformers' `ubinary`.
    Signs,
}

/// Product quantization (Jégou, Douze and Schmid, 2011).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PqConfig {
    /// Number of sub-vectors, one byte each. Eight components per sub-vector are usual.
    pub parts: usize,
    /// k-means iterations for the centroids, trained on the first vectors added.
    pub rounds: usize,
    /// Random seed of the k-means training sample.
    pub seed: u64,
}

impl Default for PqConfig {
    fn default() -> Self {
        Self { parts: 48, rounds: 12, seed: 0 }
    }
}

/// Rescoring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RescoreConfig {
    /// Storage form of the vectors used for rescoring, all components.
    pub rows: RescoreRows,
    /// Oversampling factor: factor * k candidates are rescored.
    pub factor: usize,
}

/// Storage form of the vectors used for rescoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RescoreRows {
    /// 32 bits per component: exact scores. May stay on disk.
    F32,
    /// 16 bits per component. May stay on disk.
    F16,
    /// 8 bits per component and a scale per vector.
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
