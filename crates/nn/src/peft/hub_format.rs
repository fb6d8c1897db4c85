//! Bottleneck adapters' folders as AdapterHub's `adapters` 1.3 writes and reads them: `adapter_config.json` (another one
//! than peft's) and `adapter.safetensors`.

use super::adapter::{Adapter, Base};
use super::bottleneck::NAME;
use super::config::{BottleneckConfig, BottleneckKind, PeftConfig};
use super::fault::bad;
use crate::model_dir::write_json;
use crate::{Activation, Result};
use ragduet_torch::weights::{Weights, save_tensors};
use serde_json::{Value, json};
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
    let on = |key: &str| c.get(key).and_then(Value::as_bool).unwrap_or(false);
    // What is computed here, and nothing near it.
    let wanted = [("output_adapter", true), ("original_ln_after", true), ("residual_before_ln", true)];
    let refused =
        ["cross_adapter", "ln_before", "ln_after", "adapter_residual_before_ln", "use_gating", "phm_layer"];
    let wrong = wanted.iter().find(|(key, v)| on(key) != *v).map(|(key, _)| *key);
    let wrong = wrong.or_else(|| refused.into_iter().find(|key| on(key)));
    let wrong = wrong.or_else(|| (!c["inv_adapter"].is_null()).then_some("inv_adapter"));
    let wrong =
        wrong.or_else(|| c["leave_out"].as_array().is_some_and(|l| !l.is_empty()).then_some("leave_out"));
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
    let config = BottleneckConfig {
        kind,
        reduction: Some(number("reduction_factor")?),
        activation: Some(activation),
        scaling: Some(number("scaling")?),
    };
    let file = dir.join(WEIGHTS);
    if !file.is_file() {
        return Err(bad(
            &file,
            "weights",
            "there is no such file (pytorch_adapter.bin is not read: use_safetensors=True)",
        ));
    }
    let theirs = format!(".adapters.{}.", json["name"].as_str().unwrap_or_default());
    let ours = format!(".adapters.{NAME}.");
    let weights =
        Weights::open_file(&file)?.renamed(|n| n.contains(&theirs).then(|| n.replace(&theirs, &ours)));
    Adapter::from_weights(base, &PeftConfig::Bottleneck(config), weights)
}

/// Writes the folder.
pub(super) fn save(a: &Adapter, c: &BottleneckConfig, dir: &Path, path: &Path, base: &str) -> Result<()> {
    let activation = ACTIVATIONS.iter().find(|(_, x)| *x == c.activation()).map_or("relu", |(n, _)| *n);
    let parallel = c.kind == BottleneckKind::Parallel;
    let (model_type, model_class) = a.of_base();
    let hidden = a.sites().bottlenecks.first().map_or(0, |(_, s)| s.hidden);
    let json = json!({
        "config": {
            "adapter_residual_before_ln": false, "cross_adapter": false, "dropout": 0.0, "factorized_phm_W": true,
            "factorized_phm_rule": false, "hypercomplex_nonlinearity": "glorot-uniform",
            "init_weights": if parallel { "mam_adapter" } else { "bert" }, "init_weights_seed": null,
            "inv_adapter": null, "inv_adapter_reduction_factor": null, "is_parallel": parallel, "learn_phm": true,
            "leave_out": [], "ln_after": false, "ln_before": false,
            "mh_adapter": c.kind == BottleneckKind::Houlsby, "non_linearity": activation, "original_ln_after": true,
            "original_ln_before": c.kind == BottleneckKind::Pfeiffer, "output_adapter": true, "phm_bias": true,
            "phm_c_init": "normal", "phm_dim": 4, "phm_init_range": 0.0001, "phm_layer": false, "phm_rank": 1,
            "reduction_factor": c.reduction(), "residual_before_ln": true, "scaling": c.scaling(),
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
