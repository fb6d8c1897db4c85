//! The error type of a crate of training methods.

/// Defines a crate's `Error`, with what all such crates have: errors of other crates that are passed on as they are,
/// settings that cannot work, data that cannot be used. The crate's own variants follow `from`. Also `Result` and `bad`,
/// which makes an error about a setting.
///
/// The crate needs `thiserror`.
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
    };
}
