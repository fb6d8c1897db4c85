//! Settings of a lexical index.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::Stemmer;
use crate::{Error, Result};

/// BM25: text analysis and scoring.
///
/// The defaults are those of the published BM25 figures on BEIR: Lucene's `EnglishAnalyzer`, k1 = 0.9, b = 0.4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LexicalConfig {
    /// BM25 variant.
    pub variant: Bm25Variant,
    /// k1: term-frequency saturation; 0: term frequency is ignored.
    pub k1: f64,
    /// b: document-length normalization; 0: none, 1: full.
    pub b: f64,
    /// delta: lower bound of a term occurrence's contribution, for `bm25l` (0.5 as published) and `bm25plus` (1).
    pub delta: f64,
    /// Word segmentation.
    pub words: Words,
    /// Lower-casing. Stemmers expect it.
    pub lowercase: bool,
    /// Stop words, removed from texts and queries.
    pub stopwords: Stopwords,
    /// Stemmer.
    pub stemmer: Stemmer,
}

impl Default for LexicalConfig {
    fn default() -> Self {
        Self {
            variant: Bm25Variant::default(),
            k1: 0.9,
            b: 0.4,
            delta: 0.5,
            words: Words::default(),
            lowercase: true,
            stopwords: Stopwords::default(),
            stemmer: Stemmer::default(),
        }
    }
}

/// The variants of BM25, by the names and the formulas of Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020), as
/// bm25s has them; see `scoring.rs` for the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bm25Variant {
    /// Lucene's, with exact lengths: its idf is never 0.
    #[default]
    Lucene,
    /// The original (Robertson et al., TREC-3). A term in half of all texts or more counts nothing.
    Robertson,
    /// ATIRE's (Trotman et al. 2014).
    Atire,
    /// BM25L (Lv and Zhai, SIGIR 2011): kinder to long texts.
    Bm25l,
    /// BM25+ (Lv and Zhai, CIKM 2011): an occurrence counts at least `delta`.
    Bm25plus,
}

/// Word segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Words {
    /// Unicode word boundaries (annex 29), as Lucene's `StandardTokenizer`: `don't`, `3.5`, `U.S`, single letters and
    /// each Han character are words.
    #[default]
    Unicode,
    /// Runs of at least two letters, digits or underscores: `\w\w+`, as in bm25s and scikit-learn. Unlike Python's
    /// `\w`, a combining vowel sign is part of its word.
    WordCharacters,
    /// White space only: for pre-tokenized texts.
    Whitespace,
}

/// Stop words.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stopwords {
    /// Those of the stemmer's language: English ones beside an English stemmer, none beside any other.
    #[default]
    Auto,
    /// No word is removed.
    None,
    /// Lucene's 33 English stop words (also bm25s').
    English,
    /// The given words; lower case if `lowercase` is set.
    List(Vec<String>),
}

impl LexicalConfig {
    /// Whitespace between terms, and nothing else: for texts that were analysed elsewhere.
    pub fn terms_as_they_are() -> Self {
        Self {
            words: Words::Whitespace,
            lowercase: false,
            stopwords: Stopwords::None,
            stemmer: Stemmer::None,
            ..Self::default()
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let bad = |key, got: f64, remedy| Err(Error::BadConfig { key, got: got.to_string(), remedy });
        if !(0.0..=100.0).contains(&self.k1) {
            return bad("k1", self.k1, "it lies between 0 and 100; 0.9 and 1.2 are usual");
        }
        if !(0.0..=1.0).contains(&self.b) {
            return bad("b", self.b, "it lies between 0 and 1; 0.4 and 0.75 are usual");
        }
        if !(0.0..=100.0).contains(&self.delta) {
            return bad("delta", self.delta, "it lies between 0 and 100; 0.5 and 1 are usual");
        }
        Ok(())
    }
}
