//! One row of every shape of row that is read. `ragduet data formats` prints this table, docs/data.md shows it, and a
//! test reads each row with the reader of its kind.

use crate::Kind;

/// A shape of row.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// What it is taken for.
    pub kind: Kind,
    /// Whose shape it is, or what it holds.
    pub shape: &'static str,
    /// A row, as JSON.
    pub row: &'static str,
}

const fn sample(kind: Kind, shape: &'static str, row: &'static str) -> Sample {
    Sample { kind, shape, row }
}

/// All shapes.
pub static SAMPLES: &[Sample] = &[
    sample(
        Kind::Examples,
        "pair",
        r#"{"query": "what causes tides?", "positive": "The moon causes tides."}"#,
    ),
    sample(
        Kind::Examples,
        "triplet",
        r#"{"anchor": "what causes tides?", "positive": "The moon causes tides.", "negative": "Wind causes waves."}"#,
    ),
    sample(
        Kind::Examples,
        "several negatives, ids, titles",
        r#"{"query_id": 7, "query": "what causes tides?", "positives": [{"id": "d1", "title": "Tides", "text": "The moon causes tides."}], "negatives": ["Wind causes waves."]}"#,
    ),
    sample(
        Kind::Examples,
        "numbered negatives",
        r#"{"query": "what causes tides?", "positive": "The moon causes tides.", "negative_1": "Wind causes waves.", "negative_2": "Sand is dry."}"#,
    ),
    sample(
        Kind::Examples,
        "FlagEmbedding, with teacher scores",
        r#"{"query": "what causes tides?", "pos": ["The moon causes tides."], "neg": ["Wind causes waves."], "pos_scores": [9.1], "neg_scores": [2.0]}"#,
    ),
    sample(
        Kind::Examples,
        "Tevatron",
        r#"{"query_id": "q1", "query": "what causes tides?", "positive_passages": [{"docid": "d1", "title": "Tides", "text": "The moon causes tides."}], "negative_passages": [{"docid": "d2", "title": "", "text": "Wind causes waves."}]}"#,
    ),
    sample(
        Kind::Examples,
        "DPR",
        r#"{"question": "what causes tides?", "answers": ["the moon"], "positive_ctxs": [{"title": "Tides", "text": "The moon causes tides."}], "hard_negative_ctxs": [{"title": "Waves", "text": "Wind causes waves."}], "negative_ctxs": []}"#,
    ),
    sample(
        Kind::Examples,
        "question and answer, the answer as the passage",
        r#"{"question": "what causes tides?", "answer": "The moon causes tides."}"#,
    ),
    sample(Kind::Corpus, "passage", r#"{"_id": "d1", "title": "Tides", "text": "The moon causes tides."}"#),
    sample(Kind::Corpus, "passage, Pyserini", r#"{"id": "d1", "contents": "The moon causes tides."}"#),
    sample(
        Kind::Records,
        "question, passages, answers",
        r#"{"question": "what causes tides?", "contexts": ["The moon causes tides."], "answers": ["the moon"]}"#,
    ),
    sample(
        Kind::Records,
        "passages with ids and scores, gold passages",
        r#"{"id": "q1", "question": "what causes tides?", "contexts": [{"id": "d1", "title": "Tides", "text": "The moon causes tides.", "score": 0.71}], "gold": ["d1"], "answers": ["the moon"]}"#,
    ),
    sample(
        Kind::Records,
        "one passage",
        r#"{"question": "what causes tides?", "context": "The moon causes tides.", "answer": "the moon"}"#,
    ),
    sample(
        Kind::Records,
        "SQuAD of datasets",
        r#"{"id": "1", "title": "Tides", "context": "The moon causes tides.", "question": "what causes tides?", "answers": {"text": ["the moon"], "answer_start": [0]}}"#,
    ),
    sample(
        Kind::Records,
        "RAGAS",
        r#"{"user_input": "what causes tides?", "retrieved_contexts": ["The moon causes tides."], "reference": "the moon"}"#,
    ),
    sample(
        Kind::Records,
        "FlashRAG",
        r#"{"id": "1", "question": "what causes tides?", "golden_answers": ["the moon"]}"#,
    ),
    sample(
        Kind::Records,
        "conversation",
        r#"{"messages": [{"role": "user", "content": "what causes tides?"}, {"role": "assistant", "content": "The moon."}]}"#,
    ),
    sample(
        Kind::Records,
        "ShareGPT",
        r#"{"conversations": [{"from": "human", "value": "what causes tides?"}, {"from": "gpt", "value": "The moon."}]}"#,
    ),
    sample(
        Kind::Records,
        "prompt and completion",
        r#"{"prompt": "Q: what causes tides?\nA:", "completion": " the moon"}"#,
    ),
    sample(
        Kind::Records,
        "Alpaca",
        r#"{"instruction": "Answer briefly.", "input": "what causes tides?", "output": "the moon"}"#,
    ),
    sample(
        Kind::Records,
        "Dolly",
        r#"{"instruction": "what causes tides?", "context": "The moon causes tides.", "response": "the moon", "category": "closed_qa"}"#,
    ),
    sample(
        Kind::Preferences,
        "texts",
        r#"{"prompt": "what causes tides?", "chosen": "The moon.", "rejected": "The wind."}"#,
    ),
    sample(
        Kind::Preferences,
        "conversations that differ at their end",
        r#"{"chosen": [{"role": "user", "content": "what causes tides?"}, {"role": "assistant", "content": "The moon."}], "rejected": [{"role": "user", "content": "what causes tides?"}, {"role": "assistant", "content": "The wind."}]}"#,
    ),
    sample(
        Kind::Completions,
        "KTO",
        r#"{"prompt": "what causes tides?", "completion": "The moon.", "label": true}"#,
    ),
    sample(
        Kind::Choices,
        "prompt",
        r#"{"prompt": "The sea is", "choices": [" salty", " sweet"], "answer": 0}"#,
    ),
    sample(
        Kind::Choices,
        "question with passages",
        r#"{"question": "what causes tides?", "contexts": ["The moon causes tides."], "choices": ["the moon", "the wind"], "answer": "the moon", "task": "tides"}"#,
    ),
    sample(Kind::Texts, "one label", r#"{"text": "my parcel did not arrive", "label": "delivery"}"#),
    sample(Kind::Texts, "several labels", r#"{"text": "late and broken", "labels": ["delivery", "damage"]}"#),
    sample(
        Kind::Texts,
        "pair",
        r#"{"premise": "A cat sleeps.", "hypothesis": "An animal rests.", "label": "entailment"}"#,
    ),
    sample(Kind::Texts, "score", r#"{"sentence1": "a cat", "sentence2": "a kitten", "score": 4.2}"#),
];

/// The shapes of a kind, as docs/data.md shows them.
pub fn markdown() -> String {
    let mut page = String::new();
    for kind in Kind::ALL {
        page += &format!("\n`{kind}` ({}):\n\n", kind.used_by());
        for sample in SAMPLES.iter().filter(|sample| sample.kind == kind) {
            page += &format!("- {}: `{}`\n", sample.shape, sample.row);
        }
    }
    page
}
