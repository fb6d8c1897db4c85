//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in training a cross-encoder or asking it.
    pub enum Error {
        from {
            /// The model as a classifier.
            Classifier(ragduet_classifier::Error),
            /// The retriever.
            Retriever(ragduet_retriever::Error),
            /// libtorch, weights, devices.
            Torch(ragduet_torch::Error),
            /// Model directories, the hub.
            Nn(ragduet_nn::Error),
            /// Reading and writing data.
            Data(ragduet_data::Error),
            /// Measures, run files.
            Metrics(ragduet_metrics::Error),
            /// Run directories, checkpoints, configs.
            Train(ragduet_train::Error),
            /// A file could not be read or written.
            Io(std::io::Error),
        }
    }
}

/// [`ragduet_torch::catch`] with this crate's errors.
pub(crate) fn catch<T>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    ragduet_torch::catch(during, remedy, f)
}
