//! The name of a resident adapter.

use std::sync::atomic::{AtomicU64, Ordering};

/// Names an adapter in a forward pass. No two of a process are alike, whatever model they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(u64);

impl AdapterId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
