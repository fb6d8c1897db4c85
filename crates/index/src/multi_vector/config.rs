//! Which multi-vector index is built, and how: the settings as users write them.
//!
//! ```toml
//! [index.compressed]
//! bits = 4
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ExactConfig, Result};

/// Multi-vector index (late interaction).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MultiVectorConfig {
    /// Exact MaxSim over all token vectors.
    Exact(ExactConfig),
    /// Centroids and quantized residuals, as in PLAID: a third of the memory of f16 vectors or less, and many times
    /// faster.
    Compressed(ResidualConfig),
}

impl Default for MultiVectorConfig {
    fn default() -> Self {
        Self::Compressed(ResidualConfig::default())
    }
}

/// Centroids and quantized residuals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResidualConfig {
    /// Bits per residual component: 1, 2, 4 or 8.
    pub bits: u8,
    /// Number of centroids; absent: 16 times the square root of the expected number of token vectors, rounded down to a
    /// power of two, at most a quarter of the training sample.
    pub centroids: Option<usize>,
    /// k-means iterations.
    pub iterations: usize,
    /// Number of token vectors in the k-means training sample; absent: 64 per centroid.
    pub sample: Option<usize>,
    /// Random seed of sampling and k-means.
    pub seed: u64,
}

impl Default for ResidualConfig {
    fn default() -> Self {
        Self { bits: 4, centroids: None, iterations: 4, sample: None, seed: 0 }
    }
}

impl ResidualConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let bad = |key, got: String, remedy| Err(Error::BadConfig { key, got, remedy });
        if !matches!(self.bits, 1 | 2 | 4 | 8) {
            return bad("bits", self.bits.to_string(), "give 1, 2, 4 or 8");
        }
        if self.centroids.is_some_and(|n| n == 0 || n > 1 << 24) {
            let got = self.centroids.unwrap_or_default().to_string();
            return bad("centroids", got, "give a number from 1 to 2^24, or omit it");
        }
        if self.sample == Some(0) {
            return bad("sample", "0".to_owned(), "centroids need vectors to be trained on; omit it");
        }
        Ok(())
    }

    /// How many centroids there are for a corpus of so many token vectors (ColBERT's rule).
    pub(super) fn centroids_for(&self, tokens: usize) -> usize {
        self.centroids.unwrap_or_else(|| {
            let wanted = 16.0 * (tokens as f64).sqrt();
            1 << (wanted.max(1.0).log2().floor() as u32).min(24)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_checked() {
        let config: MultiVectorConfig = serde_json::from_str(r#"{"compressed": {"bits": 2}}"#).unwrap();
        assert_eq!(
            config,
            MultiVectorConfig::Compressed(ResidualConfig { bits: 2, ..ResidualConfig::default() })
        );
        assert!(serde_json::from_str::<MultiVectorConfig>(r#"{"compressed": {"bit": 2}}"#).is_err());
        assert!(serde_json::from_str::<MultiVectorConfig>(r#"{"exact": {"precision": "f16"}}"#).is_ok());
        for bad in [
            ResidualConfig { bits: 3, ..Default::default() },
            ResidualConfig { centroids: Some(0), ..Default::default() },
            ResidualConfig { sample: Some(0), ..Default::default() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        // 16 * sqrt(371140) is 9747.
        assert_eq!(ResidualConfig::default().centroids_for(371_140), 8192);
        assert_eq!(ResidualConfig::default().centroids_for(0), 1);
    }
}
