//! Language models as Hugging Face directories: `config.json`, `generation_config.json` and safetensors, in and out.

use crate::arch::{self, ArchSpec, Multimodal, Role};
use crate::config_source::ConfigSource;
use crate::model_dir::{MAX_SHARD_BYTES, open_weights, read_config, write_json};
use crate::peft::{Base, Sites, is_inner};
use crate::{CausalLm, Error, FrozenBase, GenerationConfig, LmKind, Result, Seq2SeqLm};
use fs_err as fs;
use ragduet_torch::weights::{Weights, save_model};
use ragduet_torch::{Bits, Device, LoadReport, ParamBuilder, ParamStore};
use serde_json::Value;
use std::path::Path;

/// A language model with its parameters and the configs it was made from.
#[derive(Debug)]
pub struct LanguageModel {
    /// The forward pass.
    pub kind: LmKind,
    /// Its parameters by Hugging Face name; a tied head is there once, as the embedding.
    pub params: ParamStore,
    /// `config.json` as read, so that saving keeps keys that are not used here.
    pub config: Value,
    /// `generation_config.json`.
    pub generation: GenerationConfig,
    /// What the checkpoint gave.
    pub report: LoadReport,
    /// Where adapters go.
    pub sites: Sites,
}

impl LanguageModel {
    /// What an adapter goes over.
    ///
    /// # Errors
    /// On a config without a known architecture (which no loaded model has).
    pub fn base(&self, device: Device) -> Result<Base<'_>> {
        let arch = architecture(Path::new("config.json"), &self.config)?;
        let words = arch.names.embedding.trim_end_matches(".weight");
        Ok(Base { sites: &self.sites, params: &self.params, words, device, config: &self.config })
    }

    /// The forward pass of a decoder-only model.
    pub fn causal(&self) -> Option<&dyn CausalLm> {
        match &self.kind {
            LmKind::Causal(lm) => Some(lm.as_ref()),
            LmKind::Seq2Seq(_) => None,
        }
    }

    /// The same, to set dropout and recomputation.
    pub fn causal_mut(&mut self) -> Option<&mut dyn CausalLm> {
        match &mut self.kind {
            LmKind::Causal(lm) => Some(lm.as_mut()),
            LmKind::Seq2Seq(_) => None,
        }
    }

    /// The forward passes of an encoder-decoder.
    pub fn seq2seq(&self) -> Option<&dyn Seq2SeqLm> {
        match &self.kind {
            LmKind::Causal(_) => None,
            LmKind::Seq2Seq(lm) => Some(lm.as_ref()),
        }
    }

    /// The same, to set dropout.
    pub fn seq2seq_mut(&mut self) -> Option<&mut dyn Seq2SeqLm> {
        match &mut self.kind {
            LmKind::Causal(_) => None,
            LmKind::Seq2Seq(lm) => Some(lm.as_mut()),
        }
    }
}

/// Reads the configs and the weights (of any floating-point dtype, into f32) of a directory.
///
/// Strict: every parameter must be there, and what is left over must be a buffer or a tied head.
///
/// # Errors
/// On an architecture or setting that is not known, and on weights that do not fit.
pub fn load_language_model(dir: &Path, device: Device) -> Result<LanguageModel> {
    load_quantised_language_model(dir, device, None)
}

/// [`load_language_model`] with the layers' weights in 8 or 4 bits, each as soon as it is read; embeddings, norms, biases
/// and the head stay in f32. Such a model trains through an adapter alone and is not saved.
///
/// # Errors
/// As [`load_language_model`], and on weights that are not finite.
pub fn load_quantised_language_model(
    dir: &Path,
    device: Device,
    bits: Option<Bits>,
) -> Result<LanguageModel> {
    load_language_model_over(dir, device, bits, None)
}

/// [`load_quantised_language_model`], with the frozen weights of a model in memory where that is over the same folder.
///
/// # Errors
/// As [`load_quantised_language_model`].
pub fn load_language_model_over(
    dir: &Path,
    device: Device,
    bits: Option<Bits>,
    held: Option<&FrozenBase>,
) -> Result<LanguageModel> {
    let (path, config) = read_config(dir)?;
    let (config, whole) = arch::text_part(config);
    let arch = architecture(&path, &config)?;
    let generation = GenerationConfig::read(dir, &config)?;
    let (weights, left_out) = open(dir, arch, whole)?;
    if let Some(whole) = whole {
        whole.warn(dir, &left_out);
    }
    let head = arch.names.head;
    let copied_head = weights.shape(head).is_some();
    let mut builder = ParamBuilder::from_weights(weights, device).quantising(bits, is_inner);
    if let Some(weights) = held.and_then(|base| base.of(dir)) {
        builder = builder.sharing(weights, arch.names.prefix);
    }
    let source = ConfigSource { path: &path, json: &config };
    let kind = arch.build(&source, &builder, Role::LanguageModel)?;
    let sites = Sites::of(&builder);
    let (params, mut report) = builder.finish(|_| false, |name| arch.is_unused(name))?;
    report.ignored.extend(left_out);
    if copied_head && params.get(head).is_none() {
        check_same(&open(dir, arch, whole)?.0, head, arch, &source, &params)?;
    }
    for copy in arch.names.embedding_copies.iter().filter(|c| report.ignored.iter().any(|i| i == *c)) {
        check_same(&open(dir, arch, whole)?.0, copy, arch, &source, &params)?;
    }
    Ok(LanguageModel { kind, params, config, generation, report, sites })
}

/// A model of this config with random weights (seed the generators first).
///
/// # Errors
/// On an architecture or setting that is not known.
pub fn fresh_language_model(config: Value, device: Device) -> Result<LanguageModel> {
    let path = Path::new("config.json");
    let (config, _) = arch::text_part(config);
    let arch = architecture(path, &config)?;
    let generation = GenerationConfig::read(Path::new(""), &config)?;
    let builder = ParamBuilder::fresh(device);
    let kind = arch.build(&ConfigSource { path, json: &config }, &builder, Role::LanguageModel)?;
    let sites = Sites::of(&builder);
    let (params, report) = builder.finish(|_| true, |_| true)?;
    Ok(LanguageModel { kind, params, config, generation, report, sites })
}

/// Writes the configs and the weights (f32, a tied head once) that transformers' AutoModelForCausalLM or AutoModelForSeq2SeqLM loads.
///
/// # Errors
/// Where the folder cannot be written.
pub fn save_language_model(model: &LanguageModel, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join("config.json");
    let arch = architecture(&path, &model.config)?;
    let mut config = model.config.clone();
    if let Some(map) = config.as_object_mut() {
        map.shift_remove("torch_dtype");
        map.insert("dtype".into(), "float32".into());
        map.insert("architectures".into(), serde_json::json!([arch.class]));
    }
    let own_head = model.params.get(arch.names.head).is_some();
    arch.complete(&ConfigSource { path: &path, json: &model.config }, own_head, &mut config);
    write_json(&path, &config)?;
    if let Some(file) = &model.generation.file {
        write_json(&dir.join("generation_config.json"), file)?;
    }
    Ok(save_model(dir, &model.params.whole()?, MAX_SHARD_BYTES)?)
}

fn architecture(path: &Path, json: &Value) -> Result<&'static ArchSpec> {
    let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
    ArchSpec::of(model_type).ok_or_else(|| Error::UnknownArchitecture {
        path: path.into(),
        model_type: model_type.into(),
        kind: "language models",
        supported: arch::language_model_types(),
    })
}

/// The weights under the language model's own names, and what the folder holds of other models.
fn open(dir: &Path, arch: &ArchSpec, whole: Option<&Multimodal>) -> Result<(Weights, Vec<String>)> {
    let weights = open_weights(dir)?;
    let (weights, left_out) = match whole {
        Some(whole) => whole.text_weights(weights),
        None => (weights, Vec::new()),
    };
    Ok((canonical(weights, arch), left_out))
}

/// Names of the bare model get the prefix of the one with a head.
fn canonical(weights: Weights, arch: &ArchSpec) -> Weights {
    let names = arch.names;
    let shared = weights.shape(names.embedding).is_some();
    weights.renamed(|name| {
        // Of tensors that share memory a file keeps one, and not always under the first of their names.
        if !shared && names.embedding_copies.first() == Some(&name) {
            return Some(names.embedding.into());
        }
        let whole = name.starts_with(names.prefix) || name == names.head;
        (!whole).then(|| format!("{}{name}", names.prefix))
    })
}

/// A copy of the embedding (a tied head is one) that is stored with other values would be lost silently.
fn check_same(
    stored: &Weights,
    copy: &str,
    arch: &ArchSpec,
    source: &ConfigSource<'_>,
    params: &ParamStore,
) -> Result<()> {
    let words = arch.names.embedding;
    let stored = stored.load(copy, Device::Cpu)?;
    let same = params
        .get(words)
        .is_some_and(|e| e.size() == stored.size() && e.to_device(Device::Cpu).equal(&stored));
    if same {
        return Ok(());
    }
    if copy == arch.names.head {
        return source
            .unsupported("tie_word_embeddings", "false, because the stored head is not the embedding");
    }
    source.unsupported("tie_word_embeddings", &format!("supported: {copy} is not {words}"))
}
