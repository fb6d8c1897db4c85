//! Settings of an HNSW index.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of an HNSW index (Malkov and Yashunin, arXiv 1603.09320).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HnswConfig {
    /// Links per row and upper layer; twice as many in the lowest. More cost memory and time and find more.
    pub m: usize,
    /// How widely the build looks for neighbours.
    pub ef_construction: usize,
    /// How widely a search looks, unless it says otherwise. Raised to `k` where it is less.
    pub ef_search: usize,
    /// Which code makes the graph of an empty index.
    pub builder: HnswBuilder,
    /// Scales how many layers there are: 1 is the paper's. `hnsw_rs` only builds with 1 here, because it prints to
    /// the standard output when this is changed.
    pub level_scale: f64,
    /// Seeds the layers that rows go to. `hnsw_rs` has a fixed seed of its own.
    pub seed: u64,
}

/// Which code makes the graph of an empty index. Rows added to a graph later are always linked by the native code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HnswBuilder {
    /// The crate `hnsw_rs`, in parallel: which links it makes depends on how the threads race.
    #[default]
    HnswRs,
    /// The crate `hnsw_rs`, one row after the other: the same graph every time, on one core.
    HnswRsSerial,
    /// This crate: in parallel, and the same graph every time.
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
