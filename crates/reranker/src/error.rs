//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in training a cross-encoder or asking it.
    pub enum Error {
        from {
            /// The model as a classifier.
            Classifier(ragduet_classifier::Error),
            /// Tokenizers and chat templates.
            Text(ragduet_text::Error),
            /// The retriever.
            Retriever(ragduet_retriever::Error),
        }
    }
}
