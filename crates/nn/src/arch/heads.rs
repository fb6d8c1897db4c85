//! Heads of grouped-query attention (Ainslie et al., 2023, arXiv 2305.13245), as configs give them.

use crate::Result;
use crate::config_source::ConfigSource;

/// How many heads a layer has, and how wide they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    hidden: i64,
    all: i64,
    /// Of keys and values: as many as there are where the config has none.
    pub kv: i64,
    /// Width: the hidden size's share where the config has none.
    pub dim: i64,
    /// Whether the config has a width.
    given: bool,
}

impl Heads {
    pub fn new(hidden: i64, all: i64, kv: Option<i64>, dim: Option<i64>) -> Self {
        let share = hidden / all.max(1);
        Self { hidden, all, kv: kv.unwrap_or(all), dim: dim.unwrap_or(share), given: dim.is_some() }
    }

    /// # Errors
    /// Numbers that do not divide each other, and a width that does not rotate in pairs.
    pub fn check(&self, source: &ConfigSource<'_>) -> Result<()> {
        if !self.given {
            source.heads_divide(self.hidden, self.all, "num_attention_heads")?;
        }
        if self.dim < 2 || self.dim % 2 != 0 {
            return source.unsupported("head_dim", "an even number");
        }
        source.heads_divide(self.all, self.kv, "num_key_value_heads")
    }
}
