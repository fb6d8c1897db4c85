//! What a directory says about late interaction: PyLate's keys, those of Stanford's ColBERT.

use crate::representation::LateConfig;
use crate::{Error, Result};
use ragduet_torch::weights::Weights;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// Late interaction as a directory has it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub config: LateConfig,
    /// Longest query and passage in tokens.
    pub lengths: (usize, usize),
    /// The projection lies beside the encoder's weights, as Stanford's.
    pub stanford: bool,
}

const LENGTHS: (usize, usize) = (32, 180);

/// PyLate's keys of `config_sentence_transformers.json`.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct PyLate {
    query_prefix: String,
    document_prefix: String,
    query_length: usize,
    document_length: usize,
    attend_to_expansion_tokens: bool,
    skiplist_words: Vec<String>,
    do_query_expansion: bool,
}

impl Default for PyLate {
    fn default() -> Self {
        let c = LateConfig::default();
        Self {
            query_prefix: c.query_marker,
            document_prefix: c.passage_marker,
            query_length: LENGTHS.0,
            document_length: LENGTHS.1,
            attend_to_expansion_tokens: c.attend_to_expansion,
            skiplist_words: c.skip,
            do_query_expansion: c.expand_queries,
        }
    }
}

/// `artifact.metadata` of Stanford's ColBERT.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Artifact {
    query_token_id: String,
    doc_token_id: String,
    query_maxlen: usize,
    doc_maxlen: usize,
    attend_to_mask_tokens: bool,
    mask_punctuation: bool,
}

impl Default for Artifact {
    fn default() -> Self {
        Self {
            query_token_id: "[unused0]".into(),
            doc_token_id: "[unused1]".into(),
            query_maxlen: LENGTHS.0,
            doc_maxlen: 220,
            attend_to_mask_tokens: false,
            mask_punctuation: true,
        }
    }
}

/// Whether a directory holds a late-interaction model.
///
/// # Errors
/// Broken JSON files.
pub fn is_late(dir: &Path) -> Result<bool> {
    Ok(find(dir)?.is_some())
}

/// None for a model with one vector a text.
pub(super) fn find(dir: &Path) -> Result<Option<Found>> {
    let read = |name: &str| -> Result<Option<Value>> {
        let path = dir.join(name);
        if path.is_file() { super::read::json(&path).map(Some) } else { Ok(None) }
    };
    let parse = |name: &str| {
        let path = dir.join(name);
        move |source| Error::Json { path, source }
    };
    const CONFIG: &str = "config_sentence_transformers.json";
    const ARTIFACT: &str = "artifact.metadata";
    if let Some(config) = read(CONFIG)? {
        // What PyLate makes of another model and saves keeps that model's type.
        let max_sim = config.get("similarity_fn_name").and_then(Value::as_str) == Some("MaxSim");
        match config.get("model_type").and_then(Value::as_str) {
            kind if kind == Some("ColBERT") || (max_sim && kind != Some("MultiVectorEncoder")) => {
                let p: PyLate = serde_json::from_value(config).map_err(parse(CONFIG))?;
                let config = LateConfig {
                    query_marker: p.query_prefix,
                    passage_marker: p.document_prefix,
                    expand_queries: p.do_query_expansion,
                    attend_to_expansion: p.attend_to_expansion_tokens,
                    skip: p.skiplist_words,
                    ..LateConfig::default()
                };
                let lengths = (p.query_length, p.document_length);
                return Ok(Some(Found { config, lengths, stanford: false }));
            }
            Some("MultiVectorEncoder") => return multi_vector_encoder(dir, &config).map(Some),
            _ => {}
        }
    }
    let stanford = read("config.json")?
        .and_then(|c| c.pointer("/architectures/0").and_then(Value::as_str).map(|a| a == "HF_ColBERT"));
    if stanford != Some(true) {
        return Ok(None);
    }
    let a: Artifact = match read(ARTIFACT)? {
        Some(value) => serde_json::from_value(value).map_err(parse(ARTIFACT))?,
        None => Artifact::default(),
    };
    let defaults = LateConfig::default();
    let config = LateConfig {
        query_marker: a.query_token_id,
        passage_marker: a.doc_token_id,
        attend_to_expansion: a.attend_to_mask_tokens,
        skip: if a.mask_punctuation { defaults.skip.clone() } else { Vec::new() },
        ..defaults
    };
    Ok(Some(Found { config, lengths: (a.query_maxlen, a.doc_maxlen), stanford: true }))
}

/// The layout of sentence-transformers 6: markers are prompts, expansion is the transformer's, the skip list a module's.
fn multi_vector_encoder(dir: &Path, config: &Value) -> Result<Found> {
    #[derive(Deserialize)]
    struct Expansion {
        strategy: String,
        #[serde(default)]
        attend: bool,
        #[serde(default)]
        token: Option<String>,
        length: usize,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Transformer {
        query_expansion: Option<Expansion>,
        query_length: Option<usize>,
        document_length: Option<usize>,
        max_seq_length: Option<usize>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Mask {
        skiplist_words: Vec<String>,
        skiplist_tasks: Option<Vec<String>>,
        keep_only_token_ids: Option<Vec<u32>>,
    }
    let unsupported = |what: &str| Err(Error::UnsupportedModel { path: dir.into(), what: what.into() });
    let t: Transformer = match dir.join("sentence_bert_config.json") {
        path if path.is_file() => super::read::json(&path)?,
        _ => Transformer::default(),
    };
    let modules: Vec<Value> = super::read::json(&dir.join("modules.json"))?;
    let mut mask = Mask::default();
    for module in &modules {
        let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        if super::module_kind(text("type")) == Some(super::ModuleKind::TokenMask) {
            mask = super::read::json(&dir.join(text("path")).join("config.json"))?;
        }
    }
    if mask.keep_only_token_ids.is_some() || mask.skiplist_tasks.is_some_and(|t| t != ["document"]) {
        return unsupported("a token mask that is more than a skip list of documents");
    }
    let expansion = t.query_expansion;
    if expansion.as_ref().is_some_and(|e| e.strategy != "fixed" || e.token.is_some()) {
        return unsupported("a query expansion that is not by mask tokens to a fixed length");
    }
    let marker = |name: &str| {
        let prompt = config.pointer(&format!("/prompts/{name}")).and_then(Value::as_str);
        prompt.unwrap_or_default().to_string()
    };
    let query = expansion.as_ref().map(|e| e.length).or(t.query_length).or(t.max_seq_length);
    let passage = t.document_length.or(t.max_seq_length);
    let config = LateConfig {
        query_marker: marker("query"),
        passage_marker: marker("document"),
        expand_queries: expansion.is_some(),
        attend_to_expansion: expansion.is_some_and(|e| e.attend),
        skip: mask.skiplist_words,
        ..LateConfig::default()
    };
    let lengths = (query.unwrap_or(LENGTHS.0), passage.unwrap_or(LENGTHS.1));
    Ok(Found { config, lengths, stanford: false })
}

/// The projection of Stanford's layout: the encoder's weights and `linear.weight` in one file.
pub(super) fn stanford_projection(dir: &Path) -> Result<(Weights, i64, i64)> {
    let weights = Weights::open_dir(dir)?.only(|name| name.starts_with("linear."));
    match weights.shape("linear.weight").as_deref() {
        Some(&[outputs, inputs]) => Ok((weights, inputs, outputs)),
        _ => Err(Error::UnsupportedModel {
            path: dir.into(),
            what: "HF_ColBERT without a projection `linear.weight`".into(),
        }),
    }
}

/// PyLate's keys for `config_sentence_transformers.json`.
pub(super) fn keys(c: &LateConfig, (query, passage): (usize, usize)) -> Value {
    json!({
        "query_prefix": c.query_marker,
        "document_prefix": c.passage_marker,
        "query_length": query,
        "document_length": passage,
        "attend_to_expansion_tokens": c.attend_to_expansion,
        "skiplist_words": c.skip,
        "do_query_expansion": c.expand_queries,
    })
}
