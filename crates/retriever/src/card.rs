//! The model card: what was trained, on what, with what result.

use crate::biencoder::{BiEncoder, Similarity};
use ragduet_metrics::{Evaluation, Measure};

/// What the card states beside the model itself.
#[derive(Debug)]
pub(crate) struct CardFacts<'a> {
    pub name: &'a str,
    pub base: &'a str,
    pub data: &'a str,
    pub examples: usize,
    pub step: u64,
    pub config: &'a str,
    pub before: Option<&'a Evaluation>,
    pub after: Option<&'a Evaluation>,
    pub measures: &'a [Measure],
}

/// The card as Markdown with the hub's front matter.
pub(crate) fn model_card(model: &BiEncoder, f: &CardFacts<'_>) -> String {
    let s = &model.settings;
    let similarity = match s.similarity {
        Similarity::Cosine => "cosine",
        Similarity::Dot => "dot product",
    };
    let base_line = if f.base.contains('/') && !f.base.starts_with(['.', '/']) {
        format!("base_model: {}\n", f.base)
    } else {
        String::new()
    };
    let (library, tags, what) = match model.late() {
        None if model.sparse().is_some() => (
            "sentence-transformers",
            "sentence-transformers\n- sparse-encoder\n- splade",
            "sparse retriever (SPLADE)",
        ),
        None => (
            "sentence-transformers",
            "sentence-transformers\n- sentence-similarity\n- dense",
            "dense retriever",
        ),
        Some(_) => {
            ("PyLate", "ColBERT\n- PyLate\n- late-interaction", "late-interaction retriever (ColBERT)")
        }
    };
    let mut out = format!(
        "---\nlibrary_name: {library}\npipeline_tag: sentence-similarity\ntags:\n- {tags}\n- feature-extraction\n\
         - ragduet\n{base_line}---\n\n# {}\n\nA {what} trained by Ragduet {} from `{}`.\n\n| | |\n|---|---|\n",
        f.name,
        env!("CARGO_PKG_VERSION"),
        f.base
    );
    let mut row = |k: &str, v: String| out.push_str(&format!("| {k} | {v} |\n"));
    row("embedding size", model.dim().to_string());
    if model.late().is_some() {
        row("similarity", "MaxSim".into());
    } else if let Some(sparse) = model.sparse() {
        row("similarity", similarity.into());
        row("weights", format!("{:?} over tokens, {:?}", sparse.pooling, sparse.activation).to_lowercase());
    } else {
        row("similarity", similarity.into());
        row("pooling", format!("{:?}", s.pooling).to_lowercase());
        row("normalised", s.normalize.to_string());
    }
    row("towers", if model.is_shared() { "shared" } else { "query and passage" }.into());
    row("longest query / passage", format!("{} / {} tokens", s.max_query_tokens, s.max_passage_tokens));
    row("prompts", format!("query `{}`, passage `{}`", s.prompts.query, s.prompts.passage));
    row("training data", format!("{} ({} examples)", f.data, f.examples));
    row("optimiser steps", f.step.to_string());
    if let Some(after) = f.after {
        out.push_str("\n## Results on the dev set\n\n| measure | before | this model |\n|---|---|---|\n");
        let value = |e: Option<&Evaluation>, m| {
            e.and_then(|e| e.mean(m)).map_or_else(|| "–".into(), |v| format!("{v:.4}"))
        };
        for &m in f.measures {
            out.push_str(&format!("| {m} | {} | {} |\n", value(f.before, m), value(Some(after), m)));
        }
    }
    let code = match model.late() {
        None if model.sparse().is_some() => {
            "from sentence_transformers import SparseEncoder\n\n\
             model = SparseEncoder(\"path/to/this/folder\")\n\
             queries = model.encode_query([\"...\"])\npassages = model.encode_document([\"title text\"])\n\
             print(model.similarity(queries, passages))"
        }
        None => {
            "from sentence_transformers import SentenceTransformer\n\n\
             model = SentenceTransformer(\"path/to/this/folder\")\n\
             queries = model.encode_query([\"...\"])\npassages = model.encode_document([\"title text\"])\n\
             print(model.similarity(queries, passages))"
        }
        Some(_) => {
            "from pylate import models, scores\n\nmodel = models.ColBERT(\"path/to/this/folder\")\n\
             queries = model.encode([\"...\"], is_query=True)\n\
             passages = model.encode([\"title text\"], is_query=False)\n\
             print(scores.colbert_scores(queries, passages))"
        }
    };
    out.push_str(&format!(
        "\n## Use\n\n```python\n{code}\n```\n\nPassages were embedded as title, a space, text.\n\n## Config\n\n```toml\n{}\n```\n",
        f.config.trim_end()
    ));
    out
}
