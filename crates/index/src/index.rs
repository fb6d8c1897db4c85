//! What every index can do: reading and adding are separate traits, so that a search takes no more than it needs.

use std::ops::Range;
use std::path::Path;

use crate::{Hit, IdMap, IndexKind, Result, SearchParams, Similarity, Vectors};

/// An index that can be searched.
pub trait VectorIndex: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> IndexKind;

    /// How many rows it has; their ids are `0..len`.
    fn len(&self) -> usize;

    /// Whether it has no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers per vector.
    fn dim(&self) -> usize;

    /// Bytes that are kept for the rows: vectors, codes, links.
    fn bytes(&self) -> usize;

    /// How vectors are compared.
    fn similarity(&self) -> Similarity;

    /// The hits of each query, best first; equal scores are in ascending order of ids. Queries are searched in
    /// parallel; the memory for the hits grows with their number, so search for millions of queries in
    /// [blocks](Vectors::blocks).
    fn search(&self, queries: Vectors<'_>, params: &SearchParams<'_>) -> Result<Vec<Vec<Hit>>>;

    /// A row as it is stored: scaled to length 1 under the cosine, rounded or compressed where
    /// that is how rows are kept.
    fn row(&self, id: u32) -> Result<Vec<f32>>;

    /// Writes the index as a directory, with external ids if there are any. An index that is there is replaced.
    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()>;

    /// Writes the index as a directory. An index that is there is replaced.
    fn save(&self, dir: &Path) -> Result<()> {
        self.save_with_ids(dir, None)
    }
}

/// An index that grows.
pub trait VectorIndexMut: VectorIndex {
    /// Appends rows and returns their ids: all are added or none. `progress(done, total)` is called now and then,
    /// always from the calling thread.
    fn add_with_progress(
        &mut self,
        vectors: Vectors<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Range<u32>>;

    /// Appends rows and returns their ids: all are added or none.
    fn add(&mut self, vectors: Vectors<'_>) -> Result<Range<u32>> {
        self.add_with_progress(vectors, &|_, _| ())
    }
}
