//! Folders of AdapterHub's `adapters` 1.3: `adapter_config.json` (another one than peft's) and `adapter.safetensors`.
//! Bottleneck adapters are read and written; LoRA and (IA)^3 are read as what they are in peft, and written as peft's.

use super::adapter::PREFIX;
use super::adapter::{Adapter, Base};
use super::bottleneck::NAME;
use super::config::{BottleneckConfig, BottleneckKind, Ia3Config, LoraConfig, PeftConfig};
use super::fault::bad;
use super::targets::{Targets, ends};
use crate::model_dir::write_json;
use crate::{Activation, Result};
use ragduet_torch::weights::{Weights, save_tensors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const WEIGHTS: &str = "adapter.safetensors";

/// Whether an `adapter_config.json` is of this kind.
pub(super) fn is_ours(json: &Value) -> bool {
    json.get("peft_type").is_none() && json.get("config").is_some_and(Value::is_object)
}

const ACTIVATIONS: [(&str, Activation); 5] = [
    ("relu", Activation::Relu),
    ("swish", Activation::Silu),
    ("silu", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
];

/// Reads the folder.
pub(super) fn load(base: Base<'_>, dir: &Path, path: &Path, json: &Value) -> Result<Adapter> {
    let c = &json["config"];
    match c["architecture"].as_str() {
        Some("lora") => return low_rank(base, dir, path, json),
        Some(other) => {
            let why =
                format!("`{other}` is not supported; `lora` (LoRA, (IA)^3) and bottleneck adapters are");
            return Err(bad(path, "config.architecture", &why));
        }
        None => {}
    }
    let on = |key: &str| c.get(key).and_then(Value::as_bool).unwrap_or(false);
    // What is computed here, and nothing near it.
    let wanted = [("output_adapter", true), ("original_ln_after", true), ("residual_before_ln", true)];
    let refused =
        ["cross_adapter", "ln_before", "ln_after", "adapter_residual_before_ln", "use_gating", "phm_layer"];
    let wrong = wanted.iter().find(|(key, v)| on(key) != *v).map(|(key, _)| *key);
    let wrong = wrong.or_else(|| refused.into_iter().find(|key| on(key)));
    let wrong = wrong.or_else(|| (!c["inv_adapter"].is_null()).then_some("inv_adapter"));
    if let Some(key) = wrong {
        return Err(bad(path, &format!("config.{key}"), &format!("{} is not supported", c[key])));
    }
    let kind = match (on("mh_adapter"), on("is_parallel"), on("original_ln_before")) {
        (true, false, false) => BottleneckKind::Houlsby,
        (false, false, true) => BottleneckKind::Pfeiffer,
        (false, true, _) => BottleneckKind::Parallel,
        _ => {
            let known = "double_seq_bn, seq_bn and par_bn are";
            return Err(bad(path, "config", &format!("this placement is not supported; {known}")));
        }
    };
    let name = c["non_linearity"].as_str().unwrap_or_default();
    let activation = ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|(_, a)| *a);
    let Some(activation) = activation else {
        return Err(bad(path, "config.non_linearity", &format!("`{name}` is not supported")));
    };
    let number = |key: &str| {
        let value = c[key].as_f64();
        value.ok_or_else(|| {
            bad(path, &format!("config.{key}"), &format!("{} is not supported: a number is", c[key]))
        })
    };
    let (reduction, reductions) = reduction(path, &c["reduction_factor"])?;
    let config = BottleneckConfig {
        kind,
        reduction: Some(reduction),
        reductions,
        leave_out: left_out(path, &c["leave_out"])?,
        activation: Some(activation),
        scaling: Some(number("scaling")?),
    };
    let file = weights_file(dir)?;
    let theirs = format!(".adapters.{}.", json["name"].as_str().unwrap_or_default());
    let ours = format!(".adapters.{NAME}.");
    let weights =
        Weights::open_file(&file)?.renamed(|n| n.contains(&theirs).then(|| n.replace(&theirs, &ours)));
    Adapter::from_weights(base, &PeftConfig::Bottleneck(config), weights)
}

/// The file of weights.
fn weights_file(dir: &Path) -> Result<std::path::PathBuf> {
    let file = dir.join(WEIGHTS);
    match file.is_file() {
        true => Ok(file),
        false => {
            let why = "there is no such file (pytorch_adapter.bin is not read: use_safetensors=True)";
            Err(bad(&file, "weights", why))
        }
    }
}

/// The reduction factor of layers that have none of their own, and those that have.
fn reduction(path: &Path, value: &Value) -> Result<(f64, BTreeMap<u32, f64>)> {
    let wrong = |value: &Value| {
        let why = format!("{value} is not supported: a number is, or numbers by layer with a `default`");
        bad(path, "config.reduction_factor", &why)
    };
    let Some(by_layer) = value.as_object() else {
        return Ok((value.as_f64().ok_or_else(|| wrong(value))?, BTreeMap::new()));
    };
    let (mut default, mut layers) = (None, BTreeMap::new());
    for (layer, factor) in by_layer {
        let factor = factor.as_f64().filter(|f| *f > 0.0).ok_or_else(|| wrong(value))?;
        match layer.as_str() {
            "default" => default = Some(factor),
            number => {
                layers.insert(number.parse().map_err(|_| wrong(value))?, factor);
            }
        }
    }
    // Without a default every layer has its own.
    let any = layers.values().copied().next();
    Ok((default.or(any).ok_or_else(|| wrong(value))?, layers))
}

/// Numbers of layers without an adapter.
fn left_out(path: &Path, value: &Value) -> Result<Vec<u32>> {
    let wrong = || bad(path, "config.leave_out", &format!("{value} is not supported: numbers of layers are"));
    let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong);
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(layers) => layers.iter().map(number).collect(),
        _ => Err(wrong()),
    }
}

/// LoRA and (IA)^3, which have one architecture there. What they act on is said by the tensors there are: of the layers
/// that `leave_out` names, and of matrices that `attn_matrices` does not, there are none.
fn low_rank(base: Base<'_>, dir: &Path, path: &Path, json: &Value) -> Result<Adapter> {
    let c = &json["config"];
    let off = |value: &Value| value.is_null() || value.as_bool() == Some(false);
    for key in ["use_gating", "use_dora", "vera_d", "vera_b", "n_up_projection"] {
        if !off(&c[key]) {
            return Err(bad(path, &format!("config.{key}"), &format!("{} is not supported", c[key])));
        }
    }
    left_out(path, &c["leave_out"])?;
    let number = |key: &str| {
        let why =
            || bad(path, &format!("config.{key}"), &format!("{} is not supported: a number is", c[key]));
        c[key].as_f64().filter(|n| *n > 0.0).ok_or_else(why)
    };
    let (rank, alpha) = (number("r")?, number("alpha")?);
    if rank.fract() != 0.0 {
        return Err(bad(path, "config.r", &format!("{rank} is not supported: a whole number is")));
    }
    let scales = match c["composition_mode"].as_str() {
        Some("add") => false,
        Some("scale") if alpha == 1.0 => true,
        Some("scale") => {
            return Err(bad(path, "config.alpha", &format!("{alpha} is not supported in (IA)^3: 1 is")));
        }
        _ => {
            let why = format!("{} is not supported; `add` and `scale` are", c["composition_mode"]);
            return Err(bad(path, "config.composition_mode", &why));
        }
    };
    let name = json["name"].as_str().unwrap_or_default();
    let parts = [
        ("lora_A", if scales { None } else { Some("lora_A.weight") }),
        ("lora_B", Some(if scales { "ia3_l" } else { "lora_B.weight" })),
    ];
    // "encoder.layer.0.attention.self.query.loras.NAME.lora_A": the path there and here, and the part.
    let split = |tensor: &str| -> Option<(String, &'static str)> {
        let (at, part) = tensor.split_once(&format!(".loras.{name}."))?;
        let part = parts.iter().find(|(theirs, _)| *theirs == part).and_then(|(_, ours)| *ours)?;
        // With a head their paths begin with the model's name, and ours may.
        let same = |ours: &&str| ends(ours, at) || ends(at, ours);
        Some((base.sites.linear_paths().find(same)?.to_string(), part))
    };
    let file = weights_file(dir)?;
    let weights = Weights::open_file(&file)?;
    let mut targets = BTreeSet::new();
    for tensor in weights.names() {
        let Some((at, part)) = split(tensor) else {
            return Err(bad(&file, "weights", &format!("`{tensor}` belongs to no linear layer of the base")));
        };
        let shape = weights.shape(tensor).unwrap_or_default();
        let size = base.sites.linears.iter().find(|(p, _)| *p == at).map_or([0, 0], |(_, l)| l.size());
        let wanted = match part {
            "lora_A.weight" => vec![rank as i64, size[1]],
            "lora_B.weight" => vec![size[0], rank as i64],
            _ => vec![size[0], 1],
        };
        if shape != wanted {
            let why = format!(
                "`{tensor}` has the shape {shape:?}, not {wanted:?}: updates of a part of a joint projection are not \
                 supported"
            );
            return Err(bad(&file, "weights", &why));
        }
        targets.insert(at);
    }
    let weights = weights.renamed(|tensor| split(tensor).map(|(at, part)| format!("{PREFIX}.{at}.{part}")));
    let targets = Targets::Names(targets.into_iter().collect());
    let config = if scales {
        PeftConfig::Ia3(Ia3Config { targets: Some(targets), feedforward: Some(Targets::Names(Vec::new())) })
    } else {
        PeftConfig::Lora(LoraConfig {
            rank: rank as i64,
            alpha,
            dropout: c["dropout"].as_f64().filter(|d| (0.0..1.0).contains(d)).unwrap_or(0.0),
            targets,
            ..LoraConfig::default()
        })
    };
    Adapter::from_weights(base, &config, weights)
}

/// Writes the folder.
pub(super) fn save(a: &Adapter, c: &BottleneckConfig, dir: &Path, path: &Path, base: &str) -> Result<()> {
    let activation = ACTIVATIONS.iter().find(|(_, x)| *x == c.activation()).map_or("relu", |(n, _)| *n);
    let parallel = c.kind == BottleneckKind::Parallel;
    let (model_type, model_class) = a.of_base();
    let hidden = a.sites().bottlenecks.first().map_or(0, |(_, s)| s.hidden);
    let reductions = if c.reductions.is_empty() {
        json!(c.reduction())
    } else {
        let layers = c.reductions.iter().map(|(layer, r)| (layer.to_string(), *r));
        json!(layers.chain([("default".to_string(), c.reduction())]).collect::<BTreeMap<_, _>>())
    };
    let json = json!({
        "config": {
            "adapter_residual_before_ln": false, "cross_adapter": false, "dropout": 0.0, "factorized_phm_W": true,
            "factorized_phm_rule": false, "hypercomplex_nonlinearity": "glorot-uniform",
            "init_weights": if parallel { "mam_adapter" } else { "bert" }, "init_weights_seed": null,
            "inv_adapter": null, "inv_adapter_reduction_factor": null, "is_parallel": parallel, "learn_phm": true,
            "leave_out": c.leave_out, "ln_after": false, "ln_before": false,
            "mh_adapter": c.kind == BottleneckKind::Houlsby, "non_linearity": activation, "original_ln_after": true,
            "original_ln_before": c.kind == BottleneckKind::Pfeiffer, "output_adapter": true, "phm_bias": true,
            "phm_c_init": "normal", "phm_dim": 4, "phm_init_range": 0.0001, "phm_layer": false, "phm_rank": 1,
            "reduction_factor": reductions, "residual_before_ln": true, "scaling": c.scaling(),
            "shared_W_phm": false, "shared_phm_rule": true, "stochastic_depth": 0.0, "use_gating": false,
        },
        "hidden_size": hidden,
        "model_class": model_class,
        "model_name": base,
        "model_type": model_type,
        "name": NAME,
        "version": "adapters.1.3.0",
    });
    write_json(path, &json)?;
    Ok(save_tensors(&dir.join(WEIGHTS), &a.tensors(), &[("format", "pt")])?)
}
