//! Passages and queries of several vectors each, and how they are searched for.

use crate::{Error, IdFilter, Result, Vectors};

/// Sets of token vectors, one set a passage (or query), one after the other in one slice.
#[derive(Debug, Clone, Copy)]
pub struct MultiVectors<'a> {
    data: &'a [f32],
    offsets: &'a [usize],
    dim: usize,
}

impl<'a> MultiVectors<'a> {
    /// Set `i` is the rows `offsets[i]..offsets[i + 1]` of `data`; a set may be empty. Checks that the offsets rise
    /// from 0 to the number of rows.
    pub fn new(data: &'a [f32], offsets: &'a [usize], dim: usize) -> Result<Self> {
        let rows = Vectors::new(data, dim)?.len();
        let bad = |problem: String| Err(Error::Offsets { problem });
        match (offsets.first(), offsets.last()) {
            (Some(0), Some(&last)) if last == rows => {}
            (Some(0), Some(last)) => return bad(format!("they end at {last}, the vectors at {rows}")),
            _ => return bad("they do not begin with 0".to_owned()),
        }
        if let Some(at) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return bad(format!("{} is followed by {}", offsets[at], offsets[at + 1]));
        }
        Ok(Self { data, offsets, dim })
    }

    /// Numbers per vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many sets there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vectors of all sets.
    pub fn vectors(&self) -> Vectors<'a> {
        Vectors::of(self.data, self.dim)
    }

    /// Vectors of all sets together.
    pub fn tokens(&self) -> usize {
        self.data.len() / self.dim
    }

    /// The vectors of one set; panics if there is none of that number, as slices do.
    pub fn set(&self, set: usize) -> Vectors<'a> {
        Vectors::of(&self.data[self.offsets[set] * self.dim..self.offsets[set + 1] * self.dim], self.dim)
    }

    /// The sets in order.
    pub fn sets(&self) -> impl Iterator<Item = Vectors<'a>> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |set| this.set(set))
    }

    /// The number of vectors in each set.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// How a multi-vector index is searched. What is `None` is chosen by the index; an exact one looks at `k` and `filter`
/// only.
///
/// The chosen values lean towards quality: what they cost and find is measured by
/// [`recall_of_multi_vectors`](crate::recall_of_multi_vectors). [`MultiSearchParams::plaid`] has those of PLAID.
#[derive(Debug, Clone, Copy)]
pub struct MultiSearchParams<'a> {
    /// Hits per query; fewer come back only where fewer passages pass the filter or are met.
    pub k: usize,
    /// Which passages may come back; `None` allows all.
    pub filter: Option<&'a IdFilter>,
    /// Centroids per query vector whose passages are candidates. `None` is 8.
    pub n_probe: Option<usize>,
    /// Candidates are first ranked by those of their centroids alone that are as similar as this to a query vector.
    /// `None` leaves this first ranking out: all candidates are ranked by all of their centroids.
    pub threshold: Option<f32>,
    /// Candidates that the first ranking keeps. `None` is 4096, or 16 `k` if that is more.
    pub n_docs: Option<usize>,
    /// Of these, how many are decompressed and scored by all their numbers. `None` is a quarter of `n_docs`.
    pub n_full: Option<usize>,
}

impl MultiSearchParams<'_> {
    /// The best `k` of all passages, with the index's own choice of everything else.
    pub fn top(k: usize) -> Self {
        Self { k, filter: None, n_probe: None, threshold: None, n_docs: None, n_full: None }
    }

    /// What PLAID (Santhanam et al., arXiv 2205.09707) searches with for the best `k`: faster, and it misses more.
    pub fn plaid(k: usize) -> Self {
        let (n_probe, threshold, n_docs) = match k {
            0..=10 => (1, 0.5, 256),
            11..=100 => (2, 0.45, 1024),
            _ => (4, 0.4, (4 * k).max(4096)),
        };
        Self { n_probe: Some(n_probe), threshold: Some(threshold), n_docs: Some(n_docs), ..Self::top(k) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_checked() {
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let sets = MultiVectors::new(&numbers, &[0, 1, 1, 3], 2).unwrap();
        assert_eq!((sets.len(), sets.tokens(), sets.set(2).row(1)), (3, 3, &[5.0, 6.0][..]));
        assert_eq!(sets.sets().map(|set| set.len()).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(sets.lengths().collect::<Vec<_>>(), [1, 0, 2]);
        for offsets in [&[][..], &[1, 3], &[0, 2], &[0, 4], &[0, 2, 1, 3]] {
            assert!(
                matches!(MultiVectors::new(&numbers, offsets, 2), Err(Error::Offsets { .. })),
                "{offsets:?}"
            );
        }
        assert!(MultiVectors::new(&numbers, &[0, 1], 4).is_err());
        assert!(MultiVectors::new(&[], &[0], 4).unwrap().is_empty());
    }
}
