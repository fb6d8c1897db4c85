//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in training a classifier or asking it.
    pub enum Error {
        from {
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
        }
    }
}
