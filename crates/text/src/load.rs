//! Reading a tokenizer from a Hugging Face directory or from the bytes of a `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::special::SpecialTokens;
use crate::tokenizer::{Parts, Tokenizer, TruncationSide};
use crate::{Error, Result, vocab_txt};

/// Files that belong to a tokenizer and travel with it.
const COMPANIONS: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
];

/// Where `transformers` writes the templates that are not the default, a file each.
pub(crate) const ADDITIONAL: &str = "additional_chat_templates/";

/// The templates of [`ADDITIONAL`], in the order of their names.
fn additional_templates(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = dir.join(ADDITIONAL);
    let mut out = Vec::new();
    if folder.is_dir() {
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".jinja") {
                out.push((format!("{ADDITIONAL}{name}"), fs_err::read(entry.path())?));
            }
        }
    }
    out.sort();
    Ok(out)
}

/// `transformers` writes 1e30 where a tokenizer has no limit; anything this large means none.
const ABSURD_LENGTH: f64 = 1e9;

impl Tokenizer {
    /// Loads a tokenizer from a directory with `tokenizer.json`, and beside it, where present,
    /// `tokenizer_config.json` and `special_tokens_map.json`. A directory with only a BERT-style `vocab.txt` is
    /// loaded as the WordPiece tokenizer that it describes.
    ///
    /// The truncation and padding that `tokenizer.json` may ask for are ignored. A GGUF file stands for a directory
    /// ([`Tokenizer::from_gguf`]).
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if ragduet_gguf::is_gguf(dir) {
            return Self::from_gguf(dir);
        }
        let mut files = Vec::new();
        for name in COMPANIONS {
            let path = dir.join(name);
            if path.is_file() {
                files.push((name.to_owned(), fs_err::read(path)?));
            }
        }
        files.extend(additional_templates(dir)?);
        let bytes = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, b)| b.as_slice());
        let config = object(&dir.join("tokenizer_config.json"), bytes("tokenizer_config.json"))?;
        let map = object(&dir.join("special_tokens_map.json"), bytes("special_tokens_map.json"))?;

        let inner = match (bytes("tokenizer.json"), bytes("vocab.txt")) {
            (Some(json), _) => parse(&dir.join("tokenizer.json"), json)?,
            (None, Some(vocab)) => vocab_txt::build(&dir.join("vocab.txt"), vocab, &config)?,
            (None, None) => {
                let found: Vec<String> = files.into_iter().map(|(name, _)| name).collect();
                // A wrong path is the commonest cause, and deserves its own words.
                let remedy = if dir.is_dir() {
                    "save the fast tokenizer there, with transformers: AutoTokenizer.from_pretrained(model).save_pretrained(dir)"
                } else {
                    "there is no such directory"
                };
                return Err(Error::NoTokenizer { dir: dir.into(), found, remedy: remedy.into() });
            }
        };

        let mut tokens = SpecialTokens::from_config(&config, &map);
        let fallback = SpecialTokens::from_conventions(&inner);
        // A directory that names none at all (a bare tokenizer.json) is read by convention; one that names some has
        // said what it has.
        if tokens.named.is_empty() {
            tokens.named = fallback.named;
        }
        let truncation_side = match config.get("truncation_side").and_then(Value::as_str) {
            None | Some("right") => TruncationSide::Right,
            Some("left") => TruncationSide::Left,
            Some(other) => {
                return Err(Error::Invalid {
                    path: dir.join("tokenizer_config.json"),
                    reason: format!("truncation_side is {other:?}; it must be \"left\" or \"right\""),
                });
            }
        };
        let max_len = config
            .get("model_max_length")
            .and_then(Value::as_f64)
            .filter(|&n| (1.0..ABSURD_LENGTH).contains(&n))
            .map(|n| n as usize);
        let class =
            if bytes("tokenizer.json").is_none() { "BertTokenizer" } else { "PreTrainedTokenizerFast" };
        let typed = gives_type_ids(&config);
        let mut tokenizer = Self::assemble(Parts {
            inner,
            tokens,
            max_len,
            truncation_side,
            files,
            class,
            extra_config: Map::new(),
        })?;
        if !typed {
            tokenizer.layouts.drop_types();
        }
        Ok(tokenizer)
    }

    /// Loads a tokenizer from the content of a `tokenizer.json`. Special tokens are recognised by the names that are
    /// usual for them (`[CLS]`, `<s>`, …).
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let inner = parse(Path::new("tokenizer.json"), json)?;
        Self::assemble(Parts {
            tokens: SpecialTokens::from_conventions(&inner),
            inner,
            max_len: None,
            truncation_side: TruncationSide::Right,
            files: vec![("tokenizer.json".into(), json.to_vec())],
            class: "PreTrainedTokenizerFast",
            extra_config: Map::new(),
        })
    }
}

pub(crate) fn parse(path: &Path, json: &[u8]) -> Result<tokenizers::Tokenizer> {
    // Broken JSON and an unknown component come out of `tokenizers` as one boxed error; the first is told apart
    // because its place in the file is what helps.
    if let Err(source) = serde_json::from_slice::<serde::de::IgnoredAny>(json) {
        return Err(Error::Json { path: path.into(), source });
    }
    tokenizers::Tokenizer::from_bytes(json).map_err(|e| Error::Invalid {
        path: path.into(),
        reason: format!("not a tokenizer this version can load: {e}"),
    })
}

fn object(path: &Path, bytes: Option<&[u8]>) -> Result<Map<String, Value>> {
    let Some(bytes) = bytes else { return Ok(Map::new()) };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::Invalid { path: path.into(), reason: "not a JSON object".into() }),
        Err(source) => Err(Error::Json { path: path.into(), source }),
    }
}
/// Whether transformers hands the model the segments of a pair: as `model_input_names` says, else not with its general class,
/// whatever the post-processor would set.
fn gives_type_ids(config: &Map<String, Value>) -> bool {
    match config.get("model_input_names").and_then(Value::as_array) {
        Some(names) => names.iter().any(|n| n == "token_type_ids"),
        None => config.get("tokenizer_class").is_none_or(|c| c != "TokenizersBackend"),
    }
}
