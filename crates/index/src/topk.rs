//! The best `k` of a stream of hits, in `O(k)` memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::Hit;

/// Orders by score, and among equal scores puts the smaller id first: `Greater` is better.
#[inline]
pub(crate) fn compare(a: &Hit, b: &Hit) -> Ordering {
    a.score.total_cmp(&b.score).then_with(|| b.id.cmp(&a.id))
}

/// A hit ordered so that a max-heap has the worst on top.
#[derive(Debug, Clone, Copy)]
struct Worst(Hit);

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&other.0, &self.0)
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worst {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Worst {}

/// Keeps the best `k` hits that were pushed.
#[derive(Debug, Clone)]
pub(crate) struct TopK {
    k: usize,
    heap: BinaryHeap<Worst>,
    /// No score below this can enter; read in the innermost loop.
    floor: f32,
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new(), floor: if k == 0 { f32::INFINITY } else { f32::NEG_INFINITY } }
    }

    /// Another of the same size, with nothing in it.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.k)
    }

    #[inline]
    pub(crate) fn push(&mut self, hit: Hit) {
        if hit.score >= self.floor {
            self.push_slow(hit);
        }
    }

    fn push_slow(&mut self, hit: Hit) {
        if self.heap.len() < self.k {
            self.heap.push(Worst(hit));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && compare(&hit, &worst.0) == Ordering::Greater
        {
            *worst = Worst(hit);
        }
        if self.heap.len() == self.k {
            self.floor = self.heap.peek().map_or(f32::INFINITY, |worst| worst.0.score);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.heap.len() >= self.k
    }

    /// The score that a new hit must reach; only meaningful once full.
    pub(crate) fn floor(&self) -> f32 {
        self.floor
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for hit in other.heap {
            self.push(hit.0);
        }
    }

    /// Best first.
    pub(crate) fn into_sorted(self) -> Vec<Hit> {
        // Ascending order of `Worst` is best first.
        self.heap.into_sorted_vec().into_iter().map(|worst| worst.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_sorting_everything(scores in proptest::collection::vec(-4i32..5, 0..60), k in 0usize..20) {
            let hits: Vec<Hit> =
                scores.iter().enumerate().map(|(id, s)| Hit { id: id as u32, score: *s as f32 / 2.0 }).collect();
            let mut sorted = hits.clone();
            sorted.sort_by(|a, b| compare(b, a));
            sorted.truncate(k);
            let (mut top, mut half) = (TopK::new(k), TopK::new(k));
            for (i, hit) in hits.iter().enumerate() {
                if i % 2 == 0 { top.push(*hit) } else { half.push(*hit) }
            }
            top.merge(half);
            prop_assert_eq!(top.into_sorted(), sorted);
        }
    }
}
