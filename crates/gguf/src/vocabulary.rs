//! What the metadata say about tokens: their texts and kinds, which are special, which end a text.

use crate::{Error, Metadata, Result};
use std::collections::HashSet;

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text outside the vocabulary.
    Unknown,
    /// Never part of a text: begins and ends of texts and turns.
    Control,
    /// A piece of text that is never split.
    UserDefined,
    /// Fills the vocabulary.
    Unused,
    /// One byte, for characters outside the vocabulary.
    Byte,
}

impl TokenKind {
    fn of(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            // llama.cpp takes any other number for an undefined token, which it treats as text.
            _ => Self::Normal,
        }
    }

    /// Its number in a file.
    pub fn number(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }
}

/// How texts are cut into tokens (`tokenizer.ggml.model`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenModel {
    /// Byte-level BPE with merges: `gpt2`.
    ByteBpe,
    /// BPE as SentencePiece has it, with a score a token: `llama`.
    SentencePiece,
}

/// Control tokens that end a text or a turn by their names, whatever the file says; the list of llama.cpp.
const ENDS: [&str; 13] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// Pre-tokenizers of llama.cpp that put a begin-of-text token before a text, where the file does not say.
const BEGIN: [&str; 10] = [
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "tekken",
    "chameleon",
];

/// The tokens of a file.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// How texts are cut.
    pub model: TokenModel,
    /// The name of the pre-tokenizer, for byte-level BPE.
    pub pre: Option<String>,
    /// Their texts; of byte-level BPE in its own alphabet.
    pub tokens: Vec<String>,
    /// What they are for.
    pub kinds: Vec<TokenKind>,
    /// Which pieces are joined first (SentencePiece).
    pub scores: Vec<f32>,
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Stands for text outside the vocabulary.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Separates texts.
    pub sep: Option<u32>,
    /// A hidden token.
    pub mask: Option<u32>,
    /// All that end a text or a turn, [`Vocabulary::eos`] first.
    pub ends: Vec<u32>,
    /// Whether a text begins with [`Vocabulary::bos`].
    pub add_bos: bool,
    /// Whether a text ends with [`Vocabulary::eos`].
    pub add_eos: bool,
    /// Whether a space is put before a text (SentencePiece).
    pub add_space: bool,
    /// What was guessed or passed over, to be told.
    pub notes: Vec<String>,
}

impl Vocabulary {
    /// From a file's metadata.
    ///
    /// # Errors
    /// A file without a vocabulary or with one that contradicts itself; tokenizers that are not read.
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let key = "tokenizer.ggml.model";
        let model = match metadata.needed(key, metadata.text(key)?)? {
            "gpt2" => TokenModel::ByteBpe,
            "llama" => TokenModel::SentencePiece,
            other => {
                let reason = format!(
                    "tokenizer `{other}` is not read; gpt2 (byte-level BPE) and llama (SentencePiece) are"
                );
                return Err(metadata.wrong(key, reason));
            }
        };
        let mut notes = Vec::new();
        let tokens = tokens(metadata)?;
        let kinds = kinds(metadata, tokens.len())?;
        let scores = scores(metadata, model, tokens.len())?;
        let pre = metadata.text("tokenizer.ggml.pre")?.map(str::to_owned);
        if model == TokenModel::ByteBpe && pre.is_none() {
            notes.push(
                "it names no pre-tokenizer (tokenizer.ggml.pre), as files before May 2024: llama.cpp's default one is \
                 taken, which may cut texts otherwise than the model has learned"
                    .into(),
            );
        }
        let named = |name: &str, notes: &mut Vec<String>| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{name}");
            // -1 means none, in whatever width.
            let Some(id) = metadata.count(&key).ok().flatten() else { return Ok(None) };
            if (id as usize) < tokens.len() {
                return Ok(u32::try_from(id).ok());
            }
            if id != u64::from(u32::MAX) {
                notes.push(format!("{key} = {id} is passed over: there are {} tokens", tokens.len()));
            }
            Ok(None)
        };
        let fallback =
            |id: u32| (model == TokenModel::SentencePiece && (id as usize) < tokens.len()).then_some(id);
        let bos = named("bos_token_id", &mut notes)?.or(fallback(1));
        let eos = named("eos_token_id", &mut notes)?.or(fallback(2));
        let unk = named("unknown_token_id", &mut notes)?.or(fallback(0));
        let [pad, sep, mask, eot, eom] = [
            named("padding_token_id", &mut notes)?,
            named("seperator_token_id", &mut notes)?,
            named("mask_token_id", &mut notes)?,
            named("eot_token_id", &mut notes)?,
            named("eom_token_id", &mut notes)?,
        ];
        let mut ends: Vec<u32> = [eos, eot, eom].into_iter().flatten().collect();
        for (id, token) in tokens.iter().enumerate() {
            if kinds[id] == TokenKind::Control && ENDS.contains(&token.as_str()) {
                ends.push(id as u32);
            }
        }
        let mut seen = HashSet::new();
        ends.retain(|id| seen.insert(*id));
        let begins = match model {
            TokenModel::SentencePiece => true,
            TokenModel::ByteBpe => pre.as_deref().is_some_and(|p| BEGIN.contains(&p)),
        };
        let flag = |name: &str, default: bool| -> Result<bool> {
            Ok(metadata.flag(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
        };
        let add_bos = flag("add_bos_token", begins)? && bos.is_some();
        let add_eos = flag("add_eos_token", false)? && eos.is_some();
        let add_space = flag("add_space_prefix", model == TokenModel::SentencePiece)?;
        let mut all = Self {
            model,
            pre,
            tokens,
            kinds,
            scores,
            bos,
            eos,
            unk,
            pad,
            sep,
            mask,
            ends,
            add_bos,
            add_eos,
            add_space,
            notes,
        };
        all.note_ties();
        Ok(all)
    }

    /// Pieces of equal score: which of them are joined first depends on where they stand, which merges cannot say.
    fn note_ties(&mut self) {
        if self.model != TokenModel::SentencePiece {
            return;
        }
        let mut scores: Vec<u32> = (0..self.tokens.len())
            .filter(|&id| self.kinds[id] == TokenKind::Normal && self.tokens[id].chars().nth(1).is_some())
            .map(|id| self.scores[id].to_bits())
            .collect();
        scores.sort_unstable();
        let tied = scores.windows(2).filter(|pair| pair[0] == pair[1]).count();
        if tied > 0 {
            self.notes.push(format!(
                "{tied} pieces have the score of another: where several can be joined, llama.cpp takes the leftmost, \
                 here it is the one that comes first in the vocabulary"
            ));
        }
    }
}

fn tokens(metadata: &Metadata) -> Result<Vec<String>> {
    let key = "tokenizer.ggml.tokens";
    let all = metadata.needed(key, metadata.texts(key)?)?;
    if u32::try_from(all.len()).is_err() || all.is_empty() {
        return Err(metadata.wrong(key, format!("has {} tokens", all.len())));
    }
    // As llama.cpp names them.
    let named = |(i, t): (usize, &String)| if t.is_empty() { format!("[EMPTY_{i}]") } else { t.clone() };
    let all: Vec<String> = all.iter().enumerate().map(named).collect();
    let mut seen = HashSet::new();
    match all.iter().find(|token| !seen.insert(token.as_str())) {
        Some(token) => Err(metadata.wrong(key, format!("holds the token `{token}` twice"))),
        None => Ok(all),
    }
}

fn kinds(metadata: &Metadata, count: usize) -> Result<Vec<TokenKind>> {
    let key = "tokenizer.ggml.token_type";
    let Some(all) = metadata.integers(key)? else { return Ok(vec![TokenKind::Normal; count]) };
    same_length(metadata, key, all.len(), count)?;
    Ok(all.into_iter().map(TokenKind::of).collect())
}

fn scores(metadata: &Metadata, model: TokenModel, count: usize) -> Result<Vec<f32>> {
    if model == TokenModel::ByteBpe {
        return Ok(Vec::new());
    }
    let key = "tokenizer.ggml.scores";
    let all = metadata.needed(key, metadata.numbers(key)?)?;
    same_length(metadata, key, all.len(), count)?;
    Ok(all.into_iter().map(|x| x as f32).collect())
}

fn same_length(metadata: &Metadata, key: &str, found: usize, count: usize) -> Result<(), Error> {
    match found == count {
        true => Ok(()),
        false => Err(metadata.wrong(key, format!("has {found} values for {count} tokens"))),
    }
}
