//! What the retriever learns from the generator.
