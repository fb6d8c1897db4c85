//! What goes into an index and what comes out: rows of numbers, hits, and how a search is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, IdFilter, Result};

/// Rows of `f32`, one after the other in one slice.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    data: &'a [f32],
    dim: usize,
}

impl<'a> Vectors<'a> {
    /// Checks that `data` is a whole number of rows of `dim` numbers.
    pub fn new(data: &'a [f32], dim: usize) -> Result<Self> {
        if dim == 0 || !data.len().is_multiple_of(dim) {
            return Err(Error::NotRows { len: data.len(), dim });
        }
        Ok(Self { data, dim })
    }

    /// A slice that is known to be whole rows.
    pub(crate) fn of(data: &'a [f32], dim: usize) -> Self {
        Self { data, dim }
    }

    /// Numbers per row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// All rows in one slice.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// One row; panics if there is none of that number, as slices do.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.dim..(row + 1) * self.dim]
    }

    /// The rows in order.
    pub fn rows(&self) -> std::slice::ChunksExact<'a, f32> {
        self.data.chunks_exact(self.dim)
    }

    /// Blocks of at most `rows` rows: how a large set is searched for in bounded memory.
    pub fn blocks(&self, rows: usize) -> impl Iterator<Item = Vectors<'a>> {
        let dim = self.dim;
        self.data.chunks(rows.max(1) * dim).map(move |data| Vectors { data, dim })
    }
}

/// A row found, and how similar it is to the query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Hit {
    /// The row.
    pub id: u32,
    /// The similarity: greater is nearer.
    pub score: f32,
}

/// How two vectors are compared. Greater is always nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The inner product of the vectors as they are.
    Dot,
    /// The inner product of the vectors scaled to length 1. An index with this similarity stores them so.
    #[default]
    Cosine,
}

/// How a search is asked for.
#[derive(Debug, Clone, Copy)]
pub struct SearchParams<'a> {
    /// Hits per query; fewer come back only where fewer rows pass the filter.
    pub k: usize,
    /// Which rows may come back; `None` allows all.
    pub filter: Option<&'a IdFilter>,
    /// How widely an approximate index looks, at least `k`: HNSW's `ef`, or how many rows a compressed index scores
    /// again. `None` takes the index's own setting. Exact indexes ignore it.
    pub ef: Option<usize>,
}

impl SearchParams<'_> {
    /// The best `k` of all rows.
    pub fn top(k: usize) -> Self {
        Self { k, filter: None, ef: None }
    }
}

/// The kinds of index there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// Every query against every row.
    Exact,
    /// A navigable graph.
    Hnsw,
    /// Every query against every row, of which less is kept than was given.
    Compressed,
    /// Words and where they stand.
    Lexical,
    /// Several vectors a passage, compared by MaxSim.
    MultiVector,
    /// Weights of words, as a model gives them.
    Sparse,
}

impl std::fmt::Display for IndexKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Hnsw => "HNSW",
            Self::Compressed => "compressed",
            Self::Lexical => "lexical",
            Self::MultiVector => "multi-vector",
            Self::Sparse => "sparse",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_slices_are_refused() {
        assert!(matches!(Vectors::new(&[1.0; 7], 3), Err(Error::NotRows { len: 7, dim: 3 })));
        assert!(Vectors::new(&[], 0).is_err());
        let numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let rows = Vectors::new(&numbers, 2).unwrap();
        assert_eq!((rows.len(), rows.row(1)), (3, &[3.0, 4.0][..]));
        assert_eq!(rows.blocks(2).map(|b| b.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(Vectors::new(&[], 2).unwrap().is_empty());
    }
}
