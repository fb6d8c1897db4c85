//! Which rows may come back from a search: a set of ids, one bit each.

/// A set of allowed or of denied rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdFilter {
    bits: Vec<u64>,
    listed: usize,
    /// Whether the listed ids are the allowed ones.
    allow: bool,
}

impl IdFilter {
    /// Only these rows may come back.
    pub fn allow(ids: impl IntoIterator<Item = u32>) -> Self {
        Self::new(ids, true)
    }

    /// Any row but these may come back.
    pub fn deny(ids: impl IntoIterator<Item = u32>) -> Self {
        Self::new(ids, false)
    }

    fn new(ids: impl IntoIterator<Item = u32>, allow: bool) -> Self {
        let (mut bits, mut listed) = (Vec::new(), 0);
        for id in ids {
            let (word, bit) = (id as usize / 64, 1u64 << (id % 64));
            if word >= bits.len() {
                bits.resize(word + 1, 0);
            }
            listed += usize::from(bits[word] & bit == 0);
            bits[word] |= bit;
        }
        Self { bits, listed, allow }
    }

    /// Whether a row may come back.
    #[inline]
    pub fn allows(&self, id: u32) -> bool {
        let word = self.bits.get(id as usize / 64).copied().unwrap_or(0);
        (word >> (id % 64) & 1 == 1) == self.allow
    }

    /// How many of the rows `0..len` may come back.
    pub fn count_allowed(&self, len: usize) -> usize {
        let beyond = len.div_ceil(64) < self.bits.len()
            || (!len.is_multiple_of(64) && len.div_ceil(64) == self.bits.len());
        let listed = if beyond {
            let whole: usize = self.bits[..len / 64].iter().map(|w| w.count_ones() as usize).sum();
            let last = self.bits.get(len / 64).copied().unwrap_or(0) & ((1u64 << (len % 64)) - 1);
            whole + last.count_ones() as usize
        } else {
            self.listed
        };
        if self.allow { listed } else { len - listed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_it_allows() {
        for ids in [vec![], vec![0], vec![3, 3, 64, 130], (0..200).collect(), vec![63], vec![1_000_000]] {
            for filter in [IdFilter::allow(ids.clone()), IdFilter::deny(ids.clone())] {
                for len in [0, 1, 63, 64, 65, 128, 131, 192, 500] {
                    let counted = (0..len as u32).filter(|&id| filter.allows(id)).count();
                    assert_eq!(filter.count_allowed(len), counted, "{ids:?} {len}");
                }
            }
        }
        assert!(!IdFilter::allow([3]).allows(u32::MAX));
        assert!(IdFilter::deny([3]).allows(u32::MAX));
    }
}
