//! The modules of a directory: one chain for each tower.

use super::read::{json, unsupported};
use super::{ModuleKind, module_kind};
use crate::representation::{LateConfig, Pooling, SparseActivation, SparseConfig, SparsePooling};
use crate::tower::{Dense, DenseActivation, Tower};
use crate::{Error, Result};
use ragduet_nn::peft::{self, Adapter};
use ragduet_nn::{EncoderOptions, MlmHeadOption, hub, load_encoder_with};
use ragduet_text::Tokenizer;
use ragduet_torch::weights::Weights;
use ragduet_torch::weights::is_inside;
use ragduet_torch::{Bits, Device, ParamBuilder};
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
}

/// A chain of modules: what one tower is made of.
pub(super) struct Chain {
    pub tower: Tower,
    pub pooling: Option<(Pooling, bool)>,
    pub sparse: Option<SparseConfig>,
    pub normalize: bool,
    pub max_seq_length: Option<usize>,
    pub tokenizer: Tokenizer,
}

/// How a transformer is read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub device: Device,
    pub bits: Option<Bits>,
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
