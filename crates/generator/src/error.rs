//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in training a generator or decoding with it.
    pub enum Error {
        from {
            /// libtorch, weights, devices.
            Torch(ragduet_torch::Error),
            /// Model directories, the hub.
            Nn(ragduet_nn::Error),
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
            /// Reading and writing data.
            Data(ragduet_data::Error),
            /// Indexes.
            Index(ragduet_index::Error),
            /// Measures.
            Metrics(ragduet_metrics::Error),
            /// Classifiers that judge answers.
            Classifier(ragduet_classifier::Error),
            /// Run directories, checkpoints, configs.
            Train(ragduet_train::Error),
            /// A file could not be read or written.
            Io(std::io::Error),
        }
        /// The model gave something that no token can be chosen from.
        #[error("decoding: {0}")]
        Decoding(String),
    }
}

/// [`ragduet_torch::catch`] with this crate's errors.
pub(crate) fn catch<T>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    ragduet_torch::catch(during, remedy, f)
}
