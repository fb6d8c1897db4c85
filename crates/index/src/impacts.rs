//! An inverted index of impacts: what a term adds to the score of a text, whoever weighed it (BM25 or a model), and the
//! search that adds up as few of them as it can.

pub(crate) mod postings;
pub(crate) mod search;
