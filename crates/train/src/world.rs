//! The processes that train together: rank, size, and what they agree on.
//!
//! The loop and the recipes ask a [`World`] wherever the answer depends on all processes: what a loss is divided by,
//! whether to stop, whose turn it is to write. One process is the trivial case, in which nothing is exchanged.

use crate::Counts;
use ragduet_torch::Tensor;
use std::ops::Range;

/// The processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    rank: usize,
    size: usize,
}

impl World {
    /// One process.
    pub const fn single() -> Self {
        Self { rank: 0, size: 1 }
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process writes the run folder.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// The sum of all processes' counts.
    pub fn sum(&self, counts: Counts) -> Counts {
        debug_assert_eq!(self.size, 1, "one process");
        counts
    }

    /// Adds up the gradients of all processes, in place. Losses are divided by global counts, so a sum is right.
    pub fn sum_gradients(&self, _gradients: &[Tensor]) {
        debug_assert_eq!(self.size, 1, "one process");
    }

    /// Whether any process says so.
    pub fn any(&self, here: bool) -> bool {
        debug_assert_eq!(self.size, 1, "one process");
        here
    }

    /// Waits until all processes are here.
    pub fn barrier(&self) {
        debug_assert_eq!(self.size, 1, "one process");
    }

    /// This process's part of `len` things: consecutive, and as even as possible.
    pub fn shard(&self, len: usize) -> Range<usize> {
        let at = |rank: usize| rank * (len / self.size) + rank.min(len % self.size);
        at(self.rank)..at(self.rank + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_everything_once() {
        for size in 1..6 {
            for len in 0..20 {
                let parts: Vec<usize> = (0..size).flat_map(|rank| World { rank, size }.shard(len)).collect();
                assert_eq!(parts, (0..len).collect::<Vec<_>>());
                let sizes: Vec<usize> = (0..size).map(|rank| World { rank, size }.shard(len).len()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            }
        }
    }
}
