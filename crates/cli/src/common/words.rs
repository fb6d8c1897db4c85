//! How BM25 makes terms of texts, for the commands that build its index.

use super::Usage;
use anyhow::Result;
use ragduet_index::{LexicalConfig, Stemmer, Stopwords};

/// Stemmer and stop words.
#[derive(Debug, Clone, clap::Args)]
pub struct WordArgs {
    /// BM25 stemmer: porter (as Lucene's English analyzer), none, or a Snowball language.
    #[arg(long, value_parser = stemmer, default_value = "porter")]
    stemmer: Stemmer,
    /// BM25 stop words: auto (English ones beside an English stemmer, else none), none, english, or a file with a word a
    /// line.
    #[arg(long, value_name = "WORDS", default_value = "auto")]
    stopwords: String,
}

fn stemmer(name: &str) -> Result<Stemmer, String> {
    serde_json::from_value(name.into()).map_err(|e| e.to_string())
}

impl WordArgs {
    /// The settings; what is not asked for is the default.
    pub fn config(&self) -> Result<LexicalConfig> {
        let stopwords = match self.stopwords.as_str() {
            "auto" => Stopwords::Auto,
            "none" => Stopwords::None,
            "english" => Stopwords::English,
            path => {
                let text = fs_err::read_to_string(path)
                    .map_err(|e| Usage(format!("--stopwords is auto, none, english or a file: {e}")))?;
                Stopwords::List(text.split_whitespace().map(str::to_owned).collect())
            }
        };
        Ok(LexicalConfig { stemmer: self.stemmer, stopwords, ..LexicalConfig::default() })
    }
}
