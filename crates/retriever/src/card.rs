//! The model card: what was trained, on what, with what result.

use crate::biencoder::BiEncoder;
use crate::representation::{Representation, Similarity};
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
    let Kind { library, tags, what, rows, code } = Kind::of(model.representation());
    let base_line = ragduet_train::card::base_line(f.base);
    let mut out = format!(
        "---\nlibrary_name: {library}\npipeline_tag: sentence-similarity\ntags:\n- {tags}\n- feature-extraction\n\
         - ragduet\n{base_line}---\n\n# {}\n\nA {what} trained by Ragduet {} from `{}`.\n\n| | |\n|---|---|\n",
        f.name,
        env!("CARGO_PKG_VERSION"),
        f.base
    );
    let mut row = |k: &str, v: String| out.push_str(&format!("| {k} | {v} |\n"));
    row("embedding size", model.dim().to_string());
    rows.into_iter().for_each(|(k, v)| row(k, v));
    row("towers", if model.is_shared() { "shared" } else { "query and passage" }.into());
    row("longest query / passage", format!("{} / {} tokens", s.max_query_tokens, s.max_passage_tokens));
    row("prompts", format!("query `{}`, passage `{}`", s.prompts.query, s.prompts.passage));
    row("training data", format!("{} ({} examples)", f.data, f.examples));
    row("optimizer steps", f.step.to_string());
    if let Some(after) = f.after {
        out.push_str("\n## Results on the dev set\n\n| measure | before | this model |\n|---|---|---|\n");
        let value = |e: Option<&Evaluation>, m| {
            e.and_then(|e| e.mean(m)).map_or_else(|| "–".into(), |v| format!("{v:.4}"))
        };
        for &m in f.measures {
            out.push_str(&format!("| {m} | {} | {} |\n", value(f.before, m), value(Some(after), m)));
        }
    }
    let of_base = model.towers().any(|t| t.adapter.is_some());
    let of_base = if of_base { ADAPTER } else { "" };
    out.push_str(&format!(
        "\n## Use\n\n{of_base}```python\n{code}\n```\n\nPassages were embedded as title, a space, text.\n\n## Config\n\n```toml\n{}\n```\n",
        f.config.trim_end()
    ));
    out
}

/// How the folder of an adapter loads.
const ADAPTER: &str = "This folder holds an adapter, not the weights of its base. sentence-transformers 6.2 with transformers \
    5.24 loads both, as below. sentence-transformers 5.3 and PyLate 1.6 with transformers 5.3 raise no error and load the \
    base without the adapter: for these run `ragduet merge path/to/this/folder -o merged` first and load `merged`.\n\n";

/// What a card says of a kind of representation.
struct Kind {
    library: &'static str,
    tags: &'static str,
    what: &'static str,
    rows: Vec<(&'static str, String)>,
    code: &'static str,
}

impl Kind {
    fn of(representation: &Representation) -> Self {
        match representation {
            Representation::Dense(settings) => Self {
                library: "sentence-transformers",
                tags: "sentence-transformers\n- sentence-similarity\n- dense",
                what: "dense retriever",
                rows: vec![
                    ("similarity", similarity(settings.similarity).into()),
                    ("pooling", settings.pooling.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ")),
                    ("normalized", settings.normalize.to_string()),
                ],
                code: "from sentence_transformers import SentenceTransformer\n\n\
                       model = SentenceTransformer(\"path/to/this/folder\")\n\
                       queries = model.encode_query([\"...\"])\n\
                       passages = model.encode_document([\"title text\"])\n\
                       print(model.similarity(queries, passages))",
            },
            Representation::LateInteraction(_) => Self {
                library: "PyLate",
                tags: "ColBERT\n- PyLate\n- late-interaction",
                what: "late-interaction retriever (ColBERT)",
                rows: vec![("similarity", "MaxSim".into())],
                code: "from pylate import models, scores\n\nmodel = models.ColBERT(\"path/to/this/folder\")\n\
                       queries = model.encode([\"...\"], is_query=True)\n\
                       passages = model.encode([\"title text\"], is_query=False)\n\
                       print(scores.colbert_scores(queries, passages))",
            },
            Representation::Sparse(c) => Self {
                library: "sentence-transformers",
                tags: "sentence-transformers\n- sparse-encoder\n- splade",
                what: "sparse retriever (SPLADE)",
                rows: vec![
                    ("similarity", similarity(representation.similarity()).into()),
                    ("weights", format!("{:?} over tokens, {:?}", c.pooling, c.activation).to_lowercase()),
                ],
                code: "from sentence_transformers import SparseEncoder\n\n\
                       model = SparseEncoder(\"path/to/this/folder\")\n\
                       queries = model.encode_query([\"...\"])\n\
                       passages = model.encode_document([\"title text\"])\n\
                       print(model.similarity(queries, passages))",
            },
        }
    }
}

fn similarity(of: Similarity) -> &'static str {
    match of {
        Similarity::Cosine => "cosine",
        Similarity::Dot => "dot product",
    }
}
