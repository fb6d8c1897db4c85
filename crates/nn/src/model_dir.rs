//! Encoders as Hugging Face directories: `config.json` and safetensors, in and out.

use crate::arch::{self, Family};
use crate::config_source::ConfigSource;
use crate::mlm_head::{self, MlmHead, MlmHeadOption};
use crate::peft::{Base, Sites, is_inner};
use crate::{Encoder, Error, Result, gguf};
use fs_err as fs;
use ragduet_gguf::is_gguf;
use ragduet_torch::weights::{Weights, save_model, write_atomic};
use ragduet_torch::{Bits, Device, LoadReport, ParamBuilder, ParamStore};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Shards of a saved model are at most this large, as transformers' default.
pub(crate) const MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// An encoder with its parameters and the config it was made from.
#[derive(Debug)]
pub struct EncoderModel {
    /// The forward pass.
    pub encoder: Box<dyn Encoder>,
    /// Its parameters by Hugging Face name.
    pub params: ParamStore,
    /// `config.json` as read, so that saving keeps keys that are not used here.
    pub config: Value,
    /// What the checkpoint gave.
    pub report: LoadReport,
    /// Where adapters go.
    pub sites: Sites,
    /// Logits of words, where the encoder was read with them.
    pub mlm_head: Option<MlmHead>,
}

impl EncoderModel {
    /// What an adapter goes over.
    ///
    /// # Errors
    /// On a config without a known architecture (which no loaded model has).
    pub fn base(&self, device: Device) -> Result<Base<'_>> {
        let words = Family::of(Path::new("config.json"), &self.config)?.words();
        Ok(Base { sites: &self.sites, params: &self.params, words, device, config: &self.config })
    }
}

/// Reads `config.json` and the weights of a directory.
///
/// Strict: every parameter of the encoder must be there, and what is left over must be a part that an embedding
/// model does not use (poolers, pre-training heads, position buffers).
pub fn load_encoder(dir: &Path, device: Device) -> Result<EncoderModel> {
    load_encoder_with(dir, device, &EncoderOptions::default())
}

/// What is wanted otherwise than the directory has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncoderOptions {
    /// Keeps the layers' weights in 8 or 4 bits, each as soon as it is read; embeddings, norms and biases stay in f32. Such
    /// an encoder trains through an adapter alone and is not saved.
    pub bits: Option<Bits>,
    /// Gives the token embedding at least so many rows, for tokens that were added.
    pub tokens: Option<usize>,
    /// Whether it is read with the head of a masked language model.
    pub mlm_head: MlmHeadOption,
}

/// [`load_encoder`] with options.
pub fn load_encoder_with(dir: &Path, device: Device, options: &EncoderOptions) -> Result<EncoderModel> {
    let (path, json) = read_config(dir)?;
    let (mut json, whole) = arch::text_part(json);
    let family = Family::of(&path, &json)?;
    let (mut weights, mut left_out) = (open_weights(dir)?, Vec::new());
    if let Some(whole) = whole {
        (weights, left_out) = whole.text_weights(weights);
        whole.warn(dir, &left_out);
    }
    let mut weights = canonical(weights, family);
    let bits = options.bits;
    if let Some(tokens) = options.tokens {
        let words = format!("{}.weight", family.words());
        weights = weights.with_at_least_rows(&words, tokens as i64);
        if let (Some(shape), Some(map)) = (weights.shape(&words), json.as_object_mut()) {
            map.insert("vocab_size".into(), shape[0].into());
        }
    }
    let builder = ParamBuilder::from_weights(weights, device).quantising(bits, is_inner);
    let source = ConfigSource { path: &path, json: &json };
    let encoder = family.build(&source, &builder)?;
    let mlm_head = match options.mlm_head {
        MlmHeadOption::No => None,
        _ => Some(head_of(family, &source, &*encoder, &builder)?),
    };
    let sites = Sites::of(&builder);
    let fresh = |name: &str| options.mlm_head == MlmHeadOption::SavedOrFresh && mlm_head::is_mlm_head(name);
    let (params, mut report) = builder.finish(fresh, |name| family.is_unused(name))?;
    report.ignored.extend(left_out);
    say_fresh(dir, &report);
    Ok(EncoderModel { encoder, params, config: json, report, sites, mlm_head })
}

/// Says which parameters are new: they know nothing before they are trained.
pub(crate) fn say_fresh(dir: &Path, report: &LoadReport) {
    if let Some(first) = report.fresh.first() {
        tracing::warn!(
            "{}: {} parameters are not in the weights and begin as random ones ({first}, ...): the model is of use once \
             it is trained",
            dir.display(),
            report.fresh.len()
        );
    }
}

fn head_of(
    family: Family,
    source: &ConfigSource<'_>,
    encoder: &dyn Encoder,
    b: &ParamBuilder,
) -> Result<MlmHead> {
    let size = (encoder.vocab_size() as i64, encoder.hidden_size());
    match family {
        Family::Encoder(arch) => MlmHead::build(arch, source, family.words(), size, b),
        Family::Decoder(_) => source.unsupported(
            "model_type",
            "an encoder: weights of words (SPLADE) come of the head of a masked language model, which decoders have not",
        ),
    }
}

/// An encoder of this config with random weights (seed the generators first).
pub fn fresh_encoder(config: Value, device: Device) -> Result<EncoderModel> {
    fresh(config, false, device)
}

/// [`fresh_encoder`] with the head of a masked language model.
pub fn fresh_masked_lm(config: Value, device: Device) -> Result<EncoderModel> {
    fresh(config, true, device)
}

fn fresh(config: Value, mlm_head: bool, device: Device) -> Result<EncoderModel> {
    let path = Path::new("config.json");
    let (config, _) = arch::text_part(config);
    let family = Family::of(path, &config)?;
    let builder = ParamBuilder::fresh(device);
    let source = ConfigSource { path, json: &config };
    let encoder = family.build(&source, &builder)?;
    let mlm_head = if mlm_head { Some(head_of(family, &source, &*encoder, &builder)?) } else { None };
    let sites = Sites::of(&builder);
    let (params, report) = builder.finish(|_| true, |_| true)?;
    Ok(EncoderModel { encoder, params, config, report, sites, mlm_head })
}

/// Whether a folder holds a decoder whose tokens see no later ones, so that the last alone has seen the whole text.
///
/// # Errors
/// A folder without a config, or one of no known architecture.
pub fn sees_only_back(dir: &Path) -> Result<bool> {
    let (path, config) = read_config(dir)?;
    let (config, _) = arch::text_part(config);
    let is = |key: &str, value: bool| config.get(key).and_then(Value::as_bool) == Some(value);
    let decoder = matches!(Family::of(&path, &config)?, Family::Decoder(_));
    Ok(decoder && !is("is_causal", false) && !is("use_bidirectional_attention", true))
}

/// Writes `config.json` and the weights (f32) that transformers' AutoModel loads, names without a head's prefix; of an
/// encoder with its head what AutoModelForMaskedLM loads.
pub fn save_encoder(model: &EncoderModel, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join("config.json");
    let family = Family::of(&path, &model.config)?;
    let mut config = model.config.clone();
    if let Some(map) = config.as_object_mut() {
        // The weights are written in f32 and without the heads that the original config may name.
        map.shift_remove("torch_dtype");
        map.insert("dtype".into(), "float32".into());
        let kind = map.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let bare = Some(family.class(kind));
        let class = if model.mlm_head.is_some() { mlm_head::class_name(kind) } else { bare };
        if let Some(name) = class {
            map.insert("architectures".into(), serde_json::json!([name]));
        }
    }
    if let Family::Decoder(arch) = family {
        arch.complete(&ConfigSource { path: &path, json: &model.config }, false, &mut config);
    }
    write_json(&path, &config)?;
    let mut weights = model.params.whole()?;
    if model.mlm_head.is_some() {
        let prefix = family.prefix();
        for (name, _) in weights.iter_mut().filter(|(name, _)| !mlm_head::is_mlm_head(name)) {
            name.insert_str(0, prefix);
        }
    }
    Ok(save_model(dir, &weights, MAX_SHARD_BYTES)?)
}

/// `config.json` of a folder and its path; of a GGUF file what stands for it.
pub(crate) fn read_config(dir: &Path) -> Result<(PathBuf, Value)> {
    if is_gguf(dir) {
        return Ok((dir.into(), gguf::config(dir)?));
    }
    let path = dir.join("config.json");
    if !path.is_file() {
        return Err(Error::Hub {
            id: dir.display().to_string(),
            reason: "no config.json here; give the folder of a saved model".into(),
        });
    }
    let json = read_json(&path)?;
    Ok((path, json))
}

/// The weights of a folder, or of a GGUF file.
pub(crate) fn open_weights(dir: &Path) -> Result<Weights> {
    if is_gguf(dir) { gguf::weights(dir) } else { Ok(Weights::open_dir(dir)?) }
}

pub(crate) fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(path)?).map_err(|source| Error::Json { path: path.into(), source })
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| Error::Json { path: path.into(), source })?;
    text.push(b'\n');
    Ok(write_atomic(path, &text)?)
}

/// Strips the prefix of a model with a head, and maps the names of TensorFlow's day (`gamma`, `beta`).
fn canonical(weights: Weights, family: Family) -> Weights {
    let prefix = family.prefix();
    weights.renamed(|name| {
        let bare = name.strip_prefix(prefix).unwrap_or(name);
        let bare = match bare.rsplit_once('.') {
            Some((path, "gamma")) if path.ends_with("Norm") => format!("{path}.weight"),
            Some((path, "beta")) if path.ends_with("Norm") => format!("{path}.bias"),
            _ => bare.to_string(),
        };
        (bare != name).then_some(bare)
    })
}
