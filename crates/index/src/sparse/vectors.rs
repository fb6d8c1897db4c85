//! Rows of weights of which most are 0.

use crate::rows::MAX_ROWS;
use crate::{Error, Result};

/// Texts as weights of words: of each the words with a weight above 0, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseVectors {
    dim: usize,
    /// Where each text's words end.
    ends: Vec<usize>,
    words: Vec<u32>,
    weights: Vec<f32>,
}

impl SparseVectors {
    /// None yet, over `dim` words.
    pub fn new(dim: usize) -> Self {
        Self { dim, ends: Vec::new(), words: Vec::new(), weights: Vec::new() }
    }

    /// How many words there are.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Weights above 0, of all texts together.
    pub fn active(&self) -> usize {
        self.words.len()
    }

    /// A text's words and their weights, by ascending word.
    ///
    /// # Panics
    /// Beyond the last text.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let range = if row == 0 { 0 } else { self.ends[row - 1] }..self.ends[row];
        self.words[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }

    /// The inner product of a text with one of others.
    ///
    /// # Panics
    /// Beyond the last text.
    pub fn dot(&self, row: usize, others: &Self, other: usize) -> f32 {
        let mut sum = 0.0;
        let mut right = others.row(other).peekable();
        for (word, weight) in self.row(row) {
            while right.next_if(|(w, _)| *w < word).is_some() {}
            if let Some((_, w)) = right.next_if(|(w, _)| *w == word) {
                sum += weight * w;
            }
        }
        sum
    }

    /// Appends a text given as a weight for every word.
    ///
    /// # Errors
    /// Another number of words; weights that are negative, NaN or infinite; more texts than an index holds.
    pub fn push_dense(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.dim {
            return Err(Error::Dimension { expected: self.dim, got: row.len() });
        }
        self.push(row.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(word, &w)| (word as u32, w)))
    }

    /// Appends a text given as words, ascending, and their weights.
    ///
    /// # Errors
    /// As [`SparseVectors::push_dense`]; words out of order.
    pub fn push(&mut self, row: impl IntoIterator<Item = (u32, f32)>) -> Result<()> {
        let (text, start) = (self.len(), self.words.len());
        if text >= MAX_ROWS {
            return Err(Error::TooManyRows { rows: text + 1, limit: MAX_ROWS });
        }
        for (word, weight) in row {
            let ascending = self.words[start..].last().is_none_or(|&before| before < word);
            if !(ascending && (word as usize) < self.dim && weight.is_finite() && weight >= 0.0) {
                self.words.truncate(start);
                self.weights.truncate(start);
                return Err(Error::BadWeight { row: text, word, weight });
            }
            if weight > 0.0 {
                self.words.push(word);
                self.weights.push(weight);
            }
        }
        self.ends.push(self.words.len());
        Ok(())
    }

    /// Appends the texts of another.
    ///
    /// # Errors
    /// Another number of words; more texts than an index holds.
    pub fn append(&mut self, other: &Self) -> Result<()> {
        if other.dim != self.dim {
            return Err(Error::Dimension { expected: self.dim, got: other.dim });
        }
        let rows = self.len() + other.len();
        if rows > MAX_ROWS {
            return Err(Error::TooManyRows { rows, limit: MAX_ROWS });
        }
        let before = self.words.len();
        self.ends.extend(other.ends.iter().map(|end| before + end));
        self.words.extend_from_slice(&other.words);
        self.weights.extend_from_slice(&other.weights);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_was_pushed_and_bad_ones_leave_no_trace() {
        let mut v = SparseVectors::new(4);
        v.push_dense(&[0.0, 2.0, 0.0, 1.0]).unwrap();
        for bad in [[0.0, f32::NAN, 0.0, 0.0], [1.0, 0.0, -1.0, 0.0], [f32::INFINITY, 0.0, 0.0, 0.0]] {
            assert!(matches!(v.push_dense(&bad), Err(Error::BadWeight { row: 1, .. })));
        }
        assert!(v.push_dense(&[1.0]).is_err());
        assert!(v.push([(2, 1.0), (1, 1.0)]).is_err());
        assert!(v.push([(4, 1.0)]).is_err());
        v.push([(0, 1.0), (1, 0.0), (3, 3.0)]).unwrap();
        v.push_dense(&[0.0; 4]).unwrap();
        let rows: Vec<Vec<(u32, f32)>> = (0..v.len()).map(|i| v.row(i).collect()).collect();
        assert_eq!(rows, [vec![(1, 2.0), (3, 1.0)], vec![(0, 1.0), (3, 3.0)], vec![]]);
        assert_eq!((v.dot(0, &v, 1), v.dot(0, &v, 0), v.dot(1, &v, 2)), (3.0, 5.0, 0.0));
        let mut twice = v.clone();
        twice.append(&v).unwrap();
        assert_eq!((twice.len(), twice.active()), (6, 8));
        assert!(twice.row(4).eq(v.row(1)));
        assert!(twice.append(&SparseVectors::new(3)).is_err());
    }
}
