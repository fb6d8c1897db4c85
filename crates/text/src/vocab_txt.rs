//! The WordPiece tokenizer of the original BERT release: a `vocab.txt` with one token per line.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Model};

use crate::special::SpecialTokens;
use crate::{Error, Result};

/// The special tokens of BERT, in the order of their ids in a vocabulary trained here.
pub(crate) const BERT_SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Switches of the BERT normalizer, as `tokenizer_config.json` calls them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BertSwitches {
    pub(crate) lowercase: bool,
    pub(crate) chinese_chars: bool,
    pub(crate) strip_accents: Option<bool>,
}

/// Builds the tokenizer from the bytes of a `vocab.txt`; a token's id is its line.
pub(crate) fn build(path: &Path, bytes: &[u8], config: &Map<String, Value>) -> Result<tokenizers::Tokenizer> {
    let invalid = |reason: String| Error::Invalid { path: path.into(), reason };
    let vocab = WordPiece::read_bytes(bytes).map_err(|e| invalid(format!("not a list of tokens: {e}")))?;
    let switch = |key: &str| config.get(key).and_then(Value::as_bool);
    let switches = BertSwitches {
        lowercase: switch("do_lower_case").unwrap_or(true),
        chinese_chars: switch("tokenize_chinese_chars").unwrap_or(true),
        strip_accents: switch("strip_accents"),
    };
    let named = SpecialTokens::from_config(config, &Map::new());
    let name = |key: &str, usual: &str| named.get(key).unwrap_or(usual).to_owned();
    let special = [
        name("pad_token", "[PAD]"),
        name("unk_token", "[UNK]"),
        name("cls_token", "[CLS]"),
        name("sep_token", "[SEP]"),
        name("mask_token", "[MASK]"),
    ];
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(special[1].clone())
        .build()
        .map_err(|e| invalid(e.to_string()))?;
    let missing: Vec<&str> =
        special[1..4].iter().map(String::as_str).filter(|t| model.token_to_id(t).is_none()).collect();
    if !missing.is_empty() {
        return Err(invalid(format!(
            "not a BERT vocabulary ({} missing); convert the tokenizer with transformers: \
             AutoTokenizer.from_pretrained(model).save_pretrained(dir)",
            missing.join(", ")
        )));
    }
    bert(model, &special, switches).map_err(|e| invalid(e.to_string()))
}

/// Puts the BERT pipeline around a WordPiece model. `special` is pad, unk, cls, sep, mask.
pub(crate) fn bert(
    model: WordPiece,
    special: &[String; 5],
    switches: BertSwitches,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let id =
        |token: &str| model.token_to_id(token).ok_or_else(|| format!("{token} is not in the vocabulary"));
    let (cls, sep) = (special[2].as_str(), special[3].as_str());
    let template = TemplateProcessing::builder()
        .try_single(format!("{cls}:0 $A:0 {sep}:0"))?
        .try_pair(format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1"))?
        .special_tokens(vec![(cls.to_owned(), id(cls)?), (sep.to_owned(), id(sep)?)])
        .build()?;
    let present: Vec<AddedToken> = special
        .iter()
        .filter(|t| model.token_to_id(t).is_some())
        .map(|t| AddedToken::from(t.clone(), true).normalized(false))
        .collect();
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let BertSwitches { lowercase, chinese_chars, strip_accents } = switches;
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese_chars, strip_accents, lowercase)))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(template));
    tokenizer.with_decoder(Some(WordPieceDecoder::new("##".into(), true)));
    tokenizer.add_special_tokens(present)?;
    Ok(tokenizer)
}
