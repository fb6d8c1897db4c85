//! How much of the texts was read: whoever tokenizes under a limit counts here, so that no caller has to.
//!
//! Counts are of the process, by limit. A text counts as often as it is read, so that shares are those of what the model
//! saw.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Texts that were read under a limit of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cuts {
    /// Texts, pairs or prompts that were read.
    pub texts: u64,
    /// Those of them that were too long.
    pub cut: u64,
    /// Tokens of all, without special ones.
    pub tokens: u64,
    /// Tokens of these that were not read.
    pub unread: u64,
}

impl Cuts {
    /// Share of the tokens that was not read.
    pub fn unread_share(&self) -> f64 {
        self.unread as f64 / self.tokens.max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.texts += other.texts;
        self.cut += other.cut;
        self.tokens += other.tokens;
        self.unread += other.unread;
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.unread_share();
        write!(f, "{} of {} texts cut, {share:.1} % of their tokens unread", self.cut, self.texts)
    }
}

/// Counts by limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CutLog(BTreeMap<usize, Cuts>);

impl CutLog {
    /// What was read since it was last asked for.
    pub fn take() -> Self {
        Self(std::mem::take(&mut *ledger()))
    }

    /// All limits together.
    pub fn total(&self) -> Cuts {
        self.0.values().fold(Cuts::default(), |mut all, one| {
            all.add(*one);
            all
        })
    }

    /// Limits and counts, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Cuts)> {
        self.0.iter().map(|(limit, cuts)| (*limit, *cuts))
    }
}

impl fmt::Display for CutLog {
    /// The limits that cut something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = self.iter().filter(|(_, cuts)| cuts.cut > 0);
        let lines: Vec<String> =
            cut.map(|(limit, cuts)| format!("longer than {limit} tokens: {cuts}")).collect();
        f.write_str(&lines.join("; "))
    }
}

fn ledger() -> MutexGuard<'static, BTreeMap<usize, Cuts>> {
    static LEDGER: Mutex<BTreeMap<usize, Cuts>> = Mutex::new(BTreeMap::new());
    // Counts stay usable when another thread panicked between two of them.
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the texts of a batch, on any thread.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; 4]);

impl Tally {
    /// A text of so many tokens, of which so many are kept.
    pub(crate) fn text(&self, tokens: usize, kept: usize) {
        let unread = tokens.saturating_sub(kept) as u64;
        for (at, n) in [1, u64::from(unread > 0), tokens as u64, unread].into_iter().enumerate() {
            self.0[at].fetch_add(n, Ordering::Relaxed);
        }
    }

    /// What was counted, which goes into the process's counts.
    pub(crate) fn close(self, limit: Option<usize>) -> Cuts {
        let [texts, cut, tokens, unread] = self.0.map(AtomicU64::into_inner);
        let cuts = Cuts { texts, cut, tokens, unread };
        if let Some(limit) = limit.filter(|&limit| limit < usize::MAX) {
            ledger().entry(limit).or_default().add(cuts);
        }
        cuts
    }
}
