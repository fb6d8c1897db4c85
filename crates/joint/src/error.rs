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
            /// libtorch, weights, devices.
            Torch(ragduet_torch::Error),
            /// Model directories, the hub.
            Nn(ragduet_nn::Error),
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
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
