//! An inverted index of impacts: what a term adds to the score of a text, whoever weighed it (BM25 or a model), and the
//! search that adds up as few of them as it can.
//!
//! BM25 and SPLADE differ in who says what a term adds to a text, not in the search, so the index of a sparse model is
//! as exact and as fast as the lexical one.

pub(crate) mod postings;
pub(crate) mod search;
