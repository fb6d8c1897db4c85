//! Batches for inference: order is free, so texts of similar length go together and the longest come first.

use crate::{Error, Result};

/// How the tokens of an inference batch are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthBudget {
    /// Longest row times number of rows: what a padded batch costs.
    Padded(u64),
    /// Sum of the rows: what a packed batch costs.
    Sum(u64),
}

/// Splits `0..lengths.len()` into batches of similar length, the longest first. Running out of memory, if at all,
/// happens at once and not after an hour.
///
/// Every index occurs exactly once. A batch has at most `max_rows` rows and is within the budget, but for a row that
/// alone is over it. A caller that streams passes one window of the stream at a time.
pub fn length_sorted_batches(
    lengths: &[u32],
    budget: LengthBudget,
    max_rows: usize,
) -> Result<Vec<Vec<u32>>> {
    let (LengthBudget::Padded(limit) | LengthBudget::Sum(limit)) = budget;
    for (key, value) in [("token_budget", limit), ("max_rows", max_rows as u64)] {
        if value == 0 {
            return Err(Error::Config { key: key.into(), reason: "must be at least 1".into() });
        }
    }
    let count = u32::try_from(lengths.len()).map_err(|_| Error::TooMany { what: "texts" })?;
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i as usize]));

    let mut batches: Vec<Vec<u32>> = Vec::new();
    let (mut batch, mut longest, mut sum) = (Vec::new(), 0u64, 0u64);
    for index in order {
        let length = u64::from(lengths[index as usize]);
        let cost = match budget {
            // Sorted, so the first row of a batch is its longest.
            LengthBudget::Padded(_) => longest.max(length) * (batch.len() as u64 + 1),
            LengthBudget::Sum(_) => sum + length,
        };
        if !batch.is_empty() && (batch.len() >= max_rows || cost > limit) {
            batches.push(std::mem::take(&mut batch));
            (longest, sum) = (0, 0);
        }
        batch.push(index);
        longest = longest.max(length);
        sum += length;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_once_and_within_budget(
            lengths in proptest::collection::vec(0u32..50, 0..200),
            limit in 1u64..200,
            max_rows in 1usize..20,
            padded: bool,
        ) {
            let budget = if padded { LengthBudget::Padded(limit) } else { LengthBudget::Sum(limit) };
            let batches = length_sorted_batches(&lengths, budget, max_rows).unwrap();
            let mut all: Vec<u32> = batches.concat();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..lengths.len() as u32));
            for batch in &batches {
                let tokens = batch.iter().map(|&i| u64::from(lengths[i as usize]));
                let cost = match budget {
                    LengthBudget::Padded(_) => tokens.clone().max().unwrap() * batch.len() as u64,
                    LengthBudget::Sum(_) => tokens.sum(),
                };
                prop_assert!(batch.len() <= max_rows && (cost <= limit || batch.len() == 1));
            }
        }
    }

    #[test]
    fn longest_first() {
        let batches = length_sorted_batches(&[1, 9, 5, 9], LengthBudget::Padded(18), 8).unwrap();
        assert_eq!(batches, [vec![1, 3], vec![2, 0]]);
    }
}
