//! The crate's error type.

ragduet_train::error_enum! {
    /// What can go wrong in training a classifier or asking it.
    pub enum Error {
        from {
            /// Reading and writing data.
            Data(ragduet_data::Error),
            /// Tokenizers, templates.
            Text(ragduet_text::Error),
            /// Model directories, the hub.
            Nn(ragduet_nn::Error),
            /// libtorch, weights, devices.
            Torch(ragduet_torch::Error),
            /// Measures, run files.
            Metrics(ragduet_metrics::Error),
            /// Run directories, checkpoints, configs.
            Train(ragduet_train::Error),
            /// A file could not be read or written.
            Io(std::io::Error),
        }
    }
}
