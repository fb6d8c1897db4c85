//! Settings of an HNSW index.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// HNSW graph (Malkov and Yashunin, arXiv 1603.09320).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HnswConfig {
    /// M: links per node and upper layer, twice as many in the bottom layer. More links cost memory and time and raise
    /// recall.
    pub m: usize,
    /// ef_construction: candidate list size during construction.
    pub ef_construction: usize,
    /// ef_search: candidate list size during search, at least `k`.
    pub ef_search: usize,
    /// Graph builder for a new index. Under the unscaled inner product it is always the native one.
    pub builder: HnswBuilder,
    /// Factor of the layer-count parameter mL; 1: the paper's. `hnsw_rs` accepts only 1 here.
    pub level_scale: f64,
    /// Random seed of the layer assignment. `hnsw_rs` has a fixed seed of its own.
    pub seed: u64,
}

/// Graph builder for a new index. Vectors added later are always inserted by the native builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HnswBuilder {
    /// The crate `hnsw_rs`, parallel; not deterministic.
    #[default]
    HnswRs,
    /// The crate `hnsw_rs`, one thread; deterministic.
    HnswRsSerial,
    /// Native builder, parallel and deterministic.
    Native,
}

impl Default for HnswConfig {
    fn default() -> Self {
        Self {
            m: 16,
            ef_construction: 200,
            ef_search: 64,
            builder: HnswBuilder::default(),
            level_scale: 1.0,
            seed: 0,
        }
    }
}

impl HnswConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |key, got: String, remedy| Err(Error::BadConfig { key, got, remedy });
        if !(2..=255).contains(&self.m) {
            return bad("m", self.m.to_string(), "it lies between 2 and 255; 16 is usual, 32 for hard data");
        }
        if self.ef_construction < self.m {
            let remedy = "it is at least `m`; 200 is usual";
            return bad("ef_construction", self.ef_construction.to_string(), remedy);
        }
        if self.ef_search == 0 {
            return bad("ef_search", "0".to_owned(), "it is at least 1; 64 is usual");
        }
        if !(0.2..=1.0).contains(&self.level_scale) {
            return bad("level_scale", self.level_scale.to_string(), "it lies between 0.2 and 1");
        }
        if self.level_scale != 1.0 && self.builder != HnswBuilder::Native {
            return bad(
                "level_scale",
                self.level_scale.to_string(),
                "set `builder = \"native\"` to change it",
            );
        }
        Ok(())
    }
}
