//! `ragduet info`.

use crate::common;
use anyhow::Result;
use ragduet_gguf::{GgufFile, is_gguf};
use ragduet_index::{
    IdMap, IndexKind, LexicalIndex, OpenOptions, SparseIndex, kind, open, open_multi_vector,
};
use ragduet_torch::weights::Weights;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a model, adapter, index or run; a GGUF file; or a folder of adapters, which are listed.
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self) -> Result<()> {
        let dir = &self.path;
        let facts = if is_gguf(dir) {
            gguf(dir)?
        } else if dir.join("index.json").is_file() {
            index(dir)?
        } else if dir.join("environment.json").is_file() {
            run(dir)?
        } else if dir.join("adapter_config.json").is_file() {
            adapter(dir)?
        } else if dir.join("config.json").is_file() || dir.join("modules.json").is_file() {
            model(dir)?
        } else {
            let found = adapters_in(dir);
            if found.is_empty() {
                anyhow::bail!(
                    "{}: neither a model (config.json), an adapter (adapter_config.json), an index (index.json) nor a run (environment.json), nor a folder of adapters",
                    dir.display()
                );
            }
            list(&found)?
        };
        if self.json {
            return common::print_json(&facts);
        }
        if let Some(map) = facts.as_object() {
            for (k, v) in map {
                let text = v.as_str().map_or_else(|| v.to_string(), str::to_string);
                println!("{k:<18} {text}");
            }
        }
        Ok(())
    }
}

fn read_json(path: &Path) -> Value {
    fs_err::read(path).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(Value::Null)
}

fn model(dir: &Path) -> Result<Value> {
    let config = read_json(&dir.join("config.json"));
    let weights = Weights::open_dir(dir);
    let parameters = weights.as_ref().map_or(Value::Null, |w| {
        w.names().filter_map(|n| w.shape(n)).map(|s| s.iter().product::<i64>()).sum::<i64>().into()
    });
    let modules = read_json(&dir.join("modules.json"));
    let list: Vec<&str> = modules
        .as_array()
        .map(|m| m.iter().filter_map(|m| m["type"].as_str()?.rsplit('.').next()).collect())
        .unwrap_or_default();
    let sentence = read_json(&dir.join("sentence_bert_config.json"));
    let st = read_json(&dir.join("config_sentence_transformers.json"));
    // sentence-transformers 6 keeps the limit with the tokenizer.
    let longest = match &sentence["max_seq_length"] {
        // A tokenizer without a limit says 10^30.
        Value::Null => read_json(&dir.join("tokenizer_config.json"))["model_max_length"]
            .as_u64()
            .map_or(Value::Null, Value::from),
        said => said.clone(),
    };
    let first = |keys: &[&str]| {
        keys.iter().map(|k| &config[*k]).find(|v| !v.is_null()).cloned().unwrap_or(Value::Null)
    };
    Ok(json!({
        "kind": "model", "architecture": config["model_type"], "parameters": parameters,
        "hidden size": first(&["hidden_size", "dim", "d_model", "n_embd"]),
        "layers": first(&["num_hidden_layers", "n_layers", "num_layers", "n_layer"]),
        "heads": first(&["num_attention_heads", "n_heads", "num_heads", "n_head"]),
        "vocabulary": config["vocab_size"],
        "modules": list, "longest text": longest, "similarity": st["similarity_fn_name"],
        "numbers kept of a vector": st["truncate_dim"],
        "prompts": st["prompts"],
    }))
}

/// A GGUF file: what it holds, and in which types.
fn gguf(path: &Path) -> Result<Value> {
    let file = GgufFile::open(path)?;
    let metadata = file.metadata();
    let architecture = metadata.text("general.architecture")?.unwrap_or("(none)");
    let count = |key: &str| metadata.same_count(&format!("{architecture}.{key}"));
    let mut types: Vec<(String, usize)> = Vec::new();
    for tensor in file.tensors() {
        let name = tensor.kind.to_string();
        match types.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => types.push((name, 1)),
        }
    }
    let types: Vec<String> = types.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let parameters: usize = file.tensors().iter().map(|t| t.numbers()).sum();
    Ok(json!({
        "kind": "model in a GGUF file", "architecture": architecture, "name": metadata.text("general.name")?,
        "parameters": parameters, "tensors": types.join(", "),
        "hidden size": count("embedding_length")?, "layers": count("block_count")?,
        "heads": count("attention.head_count")?,
        "vocabulary": metadata.texts("tokenizer.ggml.tokens")?.map(<[String]>::len),
        "longest text": count("context_length")?,
        "tokenizer": metadata.text("tokenizer.ggml.model")?, "pre-tokenizer": metadata.text("tokenizer.ggml.pre")?,
        "chat template": metadata.get("tokenizer.chat_template").is_some(),
    }))
}

fn method(config: &Value) -> Value {
    match (&config["config"]["architecture"], &config["config"]["composition_mode"]) {
        (Value::String(of), mode) if of == "lora" => {
            if mode == "scale" {
                "IA3".into()
            } else {
                "LORA".into()
            }
        }
        (Value::String(other), _) => other.to_uppercase().into(),
        _ if config["config"].is_object() => "BOTTLENECK".into(),
        _ => config["peft_type"].clone(),
    }
}

fn base(config: &Value) -> Value {
    let keys = ["base_model_name_or_path", "model_name"];
    keys.iter().map(|k| config[*k].clone()).find(|v| !v.is_null()).unwrap_or_default()
}

/// Folders in `dir` that hold an adapter, or a run whose best is one.
fn adapters_in(dir: &Path) -> Vec<PathBuf> {
    let inside = fs_err::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect::<Vec<_>>());
    let holds = |p: &PathBuf| p.join("adapter_config.json").is_file();
    let mut found: Vec<PathBuf> =
        inside.unwrap_or_default().into_iter().flat_map(|p| [p.join("best"), p]).filter(holds).collect();
    found.sort();
    found
}

/// What adapters there are, by folder.
fn list(found: &[PathBuf]) -> Result<Value> {
    let mut out = serde_json::Map::from_iter([("kind".into(), json!("adapters"))]);
    for dir in found {
        let one = adapter(dir)?;
        let short = json!({"method": one["method"], "base": one["base"], "parameters": one["parameters"]});
        out.insert(dir.display().to_string(), short);
    }
    Ok(out.into())
}

fn adapter(dir: &Path) -> Result<Value> {
    let mut config = read_json(&dir.join("adapter_config.json"));
    // peft's file, or AdapterHub's.
    let files = ["adapter_model.safetensors", "adapter.safetensors"];
    let file = files.iter().map(|f| dir.join(f)).find(|f| f.is_file());
    let weights = Weights::open_file(&file.unwrap_or_else(|| dir.join(files[0])))?;
    let parameters: i64 =
        weights.names().filter_map(|n| weights.shape(n)).map(|s| s.iter().product::<i64>()).sum();
    let mut out = json!({
        "kind": "adapter", "method": method(&config), "base": base(&config),
        "task": config["task_type"], "parameters": parameters, "tensors": weights.names().count(),
    });
    // The settings that say something.
    if let (Some(out), Some(all)) = (out.as_object_mut(), config.as_object_mut()) {
        let told = ["peft_type", "base_model_name_or_path", "task_type", "peft_version", "inference_mode"];
        let empty = |v: &Value| match v {
            Value::Null | Value::Bool(false) => true,
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            _ => false,
        };
        let combined = read_json(&dir.join("combined.json"));
        if !combined.is_null() {
            out.insert("combined".into(), combined);
        }
        out.extend(std::mem::take(all).into_iter().filter(|(k, v)| !told.contains(&k.as_str()) && !empty(v)));
    }
    Ok(out)
}

fn index(dir: &Path) -> Result<Value> {
    let kind = kind(dir)?;
    let own = match kind {
        IndexKind::Lexical => {
            let index = LexicalIndex::open(dir)?;
            json!({"passages": index.live(), "settings": index.config()})
        }
        IndexKind::Sparse => {
            let index = SparseIndex::open(dir)?;
            json!({"passages": index.live(), "words": index.dim(), "weights": index.texts().active()})
        }
        IndexKind::MultiVector => {
            let index = open_multi_vector(dir, &OpenOptions::default())?;
            json!({"passages": index.live(), "vectors": index.tokens(), "dimensions": index.dim()})
        }
        IndexKind::Exact | IndexKind::Hnsw | IndexKind::Compressed => {
            let index = open(dir)?;
            json!({"vectors": index.len(), "dimensions": index.dim(), "similarity": index.similarity()})
        }
    };
    let name = serde_json::to_value(kind)?;
    let mut facts = json!({"kind": format!("index, {}", name.as_str().unwrap_or_default())});
    let ids = IdMap::open(dir)?.map(|m| m.len());
    let common = json!({"ids": ids, "source": read_json(&dir.join("source.json")), "checksums": "good"});
    if let (Some(facts), Value::Object(own), Value::Object(common)) = (facts.as_object_mut(), own, common) {
        facts.extend(own.into_iter().chain(common));
    }
    Ok(facts)
}

fn run(dir: &Path) -> Result<Value> {
    let environment = read_json(&dir.join("environment.json"));
    let metrics = fs_err::read_to_string(dir.join("metrics.jsonl")).unwrap_or_default();
    let last = metrics.lines().rev().find_map(|l| serde_json::from_str::<Value>(l).ok());
    let mut checkpoints: Vec<String> = fs_err::read_dir(dir.join("checkpoints"))
        .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    checkpoints.sort();
    Ok(json!({
        "kind": "run", "environment": environment, "records": metrics.lines().count(), "last record": last,
        "checkpoints": checkpoints, "best": read_json(&dir.join("best.json")),
    }))
}
