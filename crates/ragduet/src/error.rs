//! The one error of the library.

/// What can go wrong. Messages name the place (file, line, key, step) and a remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model, an index or a pipeline that does not load.
    #[error("cannot load the {what} `{name}`: {cause}")]
    Load {
        /// What was to be loaded: retriever, generator, cross-encoder.
        what: &'static str,
        /// Its folder or hub id.
        name: String,
        /// Why not.
        cause: Box<Error>,
    },
    /// An argument or setting of a call that cannot work.
    #[error("{0}")]
    Argument(String),
    /// Encoding, searching and training with a retriever.
    #[error(transparent)]
    Retriever(#[from] ragduet_retriever::Error),
    /// Prompts, decoding and training with a generator.
    #[error(transparent)]
    Generator(#[from] ragduet_generator::Error),
    /// Re-ranking.
    #[error(transparent)]
    CrossEncoder(#[from] ragduet_reranker::Error),
    /// Training a classifier.
    #[error(transparent)]
    Classifier(#[from] ragduet_classifier::Error),
    /// Pipelines and joint training.
    #[error(transparent)]
    Joint(#[from] ragduet_joint::Error),
    /// Configs and run folders.
    #[error(transparent)]
    Train(#[from] ragduet_train::Error),
    /// Files of data.
    #[error(transparent)]
    Data(#[from] ragduet_data::Error),
    /// Files of an index.
    #[error(transparent)]
    Index(#[from] ragduet_index::Error),
    /// A hub id or folder of no model.
    #[error(transparent)]
    Model(#[from] ragduet_nn::Error),
    /// Devices, libtorch.
    #[error(transparent)]
    Torch(#[from] ragduet_torch::Error),
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
