//! Packing: examples into rows of a fixed capacity, whole.

use std::collections::BTreeMap;

/// The rows of a packing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packing {
    /// Indices of examples, row by row.
    pub rows: Vec<Vec<usize>>,
    /// Examples longer than a row; they are in no row.
    pub overlong: Vec<usize>,
}

impl Packing {
    /// Tokens in rows as a share of the rows' capacity; 0 without rows.
    pub fn fill(&self, lengths: &[usize], capacity: usize) -> f64 {
        let tokens: usize = self.rows.iter().flatten().map(|&i| lengths[i]).sum();
        if self.rows.is_empty() { 0.0 } else { tokens as f64 / (self.rows.len() * capacity) as f64 }
    }
}

/// Best-fit decreasing: the longest example first, each into the fullest row that still takes it. O(n log n), and the
/// same rows for the same lengths. Unlike TRL's `bfd`, an example longer than a row is reported, not cut.
///
/// `lengths` and `capacity` in tokens. Rows come in the order in which they were begun.
pub fn pack_best_fit(lengths: &[usize], capacity: usize) -> Packing {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // Stable: equal lengths stay in the order of the data.
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut packing = Packing::default();
    // Rows by the room they have left. There are at most `capacity` keys.
    let mut by_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in order {
        let length = lengths[index];
        if length > capacity {
            packing.overlong.push(index);
            continue;
        }
        let found = by_room.range_mut(length..).next().and_then(|(&room, rows)| {
            let row = rows.pop()?;
            Some((room, row, rows.is_empty()))
        });
        let (room, row) = match found {
            Some((room, row, last)) => {
                if last {
                    by_room.remove(&room);
                }
                (room, row)
            }
            None => {
                packing.rows.push(Vec::new());
                (capacity, packing.rows.len() - 1)
            }
        };
        packing.rows[row].push(index);
        by_room.entry(room - length).or_default().push(row);
    }
    packing.overlong.sort_unstable();
    packing
}

/// Rows of consecutive examples, each as long as the capacity allows: for streams, whose order must be kept.
pub fn pack_in_order(lengths: &[usize], capacity: usize) -> Packing {
    let mut packing = Packing::default();
    let mut room = 0;
    for (index, &length) in lengths.iter().enumerate() {
        if length > capacity {
            packing.overlong.push(index);
            continue;
        }
        match packing.rows.last_mut() {
            Some(row) if length <= room => row.push(index),
            _ => {
                packing.rows.push(vec![index]);
                room = capacity;
            }
        }
        room -= length;
    }
    packing
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_example_once_and_no_row_over(
            lengths in prop::collection::vec(0usize..60, 0..200),
            capacity in 1usize..50,
        ) {
            for pack in [pack_best_fit, pack_in_order] {
                let packing = pack(&lengths, capacity);
                prop_assert_eq!(&packing, &pack(&lengths, capacity));
                let mut seen: Vec<usize> = packing.rows.concat();
                for row in &packing.rows {
                    prop_assert!(!row.is_empty() && row.iter().map(|&i| lengths[i]).sum::<usize>() <= capacity);
                }
                prop_assert!(packing.overlong.iter().all(|&i| lengths[i] > capacity));
                seen.extend(&packing.overlong);
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            }
        }

        #[test]
        fn best_fit_leaves_no_two_half_empty_rows(
            lengths in prop::collection::vec(1usize..=20, 1..200),
        ) {
            // Any-fit: two rows that fit into one would have been one.
            let packing = pack_best_fit(&lengths, 20);
            let mut sums: Vec<usize> =
                packing.rows.iter().map(|row| row.iter().map(|&i| lengths[i]).sum()).collect();
            sums.sort_unstable();
            prop_assert!(sums.len() < 2 || sums[0] + sums[1] > 20);
        }
    }

    #[test]
    fn the_fullest_row_that_takes_it() {
        // 7 | 6 | 4 into the row of 6 (room 4), 3 into that of 7 (room 3).
        let packing = pack_best_fit(&[3, 7, 4, 6, 11], 10);
        assert_eq!(packing, Packing { rows: vec![vec![1, 0], vec![3, 2]], overlong: vec![4] });
        assert_eq!(packing.fill(&[3, 7, 4, 6, 11], 10), 1.0);
        assert_eq!(pack_in_order(&[3, 7, 4, 6], 10).rows, [vec![0, 1], vec![2, 3]]);
    }
}
