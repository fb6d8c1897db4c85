//! What can go wrong with a tokenizer, with the place and the remedy.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of loading, using, training or saving a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written; the message of `fs-err` names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// A GGUF file that cannot be read, or that holds no tokenizer that is.
    #[error(transparent)]
    Gguf(#[from] ragduet_gguf::Error),

    /// The directory holds no tokenizer that this crate can load.
    #[error("{}: no tokenizer.json{}; {remedy}", dir.display(), found_list(found))]
    NoTokenizer {
        /// The directory that was searched.
        dir: PathBuf,
        /// Tokenizer files that were found but do not suffice.
        found: Vec<String>,
        /// What to do about it.
        remedy: String,
    },

    /// A JSON file of the tokenizer is broken.
    #[error("{}: {source} (download or export the file again)", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },

    /// A tokenizer file parses but makes no sense.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        reason: String,
    },

    /// The length limit leaves no room for text.
    #[error("max_len {max_len} leaves no room for text beside {special} special tokens; raise it to at least {}", special + 1)]
    MaxLenTooSmall {
        /// The limit asked for.
        max_len: usize,
        /// Special tokens that the tokenizer adds.
        special: usize,
    },

    /// With [`crate::PairTruncation::OnlySecond`], the first text alone is over the limit.
    #[error(
        "pair {index}: the query alone takes {query} tokens of the {room} that max_len {max_len} leaves for text, \
         so cutting only the passage cannot help; raise max_len, shorten the query, or use longest_first"
    )]
    FirstTooLong {
        /// Which pair of the batch.
        index: usize,
        /// Tokens of the first text.
        query: usize,
        /// Tokens available for both texts.
        room: usize,
        /// The limit asked for.
        max_len: usize,
    },

    /// The `tokenizers` library refused a text.
    #[error("text {index} cannot be tokenized: {reason}")]
    Encode {
        /// Which text of the batch.
        index: usize,
        /// The reason given by the library.
        reason: String,
    },

    /// The `tokenizers` library refused ids.
    #[error("ids cannot be decoded: {reason}")]
    Decode {
        /// The reason given by the library.
        reason: String,
    },

    /// A tokenizer could not be trained from the texts given.
    #[error("tokenizer training: {reason}")]
    Train {
        /// What is missing, and the remedy.
        reason: String,
    },

    /// A chat template is broken, or refused the conversation.
    #[error("chat template: {reason}")]
    Template {
        /// Line and reason, or what the template itself said.
        reason: String,
    },

    /// The answers cannot be found in what a chat template renders, so no loss mask can be made.
    #[error(
        "chat template: the text before message {message} is not the beginning of the whole, so the answer cannot be \
         told from its prompt; mark answers with {{% generation %}} in the template. It renders:\n{rendered}"
    )]
    Unmaskable {
        /// Which message, from 0.
        message: usize,
        /// The conversation as the template renders it.
        rendered: String,
    },

    /// A prompt was asked for by a name that is not there.
    #[error("no prompt is named {name:?}; the prompts are {}", list(known))]
    UnknownPrompt {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

impl Error {
    /// Whether a chat template has no place for a conversation, which another conversation may have.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Template { .. } | Self::Unmaskable { .. })
    }
}

fn found_list(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" (found {})", found.join(", ")) }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
