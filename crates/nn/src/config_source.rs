//! A model's `config.json`, as architectures read it.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// A parsed `config.json` and where it came from, for errors.
#[derive(Debug)]
pub(crate) struct ConfigSource<'a> {
    pub path: &'a Path,
    pub json: &'a Value,
}

impl ConfigSource<'_> {
    /// The keys of an architecture.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(self.json).map_err(|source| Error::Json { path: self.path.to_path_buf(), source })
    }

    /// The error of a setting that is not computed here.
    pub fn unsupported<T>(&self, key: &str, supported: &str) -> Result<T> {
        Err(Error::UnsupportedSetting {
            path: self.path.to_path_buf(),
            key: key.into(),
            value: self.json.get(key).unwrap_or(&Value::Null).to_string(),
            supported: supported.into(),
        })
    }

    /// A number at the top level.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.json.get(key).and_then(Value::as_f64)
    }

    /// Checks that heads rotate whole.
    pub fn whole_rotation(&self) -> Result<()> {
        const KEY: &str = "partial_rotary_factor";
        for table in ["rope_parameters", "rope_scaling"] {
            let share = self.json.get(table).and_then(|t| t.get(KEY)).and_then(Value::as_f64);
            if share.is_some_and(|f| f != 1.0) {
                return self.unsupported(table, &format!("a {KEY} of 1"));
            }
        }
        match self.number(KEY) {
            Some(share) if share != 1.0 => self.unsupported(KEY, "1"),
            _ => Ok(()),
        }
    }

    /// Checks that the hidden size is a multiple of the number of heads.
    pub fn heads_divide(&self, hidden: i64, heads: i64, key: &str) -> Result<()> {
        if heads > 0 && hidden % heads == 0 {
            Ok(())
        } else {
            self.unsupported(key, "a divisor of the hidden size")
        }
    }
}
