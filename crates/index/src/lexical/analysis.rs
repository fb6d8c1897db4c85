//! How a text becomes terms: cut into words, lower-cased, without stop words, stemmed, in that order.
//!
//! By default this is Lucene's `EnglishAnalyzer` but for three things: words of more than 255 bytes are not cut (they
//! stay whole and unstemmed), runs of Hiragana are cut as Unicode's annex 29 says, not into single characters, and
//! lower-casing is Unicode's full one, not one character at a time. bm25s' `tokenize` has other words
//! ([`Words::WordCharacters`] is its rule) and by default no stemmer; with PyStemmer it is `stemmer = "english"`.

use std::borrow::Cow;
use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snowball_stemmers_rs::Algorithm;
use unicode_segmentation::UnicodeSegmentation;

use super::config::{LexicalConfig, Stopwords, Words};

/// Lucene's `EnglishAnalyzer.ENGLISH_STOP_WORDS_SET`.
const ENGLISH: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no",
    "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to",
    "was", "will", "with",
];

/// Longer words are no words of a language; stemming them could take time with the square of their length.
const LONGEST_STEMMED: usize = 255;

macro_rules! stemmers {
    ($($language:ident),*) => {
        /// Stemmer: Snowball's (version 3), by language.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Stemmer {
            /// No stemming.
            None,
            /// Porter's English stemmer (1980) after removal of the possessive `'s`, as in Lucene's `EnglishAnalyzer`.
            #[default]
            Porter,
            $(#[doc = concat!("For ", stringify!($language), ".")] $language,)*
        }

        impl Stemmer {
            fn algorithm(self) -> Option<Algorithm> {
                match self {
                    Self::None => None,
                    Self::Porter => Some(Algorithm::Porter),
                    $(Self::$language => Some(Algorithm::$language),)*
                }
            }
        }
    };
}

stemmers!(
    Arabic, Armenian, Basque, Catalan, Czech, Danish, Dutch, English, Esperanto, Estonian, Finnish, French,
    German, Greek, Hindi, Hungarian, Indonesian, Irish, Italian, Lithuanian, Nepali, Norwegian, Persian,
    Polish, Portuguese, Romanian, Russian, Serbian, Sesotho, Spanish, Swedish, Tamil, Turkish, Ukrainian,
    Yiddish
);

/// What makes terms of texts, by a [`LexicalConfig`].
pub(super) struct Analyzer<'c> {
    words: Words,
    lowercase: bool,
    stopwords: HashSet<Cow<'c, str>>,
    possessive: bool,
    stemmer: Option<snowball_stemmers_rs::Stemmer>,
}

impl<'c> Analyzer<'c> {
    pub(super) fn new(config: &'c LexicalConfig) -> Self {
        let stopwords = match &config.stopwords {
            Stopwords::None => HashSet::new(),
            Stopwords::Auto if !matches!(config.stemmer, Stemmer::Porter | Stemmer::English) => {
                HashSet::new()
            }
            Stopwords::Auto | Stopwords::English => ENGLISH.into_iter().map(Cow::from).collect(),
            Stopwords::List(words) if config.lowercase => words.iter().map(|word| lower(word)).collect(),
            Stopwords::List(words) => words.iter().map(Cow::from).collect(),
        };
        Self {
            words: config.words,
            lowercase: config.lowercase,
            stopwords,
            possessive: config.stemmer == Stemmer::Porter,
            stemmer: config.stemmer.algorithm().map(snowball_stemmers_rs::Stemmer::create),
        }
    }

    /// Hands over the words of a text as they stand in it.
    pub(super) fn words<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self.words {
            Words::Unicode => text.unicode_words().for_each(word),
            Words::Whitespace => text.split_whitespace().for_each(word),
            Words::WordCharacters => text
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .filter(|run| run.chars().nth(1).is_some())
                .for_each(&mut word),
        }
    }

    /// The term that a word becomes; stop words become none.
    pub(super) fn term<'t>(&self, word: &'t str) -> Option<Cow<'t, str>> {
        let word = if self.possessive { without_possessive(word) } else { word };
        let word = if self.lowercase { lower(word) } else { Cow::Borrowed(word) };
        if word.is_empty() || self.stopwords.contains(word.as_ref()) {
            return None;
        }
        let Some(stemmer) = self.stemmer.as_ref().filter(|_| word.len() <= LONGEST_STEMMED) else {
            return Some(word);
        };
        let stem = match word {
            Cow::Borrowed(word) => stemmer.stem(word),
            Cow::Owned(word) => Cow::Owned(stemmer.stem(&word).into_owned()),
        };
        Some(stem).filter(|stem| !stem.is_empty())
    }

    /// Hands over the terms of a text, in order and as often as they occur.
    pub(super) fn terms(&self, text: &str, mut term: impl FnMut(&str)) {
        self.words(text, |word| {
            if let Some(word) = self.term(word) {
                term(&word);
            }
        });
    }
}

fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.to_lowercase())
    }
}

/// Lucene's `EnglishPossessiveFilter`.
fn without_possessive(word: &str) -> &str {
    let Some(rest) = word.strip_suffix(['s', 'S']) else { return word };
    rest.strip_suffix(['\'', '\u{2019}', '\u{FF07}']).unwrap_or(word)
}

impl LexicalConfig {
    /// The terms that a text becomes, in order and as often as they occur.
    pub fn terms(&self, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        Analyzer::new(self).terms(text, |term| terms.push(term.to_owned()));
        terms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(words: Words, stopwords: Stopwords, stemmer: Stemmer) -> LexicalConfig {
        LexicalConfig { words, stopwords, stemmer, ..LexicalConfig::default() }
    }

    #[test]
    fn the_default_is_lucenes_english_analyzer() {
        // What Lucene's EnglishAnalyzer gives for these.
        let terms = LexicalConfig::default()
            .terms("The patients\u{2019}s 3.5 mg doses of U.S. vaccines aren't Running; Parkinson's");
        assert_eq!(terms, ["patient", "3.5", "mg", "dose", "u.", "vaccin", "aren't", "run", "parkinson"]);
    }

    #[test]
    fn words_are_cut_as_the_settings_say() {
        let text = "Ça va? x re-run 2x_y 東京 don't";
        let none = |words| with(words, Stopwords::None, Stemmer::None).terms(text);
        assert_eq!(none(Words::Unicode), ["ça", "va", "x", "re", "run", "2x_y", "東", "京", "don't"]);
        assert_eq!(none(Words::WordCharacters), ["ça", "va", "re", "run", "2x_y", "東京", "don"]);
        assert_eq!(none(Words::Whitespace), ["ça", "va?", "x", "re-run", "2x_y", "東京", "don't"]);
        assert_eq!(LexicalConfig::terms_as_they_are().terms("The  The\nthe"), ["The", "The", "the"]);
    }

    #[test]
    fn stop_words_are_compared_in_lower_case_and_before_stemming() {
        let list = Stopwords::List(vec!["Runs".to_owned()]);
        let config = with(Words::Unicode, list, Stemmer::English);
        assert_eq!(config.terms("RUNS run Running"), ["run", "run"]);
        let german = with(Words::Unicode, Stopwords::None, Stemmer::German);
        assert_eq!(german.terms("Häuser Haus"), ["haus", "haus"]);
    }

    proptest! {
        /// No text makes any stemmer panic.
        #[test]
        fn any_text_has_terms(text in "\\PC{0,40}", ascii in "[a-z' ]{0,60}", cyrillic in "[а-яёў' ]{0,30}") {
            for words in [Words::Unicode, Words::WordCharacters, Words::Whitespace] {
                for stemmer in [Stemmer::None, Stemmer::Porter, Stemmer::English, Stemmer::Russian, Stemmer::Turkish] {
                    let config = with(words, Stopwords::English, stemmer);
                    for text in [&text, &ascii, &cyrillic] {
                        for term in config.terms(text) {
                            prop_assert!(!term.is_empty());
                        }
                    }
                }
            }
        }
    }
}
