//! The error type of a crate of training methods.

/// Defines a crate's `Error`, with what all such crates have: errors of the crates below that are passed on as they are,
/// settings that cannot work, data that cannot be used. `from` lists further crates, whose errors are passed on likewise;
/// the crate's own variants follow it. Also `Result`; `bad`, which makes an error about a setting; and `catch`.
///
/// The crate needs `thiserror`, and depends on the crates of torch, nn, data and metrics.
#[macro_export]
macro_rules! error_enum {
    (
        $(#[$meta:meta])*
        pub enum Error {
            from { $($(#[$doc:meta])* $variant:ident($from:ty),)* }
            $($own:tt)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, ::thiserror::Error)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* #[error(transparent)] $variant(#[from] $from),)*
            /// libtorch, weights, devices.
            #[error(transparent)]
            Torch(#[from] ::ragduet_torch::Error),
            /// Model directories, the hub.
            #[error(transparent)]
            Nn(#[from] ::ragduet_nn::Error),
            /// Reading and writing data.
            #[error(transparent)]
            Data(#[from] ::ragduet_data::Error),
            /// Measures, run files.
            #[error(transparent)]
            Metrics(#[from] ::ragduet_metrics::Error),
            /// Run directories, checkpoints, configs.
            #[error(transparent)]
            Train(#[from] $crate::Error),
            /// A file could not be read or written.
            #[error(transparent)]
            Io(#[from] ::std::io::Error),
            /// A setting that cannot work.
            #[error("config: {key}: {why}")]
            Config {
                /// The key, dotted.
                key: String,
                /// What is wrong and what to do.
                why: String,
            },
            /// Data that cannot be used with these settings.
            #[error("data: {0}")]
            Unusable(String),
            $($own)*
        }

        /// This crate's result.
        pub type Result<T> = ::std::result::Result<T, Error>;

        /// A setting that cannot work.
        pub(crate) fn bad(key: &str, why: impl Into<String>) -> Error {
            Error::Config { key: key.into(), why: why.into() }
        }

        /// [`ragduet_torch::catch`] with this crate's errors.
        #[allow(dead_code)] // not every crate runs out of memory by itself
        pub(crate) fn catch<T>(during: &str, remedy: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
            ::ragduet_torch::catch(during, remedy, f)
        }
    };
}
