//! SentencePiece's BPE: pieces with scores in GGUF, merges in `tokenizer.json`.
//!
//! Two pieces that stand side by side are joined where the whole is a piece; of all such pairs that of the highest score
//! goes first. As merges: every cut of every piece into two pieces, in the order of the scores. Characters outside the
//! vocabulary become their bytes.

use std::collections::HashMap;

use ragduet_gguf::{TokenKind, Vocabulary};
use serde_json::{Value, json};

use super::read::{added, surround, vocabulary};

/// SentencePiece's mark for a space.
pub(super) const SPACE: char = '▁';

/// The `tokenizer.json` of such a vocabulary.
pub(super) fn json(words: &Vocabulary) -> Value {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizer = match words.add_space {
        true => json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]}),
        false => spaces,
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if words.add_space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(words),
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": surround(words, Value::Null),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": words.unk.map(|id| &words.tokens[id as usize]),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary(words),
            "merges": merges(words),
        },
    })
}

/// Whether text can become this piece by joining smaller ones.
fn joins(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused)
}

/// Every cut of every piece into two, those of the best pieces first.
fn merges(words: &Vocabulary) -> Vec<Value> {
    let ids: HashMap<&str, usize> = words.tokens.iter().enumerate().map(|(id, t)| (t.as_str(), id)).collect();
    let part = |text: &str| ids.get(text).is_some_and(|&id| joins(words.kinds[id]));
    let mut all: Vec<(f32, usize, usize)> = Vec::new();
    for (id, token) in words.tokens.iter().enumerate() {
        if !joins(words.kinds[id]) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            if part(&token[..at]) && part(&token[at..]) {
                all.push((words.scores[id], id, at));
            }
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    all.into_iter().map(|(_, id, at)| json!([words.tokens[id][..at], words.tokens[id][at..]])).collect()
}
