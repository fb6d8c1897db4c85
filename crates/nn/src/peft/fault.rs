//! Errors of settings and of adapters' folders.

use crate::Error;
use std::path::Path;

/// A setting that does not fit.
pub(super) fn peft(key: &str, why: String) -> Error {
    Error::Peft { key: key.into(), why }
}

/// A key of a folder's file that does not fit.
pub(super) fn bad(path: &Path, key: &str, why: &str) -> Error {
    peft(&format!("{}: {key}", path.display()), why.into())
}
