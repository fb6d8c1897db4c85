//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in joint training.
    pub enum Error {
        from {
            /// The retriever.
            Retriever(ragduet_retriever::Error),
            /// The cross-encoder.
            Reranker(ragduet_reranker::Error),
            /// The generator.
            Generator(ragduet_generator::Error),
            /// Indexes.
            Index(ragduet_index::Error),
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
        }
    }
}
