//! The modules of a directory: one chain for each tower.

use super::read::{json, unsupported};
use super::{ModuleKind, module_kind};
use crate::head::{Dense, DenseActivation, DenseShape, Head, HeadModule, VectorNorm};
use crate::representation::{LateConfig, Pooling, SparseActivation, SparseConfig, SparsePooling};
use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_nn::peft::{self, Adapter};
use ragduet_nn::{EncoderOptions, MlmHeadOption, hub, load_encoder_with};
use ragduet_text::Tokenizer;
use ragduet_torch::weights::Weights;
use ragduet_torch::weights::is_inside;
use ragduet_torch::{Bits, Compute, Device, ParamBuilder, Quantize};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    /// Limits of the two sides, in sentence-transformers 6.
    query_length: Option<usize>,
    document_length: Option<usize>,
    /// What is read how: a chat template renders texts where it has `message`.
    modality_config: serde_json::Map<String, Value>,
    processing_kwargs: serde_json::Map<String, Value>,
}

/// A chain of modules: what one tower is made of.
pub(super) struct Chain {
    pub tower: Tower,
    pub pooling: Option<(Vec<Pooling>, bool)>,
    pub sparse: Option<SparseConfig>,
    pub normalize: bool,
    pub max_seq_length: Option<usize>,
    /// Limits of queries and passages, where they have their own.
    pub lengths: (Option<usize>, Option<usize>),
    pub tokenizer: Tokenizer,
}

/// How a transformer is read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub device: Device,
    pub bits: Option<Bits>,
    /// The dtype of products of a model that does not train.
    pub frozen: Option<Compute>,
    /// Markers of late interaction, which have to be tokens.
    pub late: Option<&'a LateConfig>,
    /// Whether a sparse model is to be made of what is none.
    pub mlm_head: MlmHeadOption,
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

/// The chains of a directory's modules, the query tower's first; of a plain encoder directory a transformer alone.
pub(super) fn chains(dir: &Path, how: Reading<'_>) -> Result<Vec<Chain>> {
    let modules_path = dir.join("modules.json");
    Ok(if modules_path.is_file() {
        let modules: Vec<Module> = json(&modules_path)?;
        if let Some(module) = modules.iter().find(|m| !is_inside(&m.path)) {
            return unsupported(&modules_path, &format!("path `{}` leads out of the folder", module.path));
        }
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
            if !is_inside(id) {
                return unsupported(&path, &format!("path `{id}` leads out of the folder"));
            }
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
            (ModuleKind::Dense, Some(c)) if c.pooling.is_some() || how.late.is_some() => {
                let module = dense(path, how)?;
                c.follow(HeadModule::Dense(module));
            }
            (ModuleKind::LayerNorm, Some(c)) if c.pooling.is_some() => {
                let module = layer_norm(path, how.device)?;
                c.follow(HeadModule::LayerNorm(module));
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
                        "module `{type_name}` in this place; supported: Transformer, Pooling, then any of Dense, LayerNorm \
                         and Normalize, or MLMTransformer, SpladePooling"
                    ),
                );
            }
        }
    }
    let Some(out) = out else { return unsupported(listed_in, "no Transformer module") };
    let poolings = out.pooling.as_ref().map_or(1, |(p, _)| p.len());
    let states = out.tower.model.encoder.hidden_size() * poolings as i64;
    if let Some((takes, gets)) = out.tower.head.misfit(states) {
        let what =
            format!("a module that takes vectors of {takes} numbers stands behind one that gives {gets}");
        return unsupported(listed_in, &what);
    }
    Ok(out)
}

impl Chain {
    /// Puts a module behind the others.
    fn follow(&mut self, module: HeadModule) {
        if std::mem::take(&mut self.normalize) {
            self.tower.head.0.push(HeadModule::Normalize);
        }
        self.tower.head.0.push(module);
    }
}

fn transformer(path: &Path, how: Reading<'_>) -> Result<Chain> {
    let device = how.device;
    let config_path = path.join("sentence_bert_config.json");
    let config: TransformerConfig =
        if config_path.is_file() { json(&config_path)? } else { TransformerConfig::default() };
    if config.modality_config.contains_key("message") {
        return unsupported(
            &config_path,
            "modality_config.message: texts rendered by a chat template are not supported; with `text` alone they are \
             read as they are",
        );
    }
    let set = config.processing_kwargs.values().any(|v| v.as_object().is_none_or(|o| !o.is_empty()));
    if set {
        let what = format!("processing_kwargs {} is not supported", Value::from(config.processing_kwargs));
        return unsupported(&config_path, &what);
    }
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
        if let (None, Some(compute)) = (how.bits, how.frozen) {
            options.bits = peft::kept_as(path, Quantize::None, compute)?;
        }
        let model = load_encoder_with(&hub::resolve(&base)?, device, &options)?;
        model.params.set_trainable(|_| false);
        let adapter = Some(Adapter::load(model.base(device)?, path)?);
        Tower { model, head: Head::default(), adapter, base }
    } else {
        let base = std::path::absolute(path)?.display().to_string();
        Tower {
            model: load_encoder_with(path, device, &options)?,
            head: Head::default(),
            adapter: None,
            base,
        }
    };
    Ok(Chain {
        tower,
        pooling: None,
        sparse: None,
        normalize: false,
        max_seq_length: config.max_seq_length,
        lengths: (config.query_length, config.document_length),
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

fn pooling(path: &Path) -> Result<(Vec<Pooling>, bool)> {
    let path = path.join("config.json");
    let config: serde_json::Map<String, Value> = json(&path)?;
    let named = |name: &str| match Pooling::ALL.iter().find(|(_, names)| names.contains(&name)) {
        Some((pooling, _)) => Ok(*pooling),
        None => {
            let known: Vec<&str> = Pooling::ALL.iter().map(|(p, _)| p.name()).collect();
            unsupported(&path, &format!("pooling_mode `{name}`; supported: {}", known.join(", ")))
        }
    };
    let modes: Vec<Pooling> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![named(mode)?],
        Some(Value::Array(modes)) => {
            modes.iter().map(|m| named(m.as_str().unwrap_or("?"))).collect::<Result<_>>()?
        }
        Some(other) => vec![named(&other.to_string())?],
        None => {
            let on = config.iter().filter(|(_, v)| v.as_bool() == Some(true));
            let on = on.filter_map(|(k, _)| k.strip_prefix("pooling_mode_"));
            let on = on.map(named).collect::<Result<Vec<_>>>()?;
            // The order of the keys says nothing.
            Pooling::ALL.iter().map(|(p, _)| *p).filter(|p| on.contains(p)).collect()
        }
    };
    if modes.is_empty() {
        return unsupported(&path, "no pooling mode is switched on");
    }
    let include = config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
    Ok((modes, include))
}

fn dense(path: &Path, how: Reading<'_>) -> Result<Dense> {
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
        #[serde(default)]
        module_input_name: Option<String>,
        #[serde(default)]
        module_output_name: Option<String>,
    }
    fn yes() -> bool {
        true
    }
    fn tanh() -> String {
        "torch.nn.modules.activation.Tanh".into()
    }
    let config_path = path.join("config.json");
    let c: Config = json(&config_path)?;
    let Some(activation) = DenseActivation::of(&c.activation_function) else {
        let known = DenseActivation::names();
        let what = format!("activation_function `{}`; supported: {known} of torch.nn", c.activation_function);
        return unsupported(&config_path, &what);
    };
    let names = [("module_input_name", c.module_input_name), ("module_output_name", c.module_output_name)];
    let of_vectors = |name: &str| name == "sentence_embedding" || how.late.is_some();
    for (key, name) in names {
        if let Some(name) = name.filter(|n| !of_vectors(n)) {
            return unsupported(&config_path, &format!("{key} `{name}`: sentence_embedding is supported"));
        }
    }
    let (inputs, outputs) = (c.in_features, c.out_features);
    let shape = DenseShape { inputs, outputs, bias: c.bias, activation, residual: c.use_residual };
    Dense::build(ParamBuilder::from_weights(Weights::open_dir(path)?, how.device), shape)
}

fn layer_norm(path: &Path, device: Device) -> Result<VectorNorm> {
    #[derive(Deserialize)]
    struct Config {
        dimension: i64,
    }
    let c: Config = json(&path.join("config.json"))?;
    VectorNorm::build(ParamBuilder::from_weights(Weights::open_dir(path)?, device), c.dimension)
}

fn kind(listed_in: &Path, type_name: &str) -> Result<ModuleKind> {
    module_kind(type_name).ok_or_else(|| Error::UnsupportedModel {
        path: listed_in.into(),
        what: format!(
            "module `{type_name}` is not supported (Transformer, Pooling, Dense, LayerNorm, Normalize, Router, MLMTransformer \
             and SpladePooling are)"
        ),
    })
}
