//! A tokenizer as the metadata of a GGUF file.

use std::collections::BTreeMap;

use ragduet_gguf::{Array, TokenKind, Value};
use serde_json::Value as Json;

use super::pre::{ALL, Cut, Pre};
use super::sentencepiece::SPACE;
use crate::chat::without_generation_marks;
use crate::layout::Slot;
use crate::{Error, Result, Tokenizer};

/// What a tokenizer is in a GGUF file.
#[derive(Debug, Clone, Default)]
pub struct GgufTokenizer {
    /// Keys and values of the metadata.
    pub metadata: Vec<(String, Value)>,
    /// What llama.cpp will do otherwise than this tokenizer.
    pub notes: Vec<String>,
}

impl Tokenizer {
    /// The metadata of a GGUF file for a model that embeds `rows` tokens and ends a text at `ends`.
    ///
    /// # Errors
    /// A tokenizer that llama.cpp has no counterpart of: another model than BPE, a pre-tokenizer, a normalizer or merges
    /// that it does not know.
    pub fn to_gguf(&self, rows: usize, ends: &[u32]) -> Result<GgufTokenizer> {
        let text = self.inner.to_string(false).map_err(|e| unwritable(e.to_string()))?;
        let json: Json = serde_json::from_str(&text)
            .map_err(|source| Error::Json { path: "tokenizer.json".into(), source })?;
        let mut out = GgufTokenizer::default();
        if json["model"]["type"] != "BPE" {
            let found = json["model"]["type"].as_str().unwrap_or("of an unknown type").to_owned();
            return Err(unwritable(format!(
                "its model is {found}; byte-level BPE and SentencePiece's BPE are what the Llama, Qwen and Gemma families \
                 have in GGUF"
            )));
        }
        let pieces = json["model"]["byte_fallback"] == true;
        match pieces {
            true => sentencepiece(&json, &mut out)?,
            false => byte_bpe(&json, &mut out)?,
        }
        let tokens = self.listed(&json, rows, pieces)?;
        if pieces {
            let scores = scores(&json, &tokens)?;
            out.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
        }
        let kinds = tokens.iter().map(|(_, kind)| kind.number()).collect();
        out.set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
        let texts = tokens.into_iter().map(|(text, _)| text).collect();
        out.set("tokenizer.ggml.tokens", Value::Array(Array::Text(texts)));
        self.special_tokens(ends, &mut out)?;
        self.templates(&mut out)?;
        Ok(out)
    }

    /// Each token's text and kind, by id.
    fn listed(&self, json: &Json, rows: usize, pieces: bool) -> Result<Vec<(String, TokenKind)>> {
        let mut all: Vec<(String, TokenKind)> =
            (0..rows).map(|id| (format!("[PAD{id}]"), TokenKind::Unused)).collect();
        for (token, id) in self.inner.get_vocab(false) {
            let place =
                all.get_mut(id as usize).ok_or_else(|| unwritable(format!("token {id} has no row")))?;
            let byte = pieces && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            *place = (token, if byte { TokenKind::Byte } else { TokenKind::Normal });
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let (Some(id), Some(text)) = (added["id"].as_u64(), added["content"].as_str()) else { continue };
            let place =
                all.get_mut(id as usize).ok_or_else(|| unwritable(format!("token {id} has no row")))?;
            *place = match added["special"] == true {
                true if pieces && self.special.unk == Some(id as u32) => {
                    (text.to_owned(), TokenKind::Unknown)
                }
                true => (text.to_owned(), TokenKind::Control),
                // llama.cpp looks for them in the text as it is.
                false if pieces => (text.replace(SPACE, " "), TokenKind::UserDefined),
                false => (text.to_owned(), TokenKind::UserDefined),
            };
        }
        Ok(all)
    }

    fn special_tokens(&self, ends: &[u32], out: &mut GgufTokenizer) -> Result<()> {
        let own = &self.special;
        let eos = own.eos.filter(|id| ends.is_empty() || ends.contains(id)).or(ends.first().copied());
        let others: Vec<u32> = ends.iter().copied().filter(|id| Some(*id) != eos).collect();
        let named = [
            ("bos_token_id", own.bos),
            ("eos_token_id", eos),
            ("eot_token_id", others.first().copied()),
            ("eom_token_id", others.get(1).copied()),
            ("unknown_token_id", own.unk),
            ("seperator_token_id", own.sep),
            ("padding_token_id", own.pad),
            ("mask_token_id", own.mask),
        ];
        for (key, id) in named {
            if let Some(id) = id {
                out.set(&format!("tokenizer.ggml.{key}"), id.into());
            }
        }
        if let Some(rest) = others.get(2..).filter(|rest| !rest.is_empty()) {
            out.notes
                .push(format!("{} tokens that end an answer here have no place in a GGUF file", rest.len()));
        }
        let slots = &self.layouts.single(true).0;
        let text = slots.iter().position(|s| matches!(s, Slot::First { .. })).unwrap_or(0);
        let ids = |slots: &[Slot]| -> Vec<u32> {
            slots
                .iter()
                .filter_map(|s| if let Slot::Special { id, .. } = s { Some(*id) } else { None })
                .collect()
        };
        let (before, behind) = (ids(&slots[..text]), ids(&slots[text..]));
        for (key, found, name, is) in
            [("add_bos_token", before, "bos", own.bos), ("add_eos_token", behind, "eos", eos)]
        {
            let on = match found.as_slice() {
                [] => false,
                [id] if Some(*id) == is => true,
                _ => {
                    return Err(unwritable(format!(
                        "its post-processor puts {} around a text, and llama.cpp the {name} token alone",
                        found.iter().filter_map(|&id| self.id_to_token(id)).collect::<Vec<_>>().join(" ")
                    )));
                }
            };
            out.set(&format!("tokenizer.ggml.{key}"), on.into());
        }
        Ok(())
    }

    fn templates(&self, out: &mut GgufTokenizer) -> Result<()> {
        const KEY: &str = "tokenizer.chat_template";
        let Some(sources) = self.template_sources()? else { return Ok(()) };
        let mut named = Vec::new();
        for (name, source) in sources {
            let source = without_generation_marks(&source);
            if name == "default" {
                out.set(KEY, source.as_str().into());
            } else {
                out.set(&format!("{KEY}.{name}"), source.as_str().into());
                named.push(name);
            }
        }
        if !named.is_empty() {
            out.set("tokenizer.chat_templates", Value::Array(Array::Text(named)));
        }
        Ok(())
    }
}

impl GgufTokenizer {
    fn set(&mut self, key: &str, value: Value) {
        self.metadata.push((key.into(), value));
    }
}

fn unwritable(reason: impl Into<String>) -> Error {
    let reason = format!("this tokenizer has no counterpart in GGUF: {}", reason.into());
    Error::Invalid { path: "tokenizer.json".into(), reason }
}

/// The steps of a pre-tokenizer, without nesting.
fn steps(json: &Json) -> Vec<&Json> {
    match json["pretokenizers"].as_array() {
        Some(list) => list.iter().flat_map(steps).collect(),
        None if json.is_null() => Vec::new(),
        None => vec![json],
    }
}

/// A step that cuts; None: one that llama.cpp has no counterpart of.
fn cut_of(step: &Json) -> Option<Vec<Cut>> {
    match step["type"].as_str()? {
        "Split" => {
            let regex = step["pattern"]["Regex"].as_str()?;
            // All of them are of one kind: matches and what lies between become words.
            if step["behavior"] != "Isolated" || step["invert"] == true {
                return None;
            }
            let known = |c: &&Cut| matches!(c, Cut::Regex(r) if *r == regex);
            ALL.iter().flat_map(|p| p.cuts).find(known).map(|cut| vec![*cut])
        }
        "Digits" if step["individual_digits"] == true => Some(vec![Cut::Digits]),
        "ByteLevel" if step["add_prefix_space"] == true => None,
        "ByteLevel" if step["use_regex"] == false => Some(Vec::new()),
        "ByteLevel" => Some(vec![Cut::Gpt2]),
        _ => None,
    }
}

fn byte_bpe(json: &Json, out: &mut GgufTokenizer) -> Result<()> {
    let nfc = match json["normalizer"]["type"].as_str() {
        None => false,
        Some("NFC") => true,
        Some(other) => return Err(unwritable(format!("llama.cpp does not normalize as {other} does"))),
    };
    let shown = || {
        format!(
            "its pre-tokenizer is none of those that llama.cpp names ({}): {}",
            Pre::names(),
            json["pre_tokenizer"]
        )
    };
    let steps = steps(&json["pre_tokenizer"]);
    if !steps.iter().any(|s| s["type"] == "ByteLevel") {
        return Err(unwritable(shown()));
    }
    let cuts: Option<Vec<Vec<Cut>>> = steps.into_iter().map(cut_of).collect();
    let cuts: Vec<Cut> = cuts.ok_or_else(|| unwritable(shown()))?.concat();
    let ignore_merges = json["model"]["ignore_merges"] == true;
    let fits = |p: &&Pre| p.cuts == cuts && p.ignore_merges == ignore_merges;
    let exact = ALL.iter().filter(fits).find(|p| p.nfc == nfc);
    let pre = exact.or_else(|| ALL.iter().find(fits)).ok_or_else(|| unwritable(shown()))?;
    if nfc {
        out.notes.push(
            "it composes characters first (NFC), llama.cpp does not: texts with decomposed ones have other tokens there"
                .into(),
        );
    }
    out.set("tokenizer.ggml.model", "gpt2".into());
    out.set("tokenizer.ggml.pre", pre.names[0].into());
    let merges = merges(json)?.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
    out.set("tokenizer.ggml.merges", Value::Array(Array::Text(merges)));
    Ok(())
}

/// The pairs of a model, whichever way they are written.
fn merges(json: &Json) -> Result<Vec<(String, String)>> {
    let pair = |merge: &Json| match merge {
        Json::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Json::Array(two) => Some((two.first()?.as_str()?.to_owned(), two.get(1)?.as_str()?.to_owned())),
        _ => None,
    };
    let list = json["model"]["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all: Option<Vec<_>> = list.iter().map(pair).collect();
    let all = all.ok_or_else(|| unwritable("a merge is not two tokens"))?;
    match all.iter().find(|(a, _)| a.contains(' ')) {
        Some((a, b)) if json["model"]["byte_fallback"] != true => {
            Err(unwritable(format!("the merge of `{a}` and `{b}` holds a space")))
        }
        _ => Ok(all),
    }
}

/// What SentencePiece's tokenizers do with spaces.
fn sentencepiece(json: &Json, out: &mut GgufTokenizer) -> Result<()> {
    let normalizers = match json["normalizer"]["normalizers"].as_array() {
        Some(list) => list.iter().collect(),
        None if json["normalizer"].is_null() => Vec::new(),
        None => vec![&json["normalizer"]],
    };
    let (mut prefix, mut replaced) = (false, false);
    let space = SPACE.to_string();
    for n in normalizers {
        match n["type"].as_str() {
            Some("Prepend") if n["prepend"] == space.as_str() => prefix = true,
            Some("Replace") if n["pattern"]["String"] == " " && n["content"] == space.as_str() => {
                replaced = true
            }
            other => {
                let other = other.unwrap_or("unknown");
                return Err(unwritable(format!("llama.cpp does not normalize as {other} does")));
            }
        }
    }
    for step in steps(&json["pre_tokenizer"]) {
        match step["type"].as_str() {
            Some("Metaspace") if step["split"] == false && step["replacement"] == space.as_str() => {
                replaced = true;
                prefix |= step["prepend_scheme"] != "never";
                if step["prepend_scheme"] == "first" {
                    out.notes.push(
                        "it puts a space before a text, llama.cpp also behind each special token in it"
                            .into(),
                    );
                }
            }
            // Gemma's: there are no spaces left when it comes.
            Some("Split") if replaced && step["pattern"]["String"] == " " => {}
            _ => return Err(unwritable(format!("llama.cpp does not cut texts as {step} does"))),
        }
    }
    if !replaced {
        return Err(unwritable("it does not mark spaces with ▁"));
    }
    out.set("tokenizer.ggml.model", "llama".into());
    out.set("tokenizer.ggml.pre", "default".into());
    out.set("tokenizer.ggml.add_space_prefix", prefix.into());
    Ok(())
}

/// Scores that make llama.cpp join pieces in the order of the merges. It joins whatever two neighbors make a piece, so the
/// merges must be all of them, which they are where SentencePiece made them.
fn scores(json: &Json, tokens: &[(String, TokenKind)]) -> Result<Vec<f32>> {
    let merges = merges(json)?;
    let joins = |kind: TokenKind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined);
    let ids: BTreeMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .filter(|(_, (_, kind))| joins(*kind))
        .map(|(id, (text, _))| (text.as_str(), id))
        .collect();
    // Which merges make a piece: the first, the last, how many.
    let mut made: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    for (rank, (a, b)) in merges.iter().enumerate() {
        let entry = made.entry(format!("{a}{b}")).or_insert((rank, rank, 0));
        (entry.1, entry.2) = (rank, entry.2 + 1);
    }
    for (text, &id) in &ids {
        let cuts = text.char_indices().skip(1);
        let possible = cuts.filter(|&(at, _)| ids.contains_key(&text[..at]) && ids.contains_key(&text[at..]));
        let (possible, listed) = (possible.count(), made.get(*text).map_or(0, |m| m.2));
        if tokens[id].1 == TokenKind::Normal && possible > listed {
            return Err(unwritable(format!(
                "it makes the token `{text}` of some of the pairs that it could be made of ({listed} of {possible}), and \
                 llama.cpp of any: its merges are not SentencePiece's"
            )));
        }
    }
    // Pieces whose merges alternate had one score.
    let mut spans: Vec<(usize, usize, &str)> = made.iter().map(|(t, m)| (m.0, m.1, t.as_str())).collect();
    spans.sort_unstable();
    let mut scores: Vec<f32> = (0..tokens.len()).map(|id| -((spans.len() + 1 + id) as f32)).collect();
    let (mut place, mut end) = (0usize, None);
    for (first, last, text) in spans {
        if end.is_some_and(|end| first > end) {
            place += 1;
        }
        end = Some(end.map_or(last, |end: usize| end.max(last)));
        if let Some(&id) = ids.get(text) {
            scores[id] = -(place as f32);
        }
    }
    Ok(scores)
}
