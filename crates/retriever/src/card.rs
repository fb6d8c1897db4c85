//! The card of a retriever.

use crate::biencoder::BiEncoder;
use crate::representation::{Representation, Similarity};
use ragduet_train::Card;

impl BiEncoder {
    /// The card of a model that started from `base` (`None`: random weights) and learned from so many examples of `data`.
    pub(crate) fn card(&self, base: Option<&str>, data: &str, examples: usize) -> Card {
        let s = &self.settings;
        let Kind { library, tags, what, rows: own, code } = Kind::of(self.representation());
        let mut rows = vec![("embedding size", self.dim().to_string())];
        rows.extend(own);
        rows.push(("towers", if self.is_shared() { "shared" } else { "query and passage" }.into()));
        rows.push((
            "longest query / passage",
            format!("{} / {} tokens", s.max_query_tokens, s.max_passage_tokens),
        ));
        rows.push(("prompts", format!("query `{}`, passage `{}`", s.prompts.query, s.prompts.passage)));
        let adapted = self.towers().any(|t| t.adapter.is_some());
        Card {
            library,
            task: "sentence-similarity",
            tags: [tags, &["feature-extraction"]].concat(),
            what,
            base: base.map(String::from),
            data: format!("{data} ({examples} examples)"),
            rows,
            loading: adapted.then_some(ADAPTER),
            code: code.into(),
            input: Some("Passages were embedded as title, a space, text."),
        }
    }
}

/// How the folder of an adapter loads.
const ADAPTER: &str = "This folder holds an adapter, not the weights of its base. sentence-transformers 6.2 with transformers \
    5.24 loads both, as below. sentence-transformers 5.3 and PyLate 1.6 with transformers 5.3 raise no error and load the \
    base without the adapter: for these run `ragduet merge path/to/this/folder -o merged` first and load `merged`.";

/// What a card says of a kind of representation.
struct Kind {
    library: &'static str,
    tags: &'static [&'static str],
    what: &'static str,
    rows: Vec<(&'static str, String)>,
    code: &'static str,
}

impl Kind {
    fn of(representation: &Representation) -> Self {
        match representation {
            Representation::Dense(settings) => Self {
                library: "sentence-transformers",
                tags: &["sentence-transformers", "sentence-similarity", "dense"],
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
                tags: &["ColBERT", "PyLate", "late-interaction"],
                what: "late-interaction retriever (ColBERT)",
                rows: vec![("similarity", "MaxSim".into())],
                code: "from pylate import models, scores\n\nmodel = models.ColBERT(\"path/to/this/folder\")\n\
                       queries = model.encode([\"...\"], is_query=True)\n\
                       passages = model.encode([\"title text\"], is_query=False)\n\
                       print(scores.colbert_scores(queries, passages))",
            },
            Representation::Sparse(c) => Self {
                library: "sentence-transformers",
                tags: &["sentence-transformers", "sparse-encoder", "splade"],
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
