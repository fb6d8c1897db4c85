//! A model as a GGUF file.

use super::family::Family;
use super::rope::{self, Llama3};
use super::tensors::Change;
use crate::config_source::ConfigSource;
use crate::{LanguageModel, Result};
use ragduet_gguf::{GgufWriter, TensorPlan, TensorType, Value};
use ragduet_torch::{Device, Kind, Tensor};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::path::Path;

/// What a model's config says, with the defaults of its family.
struct Settings<'a> {
    source: ConfigSource<'a>,
    family: Family,
}

impl Settings<'_> {
    fn count(&self, key: &str) -> Result<u32> {
        let n = self.source.json.get(key).and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok());
        n.map_or_else(|| self.source.unsupported(key, "given as a whole number for a GGUF file"), Ok)
    }

    fn count_or(&self, key: &str, otherwise: u32) -> Result<u32> {
        match self.source.json.get(key) {
            None | Some(Json::Null) => Ok(otherwise),
            Some(_) => self.count(key),
        }
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.source.number(key)
    }

    fn flag(&self, key: &str) -> bool {
        self.source.json.get(key).and_then(Json::as_bool) == Some(true)
    }

    /// The error of what llama.cpp does not compute.
    fn refuse<T>(&self, key: &str, supported: &str) -> Result<T> {
        self.source.unsupported(key, &format!("{supported}: llama.cpp computes nothing else for this family"))
    }
}

/// Writes a model of the Llama, Qwen2, Qwen3 or Gemma 3 family: matrices in the type asked for, vectors in F32. `vocabulary`
/// are the metadata of its tokenizer. Returns how many matrices stay in F16 because their rows make no whole blocks.
///
/// # Errors
/// A model of another family, or with a setting that llama.cpp does not compute; a type that is not written; numbers that
/// the type does not hold.
pub fn save_gguf(
    model: &LanguageModel,
    path: &Path,
    kind: TensorType,
    name: &str,
    vocabulary: Vec<(String, Value)>,
) -> Result<usize> {
    const WRITTEN: [TensorType; 4] = [TensorType::F32, TensorType::F16, TensorType::Bf16, TensorType::Q8_0];
    if !WRITTEN.contains(&kind) {
        let reason = format!("{} are written", WRITTEN.map(|k| k.to_string()).join(", "));
        return Err(ragduet_gguf::Error::Unwritable { tensor: "all".into(), kind, reason }.into());
    }
    let source = ConfigSource { path: Path::new("config.json"), json: &model.config };
    let model_type = model.config.get("model_type").and_then(Json::as_str).unwrap_or("(none)");
    let Some(family) = Family::of_model_type(model_type) else {
        return source
            .unsupported("model_type", "written as GGUF for llama, mistral, qwen2, qwen3 and gemma3_text");
    };
    let settings = Settings { source, family };
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", family.name());
    writer.set("general.type", "model");
    writer.set("general.name", name);
    writer.set("general.file_type", kind.file_type());
    // The numbering of quantizations, which has been 2 since 2023.
    writer.set("general.quantization_version", 2u32);
    let (heads, head_dim) = shape(&settings, &mut writer)?;
    let factors = scaling(&settings, head_dim, &mut writer)?;
    for (key, value) in vocabulary {
        writer.set(key, value);
    }
    let params: HashMap<String, Tensor> = model.params.whole()?.into_iter().collect();
    let mut sources: HashMap<String, (String, Change)> = HashMap::new();
    let mut halves = 0;
    // A head that is the embedding is no parameter.
    let mut names: Vec<&String> = params.keys().collect();
    names.sort_unstable_by_key(|name| order(name));
    for name in names {
        let Some(ours) = family.to_gguf(name) else {
            return settings.source.unsupported("model_type", &format!("written as GGUF without `{name}`"));
        };
        let shape: Vec<usize> = params[name].size().iter().map(|&n| n as usize).collect();
        // Vectors are few, and all programs want them whole. Rows that make no whole blocks stay halves.
        let whole = |n: &usize| n.is_multiple_of(kind.block().0);
        let kind = match shape.as_slice() {
            [_, columns] if whole(columns) => kind,
            [_, _] => {
                halves += 1;
                TensorType::F16
            }
            _ => TensorType::F32,
        };
        sources.insert(ours.clone(), (name.clone(), Change::of(family, name, heads)));
        writer.plan(TensorPlan { name: ours, shape, kind });
    }
    if let Some(factors) = &factors {
        let name = rope::FACTORS.to_owned();
        writer.plan(TensorPlan { name, shape: vec![factors.len()], kind: TensorType::F32 });
    }
    writer.write(path, |plan| -> Result<Vec<f32>> {
        let Some((name, change)) = sources.get(&plan.name) else {
            return Ok(factors.clone().unwrap_or_default());
        };
        let t = params[name].detach().to_device(Device::Cpu).to_kind(Kind::Float);
        let t = change.apply(&t)?.contiguous().view(-1);
        Ok(Vec::try_from(&t).map_err(ragduet_torch::Error::from)?)
    })?;
    Ok(halves)
}

/// The embedding, the layers in their order, the rest.
fn order(name: &str) -> (u8, u32, String) {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    match layer {
        Some((n, rest)) => (1, n.parse().unwrap_or(u32::MAX), rest.to_owned()),
        None if name.contains("embed_tokens") => (0, 0, name.to_owned()),
        None => (2, 0, name.to_owned()),
    }
}

/// Sizes. Returns the heads of queries and keys, and the size of a head.
fn shape(settings: &Settings<'_>, writer: &mut GgufWriter) -> Result<((i64, i64), u32)> {
    let family = settings.family;
    let gemma = family == Family::Gemma3;
    let key = |name: &str| format!("{}.{name}", family.name());
    let (hidden, heads) = (settings.count("hidden_size")?, settings.count("num_attention_heads")?);
    let kv = settings.count_or("num_key_value_heads", if gemma { 4 } else { heads })?;
    let head_dim = match family {
        Family::Gemma3 => settings.count_or("head_dim", 256)?,
        Family::Qwen3 => settings.count_or("head_dim", 128)?,
        _ => settings.count_or("head_dim", hidden / heads.max(1))?,
    };
    let layers = settings.count("num_hidden_layers")?;
    writer.set(key("block_count"), layers);
    writer
        .set(key("context_length"), settings.count_or("max_position_embeddings", default_context(settings))?);
    writer.set(key("embedding_length"), hidden);
    writer.set(key("feed_forward_length"), settings.count("intermediate_size")?);
    writer.set(key("attention.head_count"), heads);
    writer.set(key("attention.head_count_kv"), kv);
    writer.set(key("attention.key_length"), head_dim);
    writer.set(key("attention.value_length"), head_dim);
    writer
        .set(key("attention.layer_norm_rms_epsilon"), settings.number("rms_norm_eps").unwrap_or(1e-6) as f32);
    writer.set(key("vocab_size"), settings.count("vocab_size")?);
    if !gemma {
        writer.set(key("rope.dimension_count"), head_dim);
    }
    let activation = if gemma { "hidden_activation" } else { "hidden_act" };
    let usual = if gemma { "gelu_pytorch_tanh" } else { "silu" };
    match settings.source.json.get(activation) {
        None | Some(Json::Null) => {}
        Some(named) if named == usual || (usual == "silu" && named == "swish") => {}
        Some(_) => return settings.refuse(activation, usual),
    }
    windows(settings, layers, hidden, heads, head_dim, writer)?;
    Ok(((heads.into(), kv.into()), head_dim))
}

/// `max_position_embeddings` where a config leaves it out.
fn default_context(settings: &Settings<'_>) -> u32 {
    match settings.family {
        Family::Llama if settings.source.json.get("model_type").is_some_and(|t| t == "mistral") => 131_072,
        Family::Llama => 2048,
        Family::Qwen2 | Family::Qwen3 => 32_768,
        Family::Gemma3 => 131_072,
    }
}

/// Sliding windows: Gemma 3 has them in five of six layers, the others must do without.
fn windows(
    settings: &Settings<'_>,
    layers: u32,
    hidden: u32,
    heads: u32,
    head_dim: u32,
    writer: &mut GgufWriter,
) -> Result<()> {
    if settings.family != Family::Gemma3 {
        let mistral = settings.source.json.get("model_type").is_some_and(|t| t == "mistral");
        let on = mistral && !settings.source.json.get("sliding_window").is_some_and(Json::is_null);
        let context = settings.count_or("max_position_embeddings", default_context(settings))?;
        let narrow = settings.count_or("sliding_window", 4096)? < context;
        if (on && narrow) || settings.flag("use_sliding_window") {
            return settings.refuse("sliding_window", "null (or use_sliding_window = false)");
        }
        return Ok(());
    }
    if settings.number("query_pre_attn_scalar").unwrap_or(256.0)
        != f64::from(if layers == 62 { hidden / heads.max(1) } else { head_dim })
    {
        return settings
            .refuse("query_pre_attn_scalar", "head_dim (for 62 layers hidden_size / num_attention_heads)");
    }
    let every = settings.count_or("sliding_window_pattern", 6)?.max(1);
    let kinds: Vec<bool> = match settings.source.json.get("layer_types").and_then(Json::as_array) {
        Some(types) => types.iter().map(|t| t == "sliding_attention").collect(),
        None => (1..=layers).map(|i| i % every != 0).collect(),
    };
    if !kinds.contains(&true) {
        return Ok(());
    }
    // llama.cpp has had this fixed; it reads no other.
    if kinds.iter().enumerate().any(|(i, &local)| local != ((i + 1) % 6 != 0)) {
        return settings.refuse("layer_types", "every sixth layer `full_attention`");
    }
    writer.set("gemma3.attention.sliding_window", settings.count_or("sliding_window", 4096)?);
    Ok(())
}

/// Rotary positions. Returns the factors of Llama 3's scaling, which are a tensor.
fn scaling(settings: &Settings<'_>, head_dim: u32, writer: &mut GgufWriter) -> Result<Option<Vec<f32>>> {
    let json = settings.source.json;
    let object = |key: &str| json.get(key).filter(|v| v.as_object().is_some_and(|m| !m.is_empty()));
    let gemma = settings.family == Family::Gemma3;
    let given = match object("rope_scaling").or_else(|| object("rope_parameters")) {
        Some(all) if gemma => all.get("full_attention").unwrap_or(all),
        Some(all) => all,
        None => &Json::Null,
    };
    let key = |name: &str| format!("{}.{name}", settings.family.name());
    let number = |name: &str| given.get(name).and_then(Json::as_f64);
    let theta = number("rope_theta")
        .or_else(|| object("rope_parameters")?.get("rope_theta")?.as_f64())
        .or(settings.number("rope_theta"))
        .unwrap_or(if gemma { 1_000_000.0 } else { 10_000.0 });
    writer.set(key("rope.freq_base"), theta as f32);
    if gemma {
        let local = object("rope_parameters").and_then(|all| all.get("sliding_attention"));
        let local = local.and_then(|l| l.get("rope_theta")).and_then(Json::as_f64);
        let local = local.or(settings.number("rope_local_base_freq")).unwrap_or(10_000.0);
        writer.set(key("rope.freq_base_swa"), local as f32);
    }
    let needed = |name: &str| match number(name) {
        Some(x) => Ok(x),
        None => settings.source.unsupported("rope_parameters", &format!("this scaling needs `{name}`")),
    };
    let context = settings.count_or("max_position_embeddings", default_context(settings))?;
    let original =
        settings.number("original_max_position_embeddings").or(number("original_max_position_embeddings"));
    let kind = ["rope_type", "type"].iter().find_map(|k| given.get(*k)).and_then(Json::as_str);
    match kind.unwrap_or("default") {
        "default" => Ok(None),
        "linear" => {
            writer.set(key("rope.scaling.type"), "linear");
            writer.set(key("rope.scaling.factor"), needed("factor")? as f32);
            Ok(None)
        }
        "yarn" => {
            let original = original.unwrap_or(context.into());
            let factor = number("factor").unwrap_or(f64::from(context) / original);
            let usual = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            let magnitude = number("attention_factor").unwrap_or(usual);
            let nonzero = |name: &str| number(name).is_some_and(|x| x != 0.0);
            if (magnitude - usual).abs() > 1e-6
                || nonzero("mscale")
                || nonzero("mscale_all_dim")
                || given.get("truncate") == Some(&Json::Bool(false))
            {
                return settings.refuse("rope_parameters", "yarn with its usual attention_factor, truncated");
            }
            writer.set(key("rope.scaling.type"), "yarn");
            writer.set(key("rope.scaling.factor"), factor as f32);
            writer.set(key("rope.scaling.original_context_length"), original as u32);
            for (ours, theirs) in rope::YARN {
                if let Some(x) = number(theirs).filter(|&x| x != 0.0) {
                    writer.set(key(ours), x as f32);
                }
            }
            Ok(None)
        }
        "llama3" => {
            let found = Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: original.unwrap_or(context.into()),
            };
            Ok(Some(found.factors(theta, head_dim.into()).iter().map(|&x| x as f32).collect()))
        }
        _ => settings.refuse("rope_parameters", "rope_type default, linear, yarn or llama3"),
    }
}
