//! Adapter folders as peft 0.21 writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! peft only warns of tensors that are missing or misnamed and leaves what they should have filled at its start; here
//! both are errors.

use super::adapter::{Adapter, Base};
use super::config::{Ia3Config, LoraBias, LoraConfig, PeftConfig, PrefixConfig, PromptConfig, TokenRows};
use super::fault::bad;
use super::hub_format;
use super::targets::{Targets, ends, within};
use crate::Result;
use crate::model_dir::{read_json, write_json};
use fs_err as fs;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Bits, Compute, Quantize};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What the base is for, as peft names it; it decides which class of peft loads the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskType {
    /// Decoder-only language models.
    CausalLm,
    /// Encoder-decoders.
    Seq2SeqLm,
    /// Encoders without a head.
    FeatureExtraction,
    /// Sequence classification.
    SequenceClassification,
}

impl TaskType {
    fn name(self) -> &'static str {
        match self {
            TaskType::CausalLm => "CAUSAL_LM",
            TaskType::Seq2SeqLm => "SEQ_2_SEQ_LM",
            TaskType::FeatureExtraction => "FEATURE_EXTRACTION",
            TaskType::SequenceClassification => "SEQ_CLS",
        }
    }
}

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Whether this is an adapter's folder.
pub fn is_adapter_dir(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// The folder or hub id of the base that an adapter's folder names.
///
/// # Errors
/// A folder that is none, or that names no base.
pub fn base_of(dir: &Path) -> Result<String> {
    let path = dir.join(CONFIG);
    let json = read_json(&path)?;
    let base = json.get("base_model_name_or_path").or_else(|| json.get("model_name"));
    let base = base.and_then(Value::as_str).filter(|s| !s.is_empty());
    base.map(String::from)
        .ok_or_else(|| bad(&path, "base_model_name_or_path", "names no base; give the base's folder"))
}

/// How the weights of a folder's model, or of its adapter's base, are kept where they answer and nothing more (see
/// [`Quantize::frozen`]): in f32 under DoRA, which measures them, and beside modules that the adapter has in f32.
///
/// # Errors
/// An adapter's config that cannot be read.
pub fn kept_as(dir: &Path, quantize: Quantize, compute: Compute) -> Result<Option<Bits>> {
    if !is_adapter_dir(dir) {
        return Ok(quantize.frozen(compute));
    }
    let json = read_json(&dir.join(CONFIG))?;
    let dora = json.get("use_dora").and_then(Value::as_bool).unwrap_or(false);
    let saved = json.get("modules_to_save").and_then(Value::as_array).is_some_and(|m| !m.is_empty());
    Ok(if dora || saved { quantize.bits() } else { quantize.frozen(compute) })
}

impl Adapter {
    /// Reads an adapter's folder.
    ///
    /// # Errors
    /// A method or setting that is not known here, and weights that do not fit base and settings.
    pub fn load(base: Base<'_>, dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let json = read_json(&path)?;
        if hub_format::is_ours(&json) {
            return hub_format::load(base, dir, &path, &json);
        }
        let config = parse(&path, &json)?;
        let file = dir.join(WEIGHTS);
        if !file.is_file() {
            return Err(bad(
                &file,
                "weights",
                "there is no such file (adapter_model.bin is not read: save it as safetensors)",
            ));
        }
        let mut weights = Weights::open_file(&file)?;
        // peft saves as many rows again for the decoder of an encoder-decoder, and puts none of them anywhere.
        if let PeftConfig::Prompt(c) = &config
            && base.sites.soft.iter().any(|(_, s)| s.shape.encoder_decoder)
            && json["num_transformer_submodules"] != 1
        {
            weights = weights.with_first_rows("prompt_embeddings", c.tokens);
        }
        // peft saves the base of an adapted table along.
        Self::from_weights(base, &config, weights)
    }

    /// Writes an adapter's folder. `base`: the folder or hub id that a reader finds the base under.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dir: &Path, task: TaskType, base: &str) -> Result<()> {
        fs::create_dir_all(dir)?;
        if let PeftConfig::Bottleneck(c) = &self.config {
            return hub_format::save(self, c, dir, &dir.join(CONFIG), base);
        }
        write_json(&dir.join(CONFIG), &Value::Object(self.describe(task, base)))?;
        Ok(save_tensors(&dir.join(WEIGHTS), &self.tensors(), &[("format", "pt")])?)
    }

    fn describe(&self, task: TaskType, base: &str) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| {
            out.insert(key.into(), value);
        };
        put("peft_version", json!("0.21.2"));
        put("task_type", json!(task.name()));
        put("base_model_name_or_path", json!(base));
        put("revision", Value::Null);
        put("inference_mode", json!(true));
        put("auto_mapping", Value::Null);
        match &self.config {
            PeftConfig::Lora(c) => {
                let of_saved = |n: &str| c.modules_to_save.iter().any(|t| within(n, t));
                let modules: Vec<&str> = self.modules().into_iter().filter(|n| !of_saved(n)).collect();
                put("peft_type", json!("LORA"));
                // A start that is saved along doubles the rank, and the scale must stay alpha / rank.
                let times = self.times();
                let more = if c.rank_stabilized { (times as f64).sqrt() } else { times as f64 };
                put("r", json!(c.rank * times));
                put("lora_alpha", number(c.alpha * more));
                put("lora_dropout", json!(c.dropout));
                put("target_modules", json!(self.names(task, &modules)));
                put("exclude_modules", Value::Null);
                put("bias", serde_json::to_value(c.bias).unwrap_or(Value::Null));
                put("lora_bias", json!(c.lora_bias));
                put(
                    "trainable_token_indices",
                    serde_json::to_value(&c.trainable_token_indices).unwrap_or(Value::Null),
                );
                put("use_rslora", json!(c.rank_stabilized));
                put("use_dora", json!(c.dora));
                put("fan_in_fan_out", json!(self.transposed()));
                put("init_lora_weights", json!(true));
                put(
                    "modules_to_save",
                    if c.modules_to_save.is_empty() { Value::Null } else { json!(c.modules_to_save) },
                );
                let ranks: Map<String, Value> =
                    c.rank_pattern.iter().map(|(k, r)| (k.clone(), json!(r * times))).collect();
                put("rank_pattern", Value::Object(ranks));
                let alphas: Map<String, Value> =
                    c.alpha_pattern.iter().map(|(k, v)| (k.clone(), number(*v * more))).collect();
                put("alpha_pattern", Value::Object(alphas));
            }
            PeftConfig::Ia3(c) => {
                let modules = self.modules();
                let inner = c
                    .resolve(&modules)
                    .and_then(|(_, ff)| {
                        ff.choose("", &modules).map(|l| l.into_iter().map(String::from).collect())
                    })
                    .unwrap_or_else(|_| Vec::<String>::new());
                put("peft_type", json!("IA3"));
                put("target_modules", json!(modules));
                put("feedforward_modules", json!(inner));
                put("exclude_modules", Value::Null);
                put("fan_in_fan_out", json!(self.transposed()));
                put("init_ia3_weights", json!(true));
                put("modules_to_save", Value::Null);
            }
            // Written by `hub_format`.
            PeftConfig::Bottleneck(_) => {}
            PeftConfig::Prompt(c) => {
                put("peft_type", json!("PROMPT_TUNING"));
                put("num_virtual_tokens", json!(c.tokens));
                put("prompt_tuning_init", json!("RANDOM"));
                self.soft_sizes(task, &mut put);
            }
            PeftConfig::Prefix(c) => {
                put("peft_type", json!("PREFIX_TUNING"));
                put("num_virtual_tokens", json!(c.tokens));
                // What is stored is what the network made.
                put("prefix_projection", json!(false));
                self.soft_sizes(task, &mut put);
            }
        }
        out
    }

    fn soft_sizes(&self, task: TaskType, put: &mut impl FnMut(&str, Value)) {
        let Some((_, slot)) = self.sites().soft.first() else { return };
        let s = slot.shape;
        let prefix = matches!(self.config, PeftConfig::Prefix(_));
        put("token_dim", json!(if prefix { s.kv_heads * s.head_dim } else { s.hidden }));
        put("num_layers", json!(s.layers));
        put("num_attention_heads", json!(s.kv_heads));
        // Of an encoder-decoder's two, a prompt is before the encoder alone.
        let two = prefix && task == TaskType::Seq2SeqLm;
        put("num_transformer_submodules", json!(if two { 2 } else { 1 }));
        put("modules_to_save", Value::Null);
    }

    /// Whether the weights it adapts are kept as [in, out].
    fn transposed(&self) -> bool {
        let id = Some(self.id);
        self.sites().linears.iter().any(|(_, l)| l.is_transposed() && l.slot().get(id).is_some())
    }

    /// Names that fit these modules and no other: last parts of paths where they do, else whole paths. Encoders get whole
    /// paths, because they have modules in peft that they have not here (poolers).
    fn names(&self, task: TaskType, modules: &[&str]) -> Vec<String> {
        let whole = || modules.iter().map(|m| m.to_string()).collect();
        if matches!(task, TaskType::FeatureExtraction | TaskType::SequenceClassification) {
            return whole();
        }
        let mut last: Vec<String> =
            modules.iter().map(|m| m.rsplit('.').next().unwrap_or(m).to_string()).collect();
        last.sort_unstable();
        last.dedup();
        let sites = self.sites();
        let all = sites.linears.iter().map(|(n, _)| n).chain(sites.embeddings.iter().map(|(n, _)| n));
        let fits = all.filter(|n| last.iter().any(|t| ends(n, t))).count();
        if fits == modules.len() { last } else { whole() }
    }
}

/// Whole numbers without a point, as peft writes them.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

/// Settings that change what is computed, and that are not computed here.
const UNSUPPORTED: [&str; 12] = [
    "layer_replication",
    "target_parameters",
    "use_qalora",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
    "eva_config",
    "corda_config",
];

fn parse(path: &Path, json: &Value) -> Result<PeftConfig> {
    let get = |key: &str| json.get(key).filter(|v| !v.is_null());
    for key in UNSUPPORTED {
        let off = |v: &Value| match v {
            Value::Bool(on) => !on,
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            _ => false,
        };
        if let Some(value) = get(key).filter(|v| !off(v)) {
            return Err(bad(path, key, &format!("{value} is not supported")));
        }
    }
    let need = |key: &str| get(key).ok_or_else(|| bad(path, key, "is missing"));
    let integer = |key: &str| -> Result<i64> {
        need(key)?.as_i64().filter(|n| *n > 0).ok_or_else(|| bad(path, key, "must be a number of 1 or more"))
    };
    let on = |key: &str| match get(key) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| bad(path, key, "must be true or false")),
    };
    let targets = |key: &str| -> Result<Targets> {
        Targets::parse(need(key)?).ok_or_else(|| bad(path, key, "must be a text or a list of names"))
    };
    let kind = need("peft_type")?.as_str().unwrap_or_default();
    Ok(match kind {
        "LORA" => {
            let bias = match get("bias").map(|b| b.as_str().ok_or(b)) {
                None | Some(Ok("none")) => LoraBias::None,
                Some(Ok("lora_only")) => LoraBias::LoraOnly,
                Some(Ok("all")) => LoraBias::All,
                Some(other) => {
                    let other = other.map_or_else(Value::to_string, String::from);
                    let why = format!("`{other}` is not supported; `none`, `lora_only` and `all` are");
                    return Err(bad(path, "bias", &why));
                }
            };
            let layer = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            let layers: Option<Vec<u32>> = match get("layers_to_transform") {
                None => Some(Vec::new()),
                Some(Value::Array(all)) => all.iter().map(layer).collect(),
                Some(one) => layer(one).map(|n| vec![n]),
            };
            let layers =
                layers.ok_or_else(|| bad(path, "layers_to_transform", "must be numbers of layers"))?;
            let layers_pattern = match get("layers_pattern").map(Targets::parse) {
                _ if layers.is_empty() => Vec::new(),
                None => Vec::new(),
                Some(Some(Targets::Names(names))) => names,
                Some(Some(Targets::Pattern(name))) => {
                    if name.is_empty() {
                        Vec::new()
                    } else {
                        vec![name]
                    }
                }
                Some(None) => return Err(bad(path, "layers_pattern", "must be a text or a list of texts")),
            };
            let trainable_token_indices = match get("trainable_token_indices") {
                None => None,
                Some(value) => Some(TokenRows::deserialize(value).map_err(|_| {
                    let why = "must be a list of token ids, or an object of such lists by lookup table";
                    bad(path, "trainable_token_indices", why)
                })?),
            };
            let exclude = match get("exclude_modules").map(Targets::parse) {
                None => Vec::new(),
                Some(Some(Targets::Names(names))) => names,
                Some(_) => return Err(bad(path, "exclude_modules", "must be a list of names")),
            };
            let patterns = |key: &str| -> Result<BTreeMap<String, f64>> {
                let o = match get(key) {
                    None => return Ok(BTreeMap::new()),
                    Some(Value::Object(o)) => o,
                    Some(_) => return Err(bad(path, key, "must be an object of numbers by name")),
                };
                o.iter()
                    .map(|(k, v)| {
                        Ok((k.clone(), v.as_f64().ok_or_else(|| bad(path, key, "must hold numbers"))?))
                    })
                    .collect()
            };
            let saved = match get("modules_to_save").map(Targets::parse) {
                None => Vec::new(),
                Some(Some(Targets::Names(names))) => names,
                Some(_) => return Err(bad(path, "modules_to_save", "must be a list of names")),
            };
            let whole = |(key, rank): (String, f64)| match rank >= 1.0 && rank.fract() == 0.0 {
                true => Ok((key, rank as i64)),
                false => Err(bad(path, "rank_pattern", "must hold whole numbers of 1 or more")),
            };
            let ranks = patterns("rank_pattern")?.into_iter().map(whole).collect::<Result<_>>()?;
            PeftConfig::Lora(LoraConfig {
                rank: integer("r")?,
                alpha: need("lora_alpha")?
                    .as_f64()
                    .ok_or_else(|| bad(path, "lora_alpha", "must be a number"))?,
                dropout: match get("lora_dropout") {
                    None => 0.0,
                    Some(rate) => {
                        let rate = rate.as_f64().filter(|r| (0.0..1.0).contains(r));
                        rate.ok_or_else(|| bad(path, "lora_dropout", "must be a number from 0 to below 1"))?
                    }
                },
                targets: targets("target_modules")?,
                exclude,
                layers,
                layers_pattern,
                bias,
                lora_bias: on("lora_bias")?,
                trainable_token_indices,
                rank_pattern: ranks,
                alpha_pattern: patterns("alpha_pattern")?,
                rank_stabilized: on("use_rslora")?,
                dora: on("use_dora")?,
                modules_to_save: saved,
                ..LoraConfig::default()
            })
        }
        "IA3" => {
            let (all, inner) = (targets("target_modules")?, targets("feedforward_modules")?);
            PeftConfig::Ia3(Ia3Config { targets: Some(all), feedforward: Some(inner) })
        }
        "PROMPT_TUNING" => PeftConfig::Prompt(PromptConfig {
            tokens: integer("num_virtual_tokens")?,
            ..PromptConfig::default()
        }),
        "PREFIX_TUNING" => {
            PeftConfig::Prefix(PrefixConfig { tokens: integer("num_virtual_tokens")?, projection: None })
        }
        other => {
            let known = "LORA, IA3, PROMPT_TUNING, PREFIX_TUNING";
            return Err(bad(path, "peft_type", &format!("`{other}` is not supported; {known} are")));
        }
    })
}
