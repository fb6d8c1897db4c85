//! The crate's error type.

use std::path::PathBuf;

ragduet_train::error_enum! {
    /// What can go wrong in training, mining, encoding or evaluating a retriever.
    pub enum Error {
        from {
            /// Indexes.
            Index(ragduet_index::Error),
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
        }
        /// A JSON file that does not parse.
        #[error("{path}: {source}")]
        Json {
            /// The file.
            path: PathBuf,
            /// Where and why.
            source: serde_json::Error,
        },
        /// A model directory with a part that is not implemented; guessing would give wrong embeddings.
        #[error("{path}: {what}")]
        UnsupportedModel {
            /// The file.
            path: PathBuf,
            /// What is not understood, and what is.
            what: String,
        },
        /// What a teacher that was handed in says.
        #[error("the teacher: {0}")]
        Teacher(Box<dyn std::error::Error + Send + Sync>),
        /// A late-interaction model where embeddings are wanted.
        #[error("this needs one vector a text, and a late-interaction model has one for each token")]
        SeveralVectors,
        /// A saved model does not give the embeddings of the one in memory.
        #[error("{path}: the saved model embeds `{text}` differently (largest difference {difference:.2e})")]
        Verify {
            /// The directory.
            path: PathBuf,
            /// The text.
            text: String,
            /// How far off.
            difference: f64,
        },
    }
}
