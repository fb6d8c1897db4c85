//! A GGUF file's vocabulary as a tokenizer.

use std::path::Path;

use ragduet_gguf::{GgufFile, Metadata, TokenKind, TokenModel, Vocabulary};
use serde_json::{Map, Value, json};

use super::pre::Pre;
use super::sentencepiece;
use crate::Result;
use crate::load::{ADDITIONAL, parse};
use crate::special::SpecialTokens;
use crate::tokenizer::{Parts, Tokenizer, TruncationSide};

impl Tokenizer {
    /// The tokenizer of a GGUF file.
    ///
    /// # Errors
    /// A file that cannot be read, or whose tokenizer is of a kind that is not.
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_gguf_metadata(GgufFile::open(path.as_ref())?.metadata())
    }

    /// The same, of metadata that are at hand.
    ///
    /// # Errors
    /// A tokenizer of a kind that is not read, or one that contradicts itself.
    pub fn from_gguf_metadata(metadata: &Metadata) -> Result<Self> {
        let words = Vocabulary::read(metadata)?;
        let json = match words.model {
            TokenModel::ByteBpe => byte_bpe(&words, metadata)?,
            TokenModel::SentencePiece => sentencepiece::json(&words),
        };
        let bytes = json.to_string().into_bytes();
        let inner = parse(metadata.path(), &bytes)?;
        let mut files = vec![("tokenizer.json".to_owned(), bytes)];
        files.extend(templates(metadata)?);
        let architecture = metadata.text("general.architecture")?.unwrap_or_default();
        let max_len = metadata.count(&format!("{architecture}.context_length"))?;
        Self::assemble(Parts {
            inner,
            tokens: special(&words),
            max_len: max_len.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0),
            truncation_side: TruncationSide::Right,
            files,
            class: "PreTrainedTokenizerFast",
            extra_config: Map::from_iter([("clean_up_tokenization_spaces".into(), json!(false))]),
        })
    }
}

/// The special tokens by name, and the others.
fn special(words: &Vocabulary) -> SpecialTokens {
    let named = [
        ("bos_token", words.bos),
        ("eos_token", words.eos),
        ("unk_token", words.unk),
        ("sep_token", words.sep),
        ("pad_token", words.pad),
        ("mask_token", words.mask),
    ];
    let named: Vec<(&'static str, String)> =
        named.into_iter().filter_map(|(name, id)| Some((name, words.tokens[id? as usize].clone()))).collect();
    let additional = words.tokens.iter().enumerate().filter(|(id, token)| {
        words.kinds[*id] == TokenKind::Control && !named.iter().any(|(_, n)| n == *token)
    });
    let additional = additional.map(|(_, token)| token.clone()).collect();
    SpecialTokens { named, additional }
}

/// Tokens that are cut out of a text before it is cut into words.
pub(super) fn added(words: &Vocabulary) -> Vec<Value> {
    let entry = |(id, token): (usize, &String)| {
        let special = match words.kinds[id] {
            TokenKind::Control | TokenKind::Unknown => true,
            TokenKind::UserDefined => false,
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        }))
    };
    words.tokens.iter().enumerate().filter_map(entry).collect()
}

/// All tokens with their ids.
pub(super) fn vocabulary(words: &Vocabulary) -> Value {
    let all = words.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id)));
    Value::Object(all.collect())
}

/// What is put before and behind a text; `plain` where nothing is.
pub(super) fn surround(words: &Vocabulary, plain: Value) -> Value {
    let token = |id: u32| words.tokens[id as usize].as_str();
    let bos = words.bos.filter(|_| words.add_bos);
    let eos = words.eos.filter(|_| words.add_eos);
    if bos.is_none() && eos.is_none() {
        return plain;
    }
    let mark = |id: Option<u32>, segment: u32| {
        id.map(|id| json!({"SpecialToken": {"id": token(id), "type_id": segment}}))
    };
    let text = |name: &str, segment: u32| Some(json!({"Sequence": {"id": name, "type_id": segment}}));
    let single: Vec<Value> = [mark(bos, 0), text("A", 0), mark(eos, 0)].into_iter().flatten().collect();
    let pair: Vec<Value> =
        [mark(bos, 0), text("A", 0), mark(eos, 0), mark(bos, 1), text("B", 1), mark(eos, 1)]
            .into_iter()
            .flatten()
            .collect();
    let tokens: Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|id| (token(id).to_owned(), json!({"id": token(id), "ids": [id], "tokens": [token(id)]})))
        .collect();
    let template =
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens});
    match plain {
        Value::Null => template,
        plain => json!({"type": "Sequence", "processors": [plain, template]}),
    }
}

/// Byte-level BPE.
fn byte_bpe(words: &Vocabulary, metadata: &Metadata) -> Result<Value> {
    let key = "tokenizer.ggml.pre";
    let name = words.pre.as_deref().unwrap_or("default");
    let Some(pre) = Pre::of(name) else {
        let reason = format!("the pre-tokenizer `{name}` is not known here; these are: {}", Pre::names());
        return Err(metadata.wrong(key, reason).into());
    };
    let key = "tokenizer.ggml.merges";
    let merges = metadata.needed(key, metadata.texts(key)?)?;
    let pairs = merges
        .iter()
        .map(|merge| {
            // The first character may be a space itself.
            let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let at = at.ok_or_else(|| metadata.wrong(key, format!("`{merge}` is not two tokens")))?;
            Ok(json!([merge[..at], merge[at + 1..]]))
        })
        .collect::<Result<Vec<Value>>>()?;
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(words),
        "normalizer": if pre.nfc { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre.json(),
        "post_processor": surround(words, bytes),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignore_merges,
            "vocab": vocabulary(words),
            "merges": pairs,
        },
    }))
}

/// Chat templates as files: the usual one, and those under names.
fn templates(metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>> {
    const KEY: &str = "tokenizer.chat_template";
    let mut out = Vec::new();
    if let Some(text) = metadata.text(KEY)? {
        out.push(("chat_template.jinja".to_owned(), text.as_bytes().to_vec()));
    }
    for (key, _) in metadata.entries() {
        let Some(name) = key.strip_prefix(KEY).and_then(|rest| rest.strip_prefix('.')) else { continue };
        // It becomes a file's name.
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            return Err(metadata.wrong(key, "is no name of a template").into());
        }
        let text = metadata.text(key)?.unwrap_or_default();
        out.push((format!("{ADDITIONAL}{name}.jinja"), text.as_bytes().to_vec()));
    }
    Ok(out)
}
