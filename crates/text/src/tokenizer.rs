//! The tokenizer: what it knows about itself, and how it is written to a directory.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::layout::Layouts;
use crate::special::{SpecialIds, SpecialTokens};
use crate::{Error, Result};

/// Which end of a text is cut when it is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TruncationSide {
    /// The beginning is cut.
    Left,
    /// The end is cut.
    #[default]
    Right,
}

/// A Hugging Face tokenizer with everything that its directory says about it.
///
/// Cheap to share behind an `Arc`; every method that encodes takes `&self` and may run on many threads.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(crate) inner: tokenizers::Tokenizer,
    pub(crate) layouts: Layouts,
    pub(crate) special: SpecialIds,
    pub(crate) max_len: Option<usize>,
    pub(crate) lower_case: bool,
    pub(crate) truncation_side: TruncationSide,
    /// What `save` writes, by file name. The bytes of a loaded directory are kept as they were.
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// What a tokenizer is put together from, by loading or by training.
pub(crate) struct Parts {
    pub(crate) inner: tokenizers::Tokenizer,
    pub(crate) tokens: SpecialTokens,
    pub(crate) max_len: Option<usize>,
    pub(crate) truncation_side: TruncationSide,
    /// Files to be written unchanged.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// The class named in a generated `tokenizer_config.json`.
    pub(crate) class: &'static str,
    /// More keys for a generated `tokenizer_config.json`.
    pub(crate) extra_config: Map<String, Value>,
}

impl Tokenizer {
    pub(crate) fn assemble(parts: Parts) -> Result<Self> {
        let Parts { mut inner, tokens, max_len, truncation_side, mut files, class, extra_config } = parts;
        inner.with_truncation(None).map_err(invalid)?;
        inner.with_padding(None);
        let has = |files: &[(String, Vec<u8>)], name: &str| files.iter().any(|(n, _)| n == name);
        if !has(&files, "tokenizer.json") {
            let mut text = inner.to_string(true).map_err(invalid)?;
            text.push('\n');
            files.insert(0, ("tokenizer.json".into(), text.into_bytes()));
        }
        if !has(&files, "tokenizer_config.json") {
            let mut config = extra_config;
            for (name, text) in &tokens.named {
                config.insert((*name).into(), json!(text));
            }
            if !tokens.additional.is_empty() {
                config.insert("additional_special_tokens".into(), json!(tokens.additional));
            }
            if let Some(max_len) = max_len {
                config.insert("model_max_length".into(), json!(max_len));
            }
            config.insert("tokenizer_class".into(), json!(class));
            files.push(("tokenizer_config.json".into(), pretty(&Value::Object(config))));
        }
        if !has(&files, "special_tokens_map.json") {
            let mut map = Map::new();
            for (name, text) in &tokens.named {
                map.insert((*name).into(), json!(text));
            }
            if !tokens.additional.is_empty() {
                map.insert("additional_special_tokens".into(), json!(tokens.additional));
            }
            files.push(("special_tokens_map.json".into(), pretty(&Value::Object(map))));
        }
        Ok(Self {
            layouts: Layouts::probe(&inner)?,
            special: tokens.ids(&inner),
            inner,
            max_len,
            lower_case: false,
            truncation_side,
            files,
        })
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and whatever else the loaded
    /// directory had beside them (`vocab.txt`, `merges.txt`, …), so that `AutoTokenizer` loads the directory.
    ///
    /// A tokenizer that was loaded is written byte for byte as it was. Each file appears complete or not at all.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        fs_err::create_dir_all(dir)?;
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            if let Some(folder) = path.parent() {
                fs_err::create_dir_all(folder)?;
            }
            ragduet_files::write(&path, bytes)?;
        }
        Ok(())
    }

    /// The longest input the tokenizer's model takes (`model_max_length`), where the directory says a sane one.
    pub fn model_max_length(&self) -> Option<usize> {
        self.max_len
    }

    /// Lower-cases texts before they are tokenized (`do_lower_case` of `sentence_bert_config.json`). Independent of
    /// the normalizer inside `tokenizer.json`, which may lower-case as well.
    #[must_use]
    pub fn with_lower_case(mut self, lower_case: bool) -> Self {
        self.lower_case = lower_case;
        self
    }

    /// With these tokens, added behind the vocabulary where they are not in it. Texts that hold them are cut there.
    ///
    /// # Errors
    /// A tokenizer that cannot be written again.
    pub fn with_tokens<'a>(mut self, tokens: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let new: Vec<tokenizers::AddedToken> = tokens
            .into_iter()
            .filter(|t| self.inner.token_to_id(t).is_none())
            .map(|t| tokenizers::AddedToken::from(t, false).normalized(false))
            .collect();
        if new.is_empty() {
            return Ok(self);
        }
        self.inner.add_tokens(new.clone()).map_err(invalid)?;
        let text = self.inner.to_string(true).map_err(invalid)? + "\n";
        self.replace_file("tokenizer.json", text.into_bytes());
        // What older versions list added tokens in would contradict it.
        self.files.retain(|(name, _)| name != "added_tokens.json");
        let config = self.files.iter().find(|(n, _)| n == "tokenizer_config.json");
        if let Some(Value::Object(mut config)) = config.and_then(|(_, b)| serde_json::from_slice(b).ok())
            && let Some(Value::Object(listed)) = config.get_mut("added_tokens_decoder")
        {
            for token in &new {
                let id = self.inner.token_to_id(&token.content).unwrap_or_default();
                let entry = json!({"content": token.content, "lstrip": false, "normalized": false,
                    "rstrip": false, "single_word": false, "special": false});
                listed.insert(id.to_string(), entry);
            }
            self.replace_file("tokenizer_config.json", pretty(&Value::Object(config)));
        }
        Ok(self)
    }

    fn replace_file(&mut self, name: &str, bytes: Vec<u8>) {
        match self.files.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = bytes,
            None => self.files.push((name.into(), bytes)),
        }
    }

    /// Whether texts are lower-cased before they are tokenized.
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }

    /// Which end of a long text is cut (`truncation_side` of `tokenizer_config.json`).
    pub fn truncation_side(&self) -> TruncationSide {
        self.truncation_side
    }

    /// The special ids.
    pub fn special_ids(&self) -> &SpecialIds {
        &self.special
    }

    /// Id of the padding token.
    pub fn pad_id(&self) -> Option<u32> {
        self.special.pad
    }

    /// Id of the classification token.
    pub fn cls_id(&self) -> Option<u32> {
        self.special.cls
    }

    /// Id of the separator token.
    pub fn sep_id(&self) -> Option<u32> {
        self.special.sep
    }

    /// Id of the mask token.
    pub fn mask_id(&self) -> Option<u32> {
        self.special.mask
    }

    /// Id of the unknown token.
    pub fn unk_id(&self) -> Option<u32> {
        self.special.unk
    }

    /// Id of the end-of-sequence token.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos
    }

    /// Number of rows an embedding matrix needs: the largest id plus one, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of ids, as the tokenizer's decoder joins them.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.inner.decode(ids, skip_special_tokens).map_err(|e| Error::Decode { reason: e.to_string() })
    }
}

fn invalid(e: tokenizers::Error) -> Error {
    Error::Invalid { path: "tokenizer.json".into(), reason: format!("{e}") }
}

pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    // `Display` of a JSON value cannot fail, unlike the writer functions.
    format!("{value:#}\n").into_bytes()
}
