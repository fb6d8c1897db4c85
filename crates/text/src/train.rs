//! Tokenizers trained from raw text: BERT's WordPiece for encoders, byte-level BPE for generators.
//!
//! Training is deterministic: the same texts and options give the same bytes. The trainer of `tokenizers` is not,
//! where it numbers the pieces inside words in the order of a hash map and breaks ties by these numbers; here the
//! whole alphabet is numbered before it starts.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde_json::{Map, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::special::SpecialTokens;
use crate::tokenizer::{Parts, Tokenizer, TruncationSide};
use crate::vocab_txt::{BERT_SPECIAL, BertSwitches, bert};
use crate::{Error, Result};

/// How a WordPiece vocabulary is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordPieceOptions {
    /// Size of the vocabulary, special tokens and alphabet included. Fewer where the texts do not give so many.
    pub vocab_size: usize,
    /// Whether text is lower-cased and stripped of accents ("uncased").
    pub lowercase: bool,
    /// A piece must occur this often to be merged.
    pub min_frequency: u64,
    /// Characters kept, the most frequent first; the rest become `[UNK]`.
    pub max_alphabet: usize,
    /// `model_max_length` of the result.
    pub max_len: usize,
}

impl Default for WordPieceOptions {
    fn default() -> Self {
        Self { vocab_size: 30_522, lowercase: true, min_frequency: 2, max_alphabet: 1000, max_len: 512 }
    }
}

/// How a byte-level BPE vocabulary is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteBpeOptions {
    /// Size of the vocabulary, special tokens and the 256 bytes included.
    pub vocab_size: usize,
    /// A piece must occur this often to be merged.
    pub min_frequency: u64,
    /// Special tokens beside `<|endoftext|>` and `<|pad|>`, such as the marks of a chat template.
    pub additional_special_tokens: Vec<String>,
    /// `model_max_length` of the result.
    pub max_len: usize,
}

impl Default for ByteBpeOptions {
    fn default() -> Self {
        Self { vocab_size: 32_000, min_frequency: 2, additional_special_tokens: Vec::new(), max_len: 2048 }
    }
}

/// Trains a BERT tokenizer: `[PAD] [UNK] [CLS] [SEP] [MASK]` with ids 0 to 4, BERT's normalizer and pre-tokenizer.
/// `AutoTokenizer` loads what [`Tokenizer::save`] writes of it.
pub fn train_wordpiece<I>(texts: I, options: &WordPieceOptions) -> Result<Tokenizer>
where
    I: IntoIterator,
    I::Item: AsRef<str> + Send,
{
    let switches = BertSwitches { lowercase: options.lowercase, chinese_chars: true, strip_accents: None };
    let normalizer = BertNormalizer::new(true, true, None, options.lowercase);
    let mut words = count_words(texts, Some(&normalizer), &BertPreTokenizer)?;

    let alphabet = alphabet(&words, options.max_alphabet);
    let fixed = BERT_SPECIAL.len() + 2 * alphabet.len();
    if fixed >= options.vocab_size {
        return Err(Error::Train {
            reason: format!(
                "vocab_size {} is not larger than the {fixed} entries that special tokens and {} characters take; \
                 raise it or lower max_alphabet",
                options.vocab_size,
                alphabet.len()
            ),
        });
    }
    // A word with a character outside the alphabet is always `[UNK]`: nothing is to be learned from it.
    words.retain(|word, _| word.chars().all(|c| alphabet.binary_search(&c).is_ok()));

    let numbered = BERT_SPECIAL
        .iter()
        .map(|t| (*t).to_owned())
        .chain(alphabet.iter().map(char::to_string))
        .chain(alphabet.iter().map(|c| format!("##{c}")))
        .map(|token| AddedToken::from(token, true))
        .collect();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .continuing_subword_prefix("##".into())
        .special_tokens(numbered)
        .build();
    let mut model = BPE::default();
    let counts = words.iter().map(|(word, &count)| (word.as_str().into(), count)).collect();
    trainer.do_train(&counts, &mut model).map_err(train_error)?;

    let special = BERT_SPECIAL.map(str::to_owned);
    let inner = bert(WordPiece::from_bpe(&model), &special, switches).map_err(train_error)?;
    let mut extra_config = Map::new();
    extra_config.insert("do_lower_case".into(), json!(options.lowercase));
    extra_config.insert("tokenize_chinese_chars".into(), json!(true));
    extra_config.insert("strip_accents".into(), json!(null));
    extra_config.insert("clean_up_tokenization_spaces".into(), json!(true));
    let named = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];
    Tokenizer::assemble(Parts {
        inner,
        tokens: SpecialTokens { named: named.into_iter().zip(special).collect(), additional: Vec::new() },
        max_len: Some(options.max_len),
        truncation_side: TruncationSide::Right,
        files: Vec::new(),
        class: "BertTokenizer",
        extra_config,
    })
}

/// Trains a byte-level BPE tokenizer as GPT-2's: no text is outside its vocabulary, and decoding gives back the text.
/// `<|endoftext|>` (end and beginning) has id 0, `<|pad|>` id 1.
pub fn train_byte_bpe<I>(texts: I, options: &ByteBpeOptions) -> Result<Tokenizer>
where
    I: IntoIterator,
    I::Item: AsRef<str> + Send,
{
    let byte_level = ByteLevel::new(false, true, true);
    let words = count_words(texts, None::<&BertNormalizer>, &byte_level)?;
    let special: Vec<AddedToken> = ["<|endoftext|>", "<|pad|>"]
        .into_iter()
        .map(str::to_owned)
        .chain(options.additional_special_tokens.iter().cloned())
        .map(|token| AddedToken::from(token, true).normalized(false))
        .collect();
    let fixed = special.len() + 256;
    if fixed >= options.vocab_size {
        return Err(Error::Train {
            reason: format!(
                "vocab_size {} is not larger than the {fixed} special tokens and bytes",
                options.vocab_size
            ),
        });
    }
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special.clone())
        .build();
    let mut model = BPE::default();
    let counts = words.iter().map(|(word, &count)| (word.as_str().into(), count)).collect();
    trainer.do_train(&counts, &mut model).map_err(train_error)?;

    let mut inner = tokenizers::Tokenizer::new(model);
    inner.with_pre_tokenizer(Some(byte_level));
    inner.with_post_processor(Some(ByteLevel::new(false, false, true)));
    inner.with_decoder(Some(byte_level));
    inner.add_special_tokens(special).map_err(train_error)?;
    let end = || "<|endoftext|>".to_owned();
    Tokenizer::assemble(Parts {
        inner,
        tokens: SpecialTokens {
            named: vec![("bos_token", end()), ("eos_token", end()), ("pad_token", "<|pad|>".into())],
            additional: options.additional_special_tokens.clone(),
        },
        max_len: Some(options.max_len),
        truncation_side: TruncationSide::Right,
        files: Vec::new(),
        class: "PreTrainedTokenizerFast",
        extra_config: Map::from_iter([("clean_up_tokenization_spaces".into(), json!(false))]),
    })
}

/// Counts words in parallel, a chunk of texts at a time; memory holds distinct words only.
fn count_words<I, N, P>(texts: I, normalizer: Option<&N>, pre_tokenizer: &P) -> Result<BTreeMap<String, u64>>
where
    I: IntoIterator,
    I::Item: AsRef<str> + Send,
    N: Normalizer,
    P: PreTokenizer + Sync,
{
    const CHUNK: usize = 4096;
    let split = |text: &str| -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = normalizer {
            normalizer.normalize(&mut normalized)?;
        }
        let mut pieces = PreTokenizedString::from(normalized);
        pre_tokenizer.pre_tokenize(&mut pieces)?;
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
    };
    let mut total: HashMap<String, u64> = HashMap::new();
    let mut texts = texts.into_iter().peekable();
    while texts.peek().is_some() {
        let chunk: Vec<I::Item> = texts.by_ref().take(CHUNK).collect();
        let counted: tokenizers::Result<HashMap<String, u64>> = chunk
            .into_par_iter()
            .try_fold(HashMap::new, |mut counts: HashMap<String, u64>, text| {
                for word in split(text.as_ref())? {
                    for piece in pieces(&word) {
                        *counts.entry(piece.to_owned()).or_default() += 1;
                    }
                }
                Ok(counts)
            })
            .try_reduce(HashMap::new, |mut a, b| {
                for (word, count) in b {
                    *a.entry(word).or_default() += count;
                }
                Ok(a)
            });
        for (word, count) in counted.map_err(train_error)? {
            *total.entry(word).or_default() += count;
        }
    }
    if total.is_empty() {
        return Err(Error::Train {
            reason: "there is no word in the texts; check the path and the text column".into(),
        });
    }
    Ok(total.into_iter().collect())
}

/// A word in pieces that bound what a merge costs: each merge goes through every word that has its pair, so one word of a
/// million characters would take hours. Words of a language are whole.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    const MOST: usize = 128;
    let mut rest = word;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(MOST).map_or(rest.len(), |(at, _)| at);
        let (piece, more) = rest.split_at(end);
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The most frequent characters, sorted.
fn alphabet(words: &BTreeMap<String, u64>, limit: usize) -> Vec<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, count) in words {
        for c in word.chars() {
            *counts.entry(c).or_default() += count;
        }
    }
    let mut chars: Vec<(char, u64)> = counts.into_iter().collect();
    // Stable: characters of equal count stay in code point order.
    chars.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    chars.truncate(limit);
    let mut chars: Vec<char> = chars.into_iter().map(|(c, _)| c).collect();
    chars.sort_unstable();
    chars
}

fn train_error(error: impl std::fmt::Display) -> Error {
    Error::Train { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EncodeOptions;

    const CORPUS: [&str; 4] = [
        "Retrieval finds passages; generation writes answers.",
        "The retriever retrieves retrieved passages, the generator generates generations.",
        "Ein Café in Zürich: naïve Äußerungen, 東京 と 京都.",
        "passages passages passages answers answers",
    ];

    #[test]
    fn wordpiece_is_deterministic() {
        let options = WordPieceOptions { vocab_size: 160, ..Default::default() };
        let first = train_wordpiece(CORPUS, &options).unwrap();
        for _ in 0..5 {
            assert_eq!(train_wordpiece(CORPUS, &options).unwrap().files, first.files);
        }
        let special: Vec<_> = BERT_SPECIAL.iter().map(|t| first.token_to_id(t).unwrap()).collect();
        assert_eq!(special, [0, 1, 2, 3, 4]);
        assert_eq!(first.special_ids().all, [0, 1, 2, 3, 4]);
        assert!(first.vocab_size() <= 160);
        assert!(first.token_to_id("passages").is_some());
        assert!(first.token_to_id("京").is_some());
    }

    #[test]
    fn cased_keeps_case() {
        let options = WordPieceOptions { vocab_size: 160, lowercase: false, ..Default::default() };
        let cased = train_wordpiece(CORPUS, &options).unwrap();
        assert!(cased.token_to_id("R").is_some() && cased.token_to_id("ü").is_some());
    }

    #[test]
    fn byte_bpe_gives_back_the_text() {
        let options = ByteBpeOptions {
            vocab_size: 300,
            additional_special_tokens: vec!["<|im_start|>".into()],
            ..Default::default()
        };
        let bpe = train_byte_bpe(CORPUS, &options).unwrap();
        assert_eq!(bpe.files, train_byte_bpe(CORPUS, &options).unwrap().files);
        let text = "  Retrieval finds 🦀 and \u{7} Zürich\n";
        let ids = bpe.encode(text, &EncodeOptions { strip: false, ..Default::default() }).unwrap().ids;
        assert_eq!(bpe.decode(&ids, true).unwrap(), text);
        assert_eq!(bpe.encode("<|im_start|>", &EncodeOptions::default()).unwrap().ids, [2]);
        assert_eq!((bpe.eos_id(), bpe.pad_id(), bpe.cls_id()), (Some(0), Some(1), None));
    }

    #[test]
    fn a_very_long_word_is_trained_on_in_pieces() {
        assert_eq!(pieces("word").collect::<Vec<_>>(), ["word"]);
        let long = "äb".repeat(100);
        assert_eq!(pieces(&long).map(|p| p.chars().count()).collect::<Vec<_>>(), [128, 72]);
        let started = std::time::Instant::now();
        let text: String = (0..200_000).map(|i| char::from(b'a' + (i * i % 97 % 26) as u8)).collect();
        let options = ByteBpeOptions { vocab_size: 2000, ..ByteBpeOptions::default() };
        train_byte_bpe([text.as_str(), "some words"], &options).unwrap();
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }

    #[test]
    fn no_text_and_no_room_are_errors() {
        let error = train_wordpiece([" ", ""], &WordPieceOptions::default()).unwrap_err();
        assert!(error.to_string().contains("no word"), "{error}");
        let tiny = WordPieceOptions { vocab_size: 20, ..Default::default() };
        assert!(train_wordpiece(CORPUS, &tiny).unwrap_err().to_string().contains("max_alphabet"));
    }
}
