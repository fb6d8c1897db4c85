//! Streams of records, as readers give them.

use crate::{Passage, Qrel, Query, Result, RetrievalExample};

/// A stream of examples. Ends after its first error.
pub type Examples = Box<dyn Iterator<Item = Result<RetrievalExample>> + Send>;

/// A stream of passages. Ends after its first error.
pub type Passages = Box<dyn Iterator<Item = Result<Passage>> + Send>;

/// A stream of queries. Ends after its first error.
pub type Queries = Box<dyn Iterator<Item = Result<Query>> + Send>;

/// A stream of judgements. Ends after its first error.
pub type Judgements = Box<dyn Iterator<Item = Result<Qrel>> + Send>;

/// Judgements with the lines where they stand.
pub(crate) type NumberedQrels = Box<dyn Iterator<Item = Result<(u64, Qrel)>> + Send>;

/// Examples on their way to a writer.
pub(crate) type ExampleIter<'a> = &'a mut dyn Iterator<Item = Result<RetrievalExample>>;
