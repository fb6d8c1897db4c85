//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in training a generator or decoding with it.
    pub enum Error {
        from {
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
            /// Indexes.
            Index(ragduet_index::Error),
            /// Classifiers that judge answers.
            Classifier(ragduet_classifier::Error),
        }
        /// The model gave something that no token can be chosen from.
        #[error("decoding: {0}")]
        Decoding(String),
    }
}
