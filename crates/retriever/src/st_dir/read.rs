//! Directory to bi-encoder.

use super::late;
use super::modules::{Chain, Reading, chains};
use crate::biencoder::{BiEncoder, Settings};
use crate::head::{Dense, DenseShape, Head, HeadModule};
use crate::representation::{
    DenseSettings, Late, LateConfig, Pooling, Representation, Similarity, SparseConfig,
};
use crate::{Error, Result};
use fs_err as fs;
use ragduet_nn::MlmHeadOption;
use ragduet_text::Prompts;
use ragduet_torch::{Bits, Compute, Device, ParamBuilder};
use serde::Deserialize;
use std::path::Path;

/// What the caller wants otherwise than the directory says; `None` keeps it.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Pooling of a dense model; needed for a directory without modules.json, which does not say.
    pub pooling: Option<Pooling>,
    /// Whether a dense model's vectors have unit length.
    pub normalize: Option<bool>,
    /// How a dense model's vectors are compared.
    pub similarity: Option<Similarity>,
    /// Prompts.
    pub prompts: Option<Prompts>,
    /// Longest query in tokens.
    pub max_query_tokens: Option<usize>,
    /// Longest passage in tokens.
    pub max_passage_tokens: Option<usize>,
    /// Keeps the weights of the encoder's layers in 16, 8 or 4 bits; they then do not train.
    pub bits: Option<Bits>,
    /// The model is not merged or saved whole: bases of adapters are kept in bf16 alone where compute is bf16.
    pub answers: bool,
    /// Makes a late-interaction model of what is none yet, its projection drawn from the global generators.
    pub late: Option<LateConfig>,
    /// Makes a sparse model of what is none yet; a head that the directory lacks is drawn from the global generators.
    pub sparse: Option<SparseConfig>,
}

impl Overrides {
    /// For models that are not dense.
    ///
    /// # Errors
    /// A setting that such a model does not have.
    fn check_not_dense(&self, what: &str) -> Result<()> {
        let given = [
            ("model.pooling", self.pooling.is_some()),
            ("model.normalize", self.normalize.is_some()),
            ("model.similarity", self.similarity.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((key, _)) => {
                let why =
                    format!("this is a setting of dense models, and the model is one {what}: leave it out");
                Err(Error::Config { key: key.into(), why })
            }
        }
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct ModelConfig {
    prompts: Prompts,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
    /// Numbers that sentence-transformers 6.2 keeps of a vector.
    truncate_dim: Option<i64>,
}

/// Query and passage limits that differ: sentence-transformers has one for both.
#[derive(Debug, Default, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub max_query_tokens: Option<usize>,
    pub max_passage_tokens: Option<usize>,
}

/// The file of a model's folder that holds them.
pub(super) const LIMITS: &str = "ragduet_limits.json";

impl Limits {
    fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(LIMITS);
        path.is_file().then(|| json(&path)).transpose()
    }
}

/// Reads a sentence-transformers directory, or a plain encoder directory where `overrides` names the pooling.
pub fn load(dir: &Path, device: Device, compute: Compute, overrides: &Overrides) -> Result<BiEncoder> {
    if overrides.late.is_some() && overrides.sparse.is_some() {
        let why = "a model has late interaction or is sparse, not both".into();
        return Err(Error::Config { key: "model".into(), why });
    }
    let found = late::find(dir)?;
    let late = found.as_ref().map(|f| &f.config).or(overrides.late.as_ref()).cloned();
    let mlm_head = match overrides.sparse {
        Some(_) => MlmHeadOption::SavedOrFresh,
        None => MlmHeadOption::No,
    };
    let how = Reading {
        device,
        bits: overrides.bits,
        frozen: overrides.answers.then_some(compute),
        late: late.as_ref(),
        mlm_head,
    };
    let chains = chains(dir, how)?;
    match late {
        None => assemble(dir, chains, device, compute, overrides),
        Some(config) => assemble_late(dir, chains, config, found.as_ref(), (device, compute), overrides),
    }
}

/// A late-interaction model: one that was saved as such (`found`), or what an encoder or a bi-encoder becomes.
fn assemble_late(
    dir: &Path,
    chains: Vec<Chain>,
    mut config: LateConfig,
    found: Option<&late::Found>,
    (device, compute): (Device, Compute),
    o: &Overrides,
) -> Result<BiEncoder> {
    o.check_not_dense("with late interaction")?;
    let mut towers = Vec::new();
    let mut tokenizer = None;
    for mut chain in chains {
        if found.is_none() {
            // A projection of pooled vectors is none of tokens.
            chain.tower.head = Head::default();
        }
        if found.is_some_and(|f| f.stanford) {
            let (weights, inputs, outputs) = late::stanford_projection(dir)?;
            let b = ParamBuilder::from_weights(weights, device);
            chain.tower.head = Head::projection(Dense::build(b, DenseShape::plain(inputs, outputs))?);
        }
        if !chain.tower.head.0.iter().any(|m| matches!(m, HeadModule::Dense(_))) {
            let dense = Dense::fresh(chain.tower.outputs(1), config.dim, device)?;
            chain.tower.head = Head::projection(dense);
        }
        config.dim = chain.tower.outputs(1);
        tokenizer.get_or_insert(chain.tokenizer);
        towers.push(chain.tower);
    }
    let mut towers = towers.into_iter();
    let (Some(query_tower), Some(tokenizer)) = (towers.next(), tokenizer) else {
        return unsupported(&dir.join("modules.json"), "no modules are listed");
    };
    let (query, passage) = found.map_or((32, 180), |f| f.lengths);
    let positions = query_tower.max_tokens();
    let settings = Settings {
        representation: Representation::LateInteraction(Late::new(config, &tokenizer)?),
        prompts: o.prompts.clone().unwrap_or_default(),
        max_query_tokens: o.max_query_tokens.unwrap_or(query).min(positions),
        max_passage_tokens: o.max_passage_tokens.unwrap_or(passage).min(positions),
    };
    BiEncoder { query_tower, passage_tower: towers.next(), tokenizer, settings, device, compute }.check()
}

fn assemble(
    dir: &Path,
    chains: Vec<Chain>,
    device: Device,
    compute: Compute,
    o: &Overrides,
) -> Result<BiEncoder> {
    let mut chains = chains.into_iter();
    let Some(mut query) = chains.next() else {
        return unsupported(&dir.join("modules.json"), "no modules are listed");
    };
    let mut passage = chains.next();
    let path = dir.join("config_sentence_transformers.json");
    let config: ModelConfig = if path.is_file() { json(&path)? } else { ModelConfig::default() };
    if let Some(dim) = config.truncate_dim.filter(|d| *d < 1) {
        return unsupported(&path, &format!("truncate_dim {dim}: 1 or more is supported"));
    }
    let representation = match o.sparse.or(query.sparse) {
        None => Representation::Dense(dense_settings(dir, &query, &path, &config, o)?),
        Some(sparse) => {
            o.check_not_dense("with a weight for each word")?;
            // What follows token states does not follow the head's logits.
            for chain in std::iter::once(&mut query).chain(&mut passage) {
                if chain.tower.model.mlm_head.is_none() {
                    return unsupported(dir, "one tower weighs words and the other does not");
                }
                chain.tower.head = Head::default();
            }
            Representation::Sparse(sparse)
        }
    };
    let prompts = match (&config.default_prompt_name, config.prompts.is_empty()) {
        (Some(name), false) if config.prompts.query.is_empty() && config.prompts.passage.is_empty() => {
            let text = config.prompts.get(name)?.to_string();
            Prompts { query: text.clone(), passage: text, other: config.prompts.other.clone() }
        }
        _ => config.prompts,
    };
    // The lowest of what the directory, the tokenizer and the positions allow.
    let positions = query.tower.max_tokens();
    let longest = |c: &Chain, own: Option<usize>| {
        let said = own.or(c.max_seq_length).or_else(|| c.tokenizer.model_max_length());
        said.unwrap_or(positions).min(positions)
    };
    let limits = Limits::read(dir)?.unwrap_or_default();
    let settings = Settings {
        representation,
        prompts: o.prompts.clone().unwrap_or(prompts),
        max_query_tokens: o
            .max_query_tokens
            .or(limits.max_query_tokens)
            .unwrap_or_else(|| longest(&query, query.lengths.0)),
        max_passage_tokens: o.max_passage_tokens.or(limits.max_passage_tokens).unwrap_or_else(|| {
            let chain = passage.as_ref().unwrap_or(&query);
            longest(chain, chain.lengths.1)
        }),
    };
    let model = BiEncoder {
        tokenizer: query.tokenizer,
        query_tower: query.tower,
        passage_tower: passage.map(|c| c.tower),
        settings,
        device,
        compute,
    };
    model.check()
}

/// How a directory's modules make one vector of a text. `path`: where `config` was read.
fn dense_settings(
    dir: &Path,
    chain: &Chain,
    path: &Path,
    config: &ModelConfig,
    o: &Overrides,
) -> Result<DenseSettings> {
    let (said, include_prompt) = match &chain.pooling {
        Some((pooling, include)) => (Some(pooling.clone()), *include),
        None => (None, true),
    };
    let Some(pooling) = o.pooling.map(|p| vec![p]).or(said) else {
        return unsupported(
            dir,
            "a plain encoder: it does not say how token states become an embedding. Set the pooling (mean, cls, last_token \
             or another) as its authors trained it, with `model.pooling` or `--pooling`",
        );
    };
    let normalize = o.normalize.unwrap_or(chain.normalize);
    let similarity = match (o.similarity, config.similarity_fn_name.as_deref()) {
        (Some(similarity), _) => similarity,
        (None, None | Some("cosine")) => Similarity::Cosine,
        (None, Some("dot" | "dot_product")) => Similarity::Dot,
        // |a - b|^2 = 2 - 2 cos(a, b).
        (None, Some("euclidean")) if normalize && config.truncate_dim.is_none() => {
            tracing::warn!(
                "{}: similarity_fn_name euclidean: vectors have unit length, so the order is that of the cosine, which is \
                 what scores are",
                path.display()
            );
            Similarity::Cosine
        }
        (None, Some(other)) => {
            let what = format!(
                "similarity_fn_name `{other}`: cosine and dot are supported (euclidean for vectors of unit length); set \
                 model.similarity in training, or the key in this file, to compare by another"
            );
            return unsupported(path, &what);
        }
    };
    Ok(DenseSettings { pooling, include_prompt, normalize, similarity, truncate: config.truncate_dim })
}

pub(super) fn unsupported<T>(path: &Path, what: &str) -> Result<T> {
    Err(Error::UnsupportedModel { path: path.into(), what: what.into() })
}

pub(super) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|source| Error::Json { path: path.into(), source })
}
