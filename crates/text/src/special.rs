//! Which ids have a meaning of their own, and where a Hugging Face directory says so.

use serde_json::{Map, Value};

/// The ids of the named special tokens; a tokenizer has some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Padding.
    pub pad: Option<u32>,
    /// Stands for text outside the vocabulary.
    pub unk: Option<u32>,
    /// First token of an encoder's input.
    pub cls: Option<u32>,
    /// Ends a text, or separates two.
    pub sep: Option<u32>,
    /// Hidden token of masked language modelling.
    pub mask: Option<u32>,
    /// First token of a language model's input.
    pub bos: Option<u32>,
    /// Last token of a language model's output.
    pub eos: Option<u32>,
    /// Every special id, the named and the additional ones (`all_special_ids` of `transformers`), ascending.
    pub all: Vec<u32>,
}

/// The names under which `transformers` keeps special tokens, in its order.
pub(crate) const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What the well-known families call their tokens, for a `tokenizer.json` that comes without a config.
const CONVENTIONS: [(&str, &[&str]); 7] = [
    ("bos_token", &["<s>", "<|begin_of_text|>", "<bos>"]),
    ("eos_token", &["</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>"]),
    ("unk_token", &["[UNK]", "<unk>"]),
    ("sep_token", &["[SEP]", "</s>"]),
    ("pad_token", &["[PAD]", "<pad>", "<|pad|>"]),
    ("cls_token", &["[CLS]", "<s>"]),
    ("mask_token", &["[MASK]", "<mask>"]),
];

/// Special tokens by name, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SpecialTokens {
    pub(crate) named: Vec<(&'static str, String)>,
    pub(crate) additional: Vec<String>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json` and `special_tokens_map.json`; the latter wins, as in `transformers` 4.
    pub(crate) fn from_config(config: &Map<String, Value>, map: &Map<String, Value>) -> Self {
        let mut tokens = Self::default();
        for name in NAMES {
            if let Some(text) = [map, config].into_iter().find_map(|m| m.get(name).and_then(token_text)) {
                tokens.named.push((name, text));
            }
        }
        for source in [config, map] {
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                if let Some(Value::Array(list)) = source.get(key) {
                    for text in list.iter().filter_map(token_text) {
                        if !tokens.additional.contains(&text) {
                            tokens.additional.push(text);
                        }
                    }
                }
            }
        }
        tokens
    }

    /// Guesses the names from the special tokens inside `tokenizer.json`, for want of a config.
    pub(crate) fn from_conventions(tokenizer: &tokenizers::Tokenizer) -> Self {
        let special: Vec<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special)
            .map(|token| token.content)
            .collect();
        let named = CONVENTIONS
            .iter()
            .filter_map(|(name, usual)| {
                let text = usual.iter().find(|text| special.iter().any(|s| s == *text))?;
                Some((*name, (*text).to_owned()))
            })
            .collect();
        Self { named, additional: Vec::new() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(n, _)| *n == name).map(|(_, text)| text.as_str())
    }

    pub(crate) fn ids(&self, tokenizer: &tokenizers::Tokenizer) -> SpecialIds {
        let id = |name| self.get(name).and_then(|text| tokenizer.token_to_id(text));
        let texts = self.named.iter().map(|(_, text)| text).chain(&self.additional);
        let mut all: Vec<u32> = texts.filter_map(|text| tokenizer.token_to_id(text)).collect();
        all.sort_unstable();
        all.dedup();
        SpecialIds {
            pad: id("pad_token"),
            unk: id("unk_token"),
            cls: id("cls_token"),
            sep: id("sep_token"),
            mask: id("mask_token"),
            bos: id("bos_token"),
            eos: id("eos_token"),
            all,
        }
    }
}

/// A token is written as its text, or as an object with `content`.
fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => object.get("content").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    }
}
