//! Settings of a lexical index.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::Stemmer;
use crate::{Error, Result};

/// Settings of a lexical index: how texts become terms, and how terms become scores.
///
/// The defaults are those behind the published BM25 figures on BEIR: Lucene's `EnglishAnalyzer`, k1 = 0.9, b = 0.4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LexicalConfig {
    /// Which BM25.
    pub variant: Bm25Variant,
    /// How soon more occurrences of a term in a text stop counting: 0 counts the first alone.
    pub k1: f64,
    /// How much long texts are marked down: 0 not at all, 1 in proportion to their length.
    pub b: f64,
    /// What every occurrence counts at least; `bm25l` and `bm25plus` alone have it. Their authors take 0.5 and 1.
    pub delta: f64,
    /// Where a text is cut into words.
    pub words: Words,
    /// Whether words are compared in lower case. Stemmers expect it.
    pub lowercase: bool,
    /// Words that are left out, from texts and queries alike.
    pub stopwords: Stopwords,
    /// How endings are taken off words.
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

/// Where a text is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Words {
    /// At the word borders of Unicode's annex 29, as Lucene's `StandardTokenizer` does: `don't`, `3.5` and `U.S` are
    /// words, so are single letters, and each Han character.
    #[default]
    Unicode,
    /// Runs of at least two letters, digits or underscores: `\w\w+`, bm25s' and scikit-learn's rule. Unlike Python's
    /// `\w`, a combining vowel sign is part of its word.
    WordCharacters,
    /// At white space alone: for texts that are cut already.
    Whitespace,
}

/// Words that are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stopwords {
    /// None.
    None,
    /// Lucene's 33 English ones, which are bm25s' as well.
    #[default]
    English,
    /// These; where `lowercase` is set, in lower case.
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
