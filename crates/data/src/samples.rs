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
    /// Options with which it is read, where it needs some.
    pub with: &'static str,
    /// A row, as JSON.
    pub row: &'static str,
}

const fn sample(kind: Kind, shape: &'static str, row: &'static str) -> Sample {
    Sample { kind, shape, with: "", row }
}

impl Sample {
    /// The same, read with options.
    const fn with(self, with: &'static str) -> Self {
        Self { with, ..self }
    }

    /// The shape and, where it needs some, the options.
    pub fn title(&self) -> String {
        match self.with {
            "" => self.shape.to_owned(),
            with => format!("{} (with `{with}`)", self.shape),
        }
    }
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
    sample(
        Kind::Examples,
        "labelled pair: 1 relevant, 0 not",
        r#"{"query": "what causes tides?", "passage": "The moon causes tides.", "label": 1}"#,
    ),
    sample(
        Kind::Examples,
        "passages with a label each",
        r#"{"query": "what causes tides?", "docs": ["The moon causes tides.", "Wind causes waves."], "labels": [1, 0]}"#,
    ),
    sample(
        Kind::Examples,
        "scored pair, relevant from a score on",
        r#"{"sentence1": "a cat", "sentence2": "a kitten", "score": 0.9}"#,
    ).with("--as examples --min-score 0.7"),
    sample(
        Kind::Examples,
        "NLI, entailment relevant, contradiction a negative",
        r#"{"premise": "A cat sleeps.", "hypothesis": "An animal rests.", "label": "entailment"}"#,
    ).with("--as examples --nli"),
    sample(
        Kind::Examples,
        "PyLate, ids of passages with a teacher's scores",
        r#"{"query_id": "q1", "document_ids": ["d1", "d2"], "scores": [9.1, 2.0]}"#,
    ).with("--corpus FILE --queries FILE --min-score 5"),
    sample(
        Kind::Examples,
        "Tevatron, ids of passages",
        r#"{"query_id": "q1", "query": "what causes tides?", "positive_document_ids": ["d1"], "negative_document_ids": ["d2"]}"#,
    ).with("--format tevatron --corpus FILE"),
    sample(Kind::Corpus, "passage", r#"{"_id": "d1", "title": "Tides", "text": "The moon causes tides."}"#),
    sample(Kind::Corpus, "passage, Pyserini", r#"{"id": "d1", "contents": "The moon causes tides."}"#),
    sample(
        Kind::Corpus,
        "LangChain",
        r#"{"page_content": "The moon causes tides.", "metadata": {"source": "sea.pdf", "page": 3}, "type": "Document"}"#,
    ),
    sample(
        Kind::Corpus,
        "LangChain, as dumpd writes it",
        r#"{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "document", "Document"], "kwargs": {"page_content": "The moon causes tides.", "metadata": {"source": "sea.pdf"}}}"#,
    ),
    sample(
        Kind::Corpus,
        "LlamaIndex",
        r#"{"id_": "d1", "text": "The moon causes tides.", "metadata": {"title": "Tides"}, "class_name": "TextNode"}"#,
    ),
    sample(
        Kind::Corpus,
        "LlamaIndex, text as a resource",
        r#"{"id_": "d1", "text_resource": {"text": "The moon causes tides.", "mimetype": "text/plain"}, "metadata": {}}"#,
    ),
    sample(
        Kind::Corpus,
        "text",
        r#"{"text": "The moon causes tides."}"#,
    ),
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
        "KILT",
        r#"{"id": "1", "input": "what causes tides?", "output": [{"answer": "the moon", "provenance": [{"wikipedia_id": "10", "title": "Tide"}]}]}"#,
    ),
    sample(
        Kind::Records,
        "MS MARCO v2",
        r#"{"query_id": 1, "query": "what causes tides?", "query_type": "DESCRIPTION", "answers": ["the moon"], "passages": {"is_selected": [1, 0], "passage_text": ["The moon causes tides.", "Wind causes waves."], "url": ["a", "b"]}}"#,
    ),
    sample(
        Kind::Records,
        "TriviaQA",
        r#"{"question_id": "1", "question": "what causes tides?", "answer": {"value": "the moon", "aliases": ["the moon", "moon"]}}"#,
    ),
    sample(
        Kind::Records,
        "HotpotQA",
        r#"{"id": "1", "question": "what causes tides?", "answer": "the moon", "context": {"title": ["Tides", "Waves"], "sentences": [["The moon causes tides."], ["Wind causes waves."]]}, "supporting_facts": {"title": ["Tides"], "sent_id": [0]}}"#,
    ),
    sample(
        Kind::Records,
        "PubMedQA",
        r#"{"question": "what causes tides?", "context": {"contexts": ["The moon causes tides."]}, "long_answer": "The moon does."}"#,
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
        "conversation with tools",
        r#"{"messages": [{"role": "user", "content": "when is high tide?"}, {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "tide", "arguments": {"day": "today"}}}]}, {"role": "tool", "name": "tide", "content": "at noon"}, {"role": "assistant", "content": "At noon."}], "tools": [{"type": "function", "function": {"name": "tide", "description": "Time of high tide.", "parameters": {"type": "object", "properties": {"day": {"type": "string"}}}}}]}"#,
    ),
    sample(
        Kind::Records,
        "prompt and completion",
        r#"{"prompt": "Q: what causes tides?\nA:", "completion": " the moon"}"#,
    ),
    sample(
        Kind::Records,
        "prompt and completion as messages; all of the completion is learned",
        r#"{"prompt": [{"role": "user", "content": "what causes tides?"}], "completion": [{"role": "assistant", "content": "The moon."}, {"role": "user", "content": "and waves?"}, {"role": "assistant", "content": "Wind."}]}"#,
    ),
    sample(
        Kind::Records,
        "prompt alone, to be answered",
        r#"{"prompt": "Q: what causes tides?\nA:"}"#,
    ),
    sample(
        Kind::Records,
        "text, all of which is learned",
        r#"{"text": "The moon causes tides."}"#,
    ).with("--as records"),
    sample(
        Kind::Records,
        "Alpaca",
        r#"{"instruction": "Answer briefly.", "input": "what causes tides?", "output": "the moon"}"#,
    ),
    sample(
        Kind::Records,
        "Alpaca with earlier turns (LLaMA-Factory)",
        r#"{"instruction": "and waves?", "input": "", "output": "Wind.", "system": "Be brief.", "history": [["what causes tides?", "The moon."]]}"#,
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
        Kind::Preferences,
        "texts that begin with the prompt",
        r#"{"chosen": "Q: what causes tides?\nA: the moon", "rejected": "Q: what causes tides?\nA: the wind"}"#,
    ),
    sample(
        Kind::Preferences,
        "LLaMA-Factory, ShareGPT",
        r#"{"conversations": [{"from": "human", "value": "what causes tides?"}], "chosen": {"from": "gpt", "value": "The moon."}, "rejected": {"from": "gpt", "value": "The wind."}}"#,
    ),
    sample(
        Kind::Preferences,
        "LLaMA-Factory, Alpaca",
        r#"{"instruction": "what causes tides?", "input": "", "chosen": "The moon.", "rejected": "The wind."}"#,
    ),
    sample(
        Kind::Preferences,
        "Orca",
        r#"{"system": "Be brief.", "question": "what causes tides?", "chosen": "The moon.", "rejected": "The wind."}"#,
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
            page += &format!("- {}: `{}`\n", sample.title(), sample.row);
        }
    }
    page
}
