//! Directory to bi-encoder.

use super::{ModuleKind, late, module_kind};
use crate::biencoder::{BiEncoder, Settings};
use crate::representation::{
    DenseSettings, Late, LateConfig, Pooling, Representation, Similarity, SparseActivation, SparseConfig,
    SparsePooling,
};
use crate::tower::{Dense, DenseActivation, Tower};
use crate::{Error, Result};
use fs_err as fs;
use ragduet_nn::peft::{self, Adapter};
use ragduet_nn::{EncoderOptions, MlmHeadOption, hub, load_encoder_with};
use ragduet_text::{Prompts, Tokenizer};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Bits, Compute, Device, ParamBuilder, Quantize};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// Keeps the weights of the encoder's layers in 8 or 4 bits.
    pub quantize: Quantize,
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

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize, Default)]
struct RouterConfig {
    types: BTreeMap<String, String>,
    structure: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct TransformerConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
    transformer_task: Option<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct ModelConfig {
    prompts: Prompts,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<String>,
}

/// A chain of modules: what one tower is made of.
struct Chain {
    tower: Tower,
    pooling: Option<(Pooling, bool)>,
    sparse: Option<SparseConfig>,
    normalize: bool,
    max_seq_length: Option<usize>,
    tokenizer: Tokenizer,
}

/// How a transformer is read.
#[derive(Clone, Copy)]
struct Reading<'a> {
    device: Device,
    bits: Option<Bits>,
    /// Markers of late interaction, which have to be tokens.
    late: Option<&'a LateConfig>,
    /// Whether a sparse model is to be made of what is none.
    mlm_head: MlmHeadOption,
}

impl Reading<'_> {
    /// With the head that the directory says it has.
    fn with_head(self) -> Self {
        match self.mlm_head {
            MlmHeadOption::No => Self { mlm_head: MlmHeadOption::Saved, ..self },
            _ => self,
        }
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
    let how = Reading { device, bits: overrides.quantize.bits(), late: late.as_ref(), mlm_head };
    let modules_path = dir.join("modules.json");
    let chains = if modules_path.is_file() {
        let modules: Vec<Module> = json(&modules_path)?;
        let first = modules.first().map(|m| kind(&modules_path, &m.kind)).transpose()?;
        if first == Some(ModuleKind::Router) {
            routes(dir, &modules[0], &modules_path, &modules[1..], how)?
        } else {
            let list: Vec<(String, PathBuf)> =
                modules.into_iter().map(|m| (m.kind, dir.join(m.path))).collect();
            vec![chain(&modules_path, &list, how)?]
        }
    } else {
        vec![chain(dir, &[("sentence_transformers.models.Transformer".into(), dir.into())], how)?]
    };
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
            chain.tower.dense = None;
        }
        if found.is_some_and(|f| f.stanford) {
            let (weights, inputs, outputs) = late::stanford_projection(dir)?;
            let b = ParamBuilder::from_weights(weights, device);
            chain.tower.dense = Some(Dense::build(b, (inputs, outputs), false, DenseActivation::Identity)?);
        }
        let dense = match chain.tower.dense.take() {
            Some(dense) => dense,
            None => Dense::fresh(chain.tower.model.encoder.hidden_size(), config.dim, device)?,
        };
        config.dim = dense.outputs();
        chain.tower.dense = Some(dense);
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
    let representation = match o.sparse.or(query.sparse) {
        None => Representation::Dense(dense_settings(dir, &query, &path, &config, o)?),
        Some(sparse) => {
            o.check_not_dense("with a weight for each word")?;
            // What follows token states does not follow the head's logits.
            for chain in std::iter::once(&mut query).chain(&mut passage) {
                if chain.tower.model.mlm_head.is_none() {
                    return unsupported(dir, "one tower weighs words and the other does not");
                }
                chain.tower.dense = None;
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
    let longest = |c: &Chain| {
        let said = c.max_seq_length.or_else(|| c.tokenizer.model_max_length());
        said.unwrap_or(positions).min(positions)
    };
    let settings = Settings {
        representation,
        prompts: o.prompts.clone().unwrap_or(prompts),
        max_query_tokens: o.max_query_tokens.unwrap_or_else(|| longest(&query)),
        max_passage_tokens: o
            .max_passage_tokens
            .unwrap_or_else(|| longest(passage.as_ref().unwrap_or(&query))),
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
    let (said, include_prompt) = match chain.pooling {
        Some((pooling, include)) => (Some(pooling), include),
        None => (None, true),
    };
    let Some(pooling) = o.pooling.or(said) else {
        return unsupported(
            dir,
            "a plain encoder: it does not say how token states become an embedding. Set the pooling (mean, cls or \
             last_token) as its authors trained it, with `model.pooling` or `--pooling`",
        );
    };
    let similarity = match config.similarity_fn_name.as_deref() {
        None | Some("cosine") => Similarity::Cosine,
        Some("dot" | "dot_product") => Similarity::Dot,
        Some(other) => {
            return unsupported(path, &format!("similarity `{other}`: cosine and dot are supported"));
        }
    };
    Ok(DenseSettings {
        pooling,
        include_prompt,
        normalize: o.normalize.unwrap_or(chain.normalize),
        similarity: o.similarity.unwrap_or(similarity),
    })
}

fn routes(
    dir: &Path,
    router: &Module,
    modules_path: &Path,
    after: &[Module],
    how: Reading<'_>,
) -> Result<Vec<Chain>> {
    let base = dir.join(&router.path);
    let path = base.join("router_config.json");
    let config: RouterConfig = json(&path)?;
    let mut out = Vec::new();
    for route in ["query", "document"] {
        let Some(ids) = config.structure.get(route) else {
            return unsupported(
                &path,
                &format!("no route `{route}`; two routes, query and document, are supported"),
            );
        };
        let mut list = Vec::new();
        for id in ids {
            let Some(t) = config.types.get(id) else {
                return unsupported(&path, &format!("module `{id}` has no type"));
            };
            list.push((t.clone(), base.join(id)));
        }
        list.extend(after.iter().map(|m| (m.kind.clone(), dir.join(&m.path))));
        out.push(chain(modules_path, &list, how)?);
    }
    Ok(out)
}

fn chain(listed_in: &Path, modules: &[(String, PathBuf)], how: Reading<'_>) -> Result<Chain> {
    let mut out: Option<Chain> = None;
    for (type_name, path) in modules {
        let kind = kind(listed_in, type_name)?;
        match (kind, &mut out) {
            (ModuleKind::Transformer, none @ None) => *none = Some(transformer(path, how)?),
            (ModuleKind::MlmTransformer, none @ None) => {
                *none = Some(transformer(path, how.with_head())?);
            }
            (ModuleKind::SpladePooling, Some(c))
                if c.tower.model.mlm_head.is_some() && c.sparse.is_none() =>
            {
                c.sparse = Some(splade_pooling(path)?);
            }
            (ModuleKind::Pooling, Some(c)) if c.pooling.is_none() => c.pooling = Some(pooling(path)?),
            (ModuleKind::Dense, Some(c))
                if (c.pooling.is_some() || how.late.is_some()) && c.tower.dense.is_none() && !c.normalize =>
            {
                c.tower.dense = Some(dense(path, how.device)?);
            }
            (ModuleKind::Normalize, Some(c)) if c.pooling.is_some() || how.late.is_some() => {
                c.normalize = true;
            }
            // What it keeps is known by now.
            (ModuleKind::TokenMask, Some(_)) if how.late.is_some() => {}
            _ => {
                return unsupported(
                    listed_in,
                    &format!(
                        "module `{type_name}` in this place; supported: Transformer, Pooling, [Dense], [Normalize], or \
                         MLMTransformer, SpladePooling"
                    ),
                );
            }
        }
    }
    out.ok_or_else(|| Error::UnsupportedModel {
        path: listed_in.into(),
        what: "no Transformer module".into(),
    })
}

fn transformer(path: &Path, how: Reading<'_>) -> Result<Chain> {
    let device = how.device;
    let config_path = path.join("sentence_bert_config.json");
    let config: TransformerConfig =
        if config_path.is_file() { json(&config_path)? } else { TransformerConfig::default() };
    let mut tokenizer = Tokenizer::from_dir(path)?;
    if config.do_lower_case {
        tokenizer = tokenizer.with_lower_case(true);
    }
    let how = if config.transformer_task.as_deref() == Some("fill-mask") { how.with_head() } else { how };
    let mut options = EncoderOptions { bits: how.bits, tokens: None, mlm_head: how.mlm_head };
    if let Some(late) = how.late {
        tokenizer = tokenizer.with_tokens(late.markers())?;
        options.tokens = Some(tokenizer.vocab_size());
    }
    let tower = if peft::is_adapter_dir(path) {
        let base = peft::base_of(path)?;
        let model = load_encoder_with(&hub::resolve(&base)?, device, &options)?;
        model.params.set_trainable(|_| false);
        let adapter = Some(Adapter::load(model.base(device)?, path)?);
        Tower { model, dense: None, adapter, base }
    } else {
        let base = std::path::absolute(path)?.display().to_string();
        Tower { model: load_encoder_with(path, device, &options)?, dense: None, adapter: None, base }
    };
    Ok(Chain {
        tower,
        pooling: None,
        sparse: None,
        normalize: false,
        max_seq_length: config.max_seq_length,
        tokenizer,
    })
}

fn splade_pooling(path: &Path) -> Result<SparseConfig> {
    #[derive(Deserialize)]
    struct Config {
        pooling_strategy: SparsePooling,
        activation_function: SparseActivation,
    }
    let c: Config = json(&path.join("config.json"))?;
    Ok(SparseConfig { pooling: c.pooling_strategy, activation: c.activation_function })
}

fn pooling(path: &Path) -> Result<(Pooling, bool)> {
    let path = path.join("config.json");
    let config: serde_json::Map<String, Value> = json(&path)?;
    let on = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let include = config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
    let mut found: Vec<String> = Vec::new();
    match config.get("pooling_mode") {
        Some(Value::String(mode)) => found.push(mode.clone()),
        Some(Value::Array(modes)) => {
            found.extend(modes.iter().map(|m| m.as_str().unwrap_or("?").to_string()))
        }
        _ => found.extend(
            config
                .keys()
                .filter(|k| k.starts_with("pooling_mode_") && on(k))
                .map(|k| k["pooling_mode_".len()..].into()),
        ),
    }
    let mode = match found.as_slice() {
        [one] => match one.as_str() {
            "cls_token" | "cls" => Pooling::Cls,
            "mean_tokens" | "mean" => Pooling::Mean,
            "lasttoken" => Pooling::LastToken,
            _ => return unsupported(&path, &format!("pooling `{one}`; supported: cls, mean, lasttoken")),
        },
        [] => return unsupported(&path, "no pooling mode is switched on"),
        many => {
            return unsupported(
                &path,
                &format!("several poolings at once ({}); one is supported", many.join(", ")),
            );
        }
    };
    Ok((mode, include))
}

fn dense(path: &Path, device: Device) -> Result<Dense> {
    #[derive(Deserialize)]
    struct Config {
        in_features: i64,
        out_features: i64,
        #[serde(default = "yes")]
        bias: bool,
        #[serde(default = "tanh")]
        activation_function: String,
        #[serde(default)]
        use_residual: bool,
    }
    fn yes() -> bool {
        true
    }
    fn tanh() -> String {
        "torch.nn.modules.activation.Tanh".into()
    }
    let config_path = path.join("config.json");
    let c: Config = json(&config_path)?;
    let activation = match c.activation_function.rsplit('.').next() {
        Some("Identity") => DenseActivation::Identity,
        Some("Tanh") => DenseActivation::Tanh,
        _ => {
            let what = format!("activation `{}`; supported: Identity, Tanh", c.activation_function);
            return unsupported(&config_path, &what);
        }
    };
    if c.use_residual {
        return unsupported(&config_path, "use_residual is not supported");
    }
    let b = ParamBuilder::from_weights(Weights::open_dir(path)?, device);
    Dense::build(b, (c.in_features, c.out_features), c.bias, activation)
}

fn kind(listed_in: &Path, type_name: &str) -> Result<ModuleKind> {
    module_kind(type_name).ok_or_else(|| Error::UnsupportedModel {
        path: listed_in.into(),
        what: format!(
            "module `{type_name}` is not supported (Transformer, Pooling, Dense, Normalize, Router, MLMTransformer and SpladePooling \
             are)"
        ),
    })
}

fn unsupported<T>(path: &Path, what: &str) -> Result<T> {
    Err(Error::UnsupportedModel { path: path.into(), what: what.into() })
}

pub(super) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|source| Error::Json { path: path.into(), source })
}
