//! Decoders as the encoders of retrievers: the bare model's names and states, attention to both sides, against
//! transformers. `both.safetensors` of a folder of `golden/lm` was made by `make_both.py` there.

use crate::goldens;
use ragduet_nn::{
    Labels, Mode, PackedTokens, SequenceClassifier, load_encoder, load_language_model, save_encoder,
    sees_only_back,
};
use ragduet_testkit::{alone, assert_close, assert_relative, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor, grad};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

fn eval() -> Mode {
    Mode::eval(Compute::F32)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(name)
}

fn texts(name: &str) -> Vec<Vec<u32>> {
    let data = Weights::open_file(&golden(name).join("golden.safetensors")).unwrap();
    let ints = |n: &str| Vec::<i64>::try_from(&data.load_as_is(n).unwrap()).unwrap();
    let (ids, mut at) = (ints("ids"), 0);
    let cut = |n: i64| {
        at += n as usize;
        ids[at - n as usize..at].iter().map(|&i| i as u32).collect()
    };
    ints("lengths").into_iter().map(cut).collect()
}

fn pack(texts: &[Vec<u32>]) -> PackedTokens {
    PackedTokens::from_ids(texts.iter().map(Vec::as_slice), Device::Cpu)
}

/// The folder with keys of its config changed, at the language model's own level.
fn changed(name: &str, keys: &Map<String, Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(golden(name).join("config.json")).unwrap()).unwrap();
    let own = if config.get("text_config").is_some() { &mut config["text_config"] } else { &mut config };
    own.as_object_mut().unwrap().extend(keys.clone());
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(golden(name).join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    dir
}

#[test]
fn the_states_of_every_decoder_are_those_of_its_language_model() {
    let _alone = alone();
    for name in goldens::one_of_each(|spec| spec.is_decoder_only()) {
        let texts = texts(&name);
        let mut m = load_encoder(&golden(&name), Device::Cpu).unwrap();
        let states = m.encoder.forward(&pack(&texts), eval());
        let lm = load_language_model(&golden(&name), Device::Cpu).unwrap();
        let want = lm.causal().unwrap().forward(&pack(&texts), eval());
        assert_eq!(max_diff(&states, &want), 0.0, "{name}");
        assert!(m.params.iter().all(|(n, _)| !n.contains("lm_head") && !n.starts_with("model.")), "{name}");
        assert!(sees_only_back(&golden(&name)).unwrap());
        let last = m.encoder.layers();
        let names: Vec<&str> = m.params.iter().map(|(n, _)| n).collect();
        let depths: Vec<_> = names.iter().map(|n| m.encoder.depth_of(n)).collect();
        assert!(depths.contains(&Some(0)) && depths.contains(&Some(last)), "{name}: {depths:?}");

        let out = tempfile::tempdir().unwrap();
        save_encoder(&m, out.path()).unwrap();
        let again = load_encoder(out.path(), Device::Cpu).unwrap();
        assert_eq!(max_diff(&again.encoder.forward(&pack(&texts), eval()), &states), 0.0, "{name}: saved");
        m.encoder.truncate(1);
        assert!(max_diff(&m.encoder.forward(&pack(&texts), eval()), &states) > 1e-3, "{name}: truncated");
    }
}

#[test]
fn attention_to_both_sides_is_that_of_transformers() {
    let _alone = alone();
    let mut seen = 0;
    for (name, _) in goldens::language_models() {
        let path = golden(&name).join("both.json");
        let Ok(keys) = std::fs::read(path) else { continue };
        let keys: Map<String, Value> = serde_json::from_slice(&keys).unwrap();
        let dir = changed(&name, &keys);
        let data = Weights::open_file(&golden(&name).join("both.safetensors")).unwrap();
        let texts = texts(&name);
        let m = load_encoder(dir.path(), Device::Cpu).unwrap();
        assert!(!sees_only_back(dir.path()).unwrap());
        let states = m.encoder.forward(&pack(&texts), eval());
        assert_close(&states, &data.load("states", Device::Cpu).unwrap(), 1e-4, &name);
        grad::backward(&[states.shallow_clone()], &[data.load("probe", Device::Cpu).unwrap()]).unwrap();
        let norm = |t: &Tensor| f64::try_from(t.norm()).unwrap();
        let all: f64 = m.params.iter().map(|(_, p)| norm(&p.tensor.grad()).powi(2)).sum::<f64>().sqrt();
        for (parameter, p) in m.params.iter() {
            let want = data.load(&format!("grad.{parameter}"), Device::Cpu).unwrap();
            let off = norm(&(p.tensor.grad() - &want));
            assert!(
                off <= 1e-3 * norm(&want).max(1e-4 * all),
                "{name}: gradient of {parameter} off by {off:.2e}"
            );
        }
        assert_eq!(data.names().filter(|n| n.starts_with("grad.")).count(), m.params.len(), "{name}");

        let mut at = 0;
        for text in &texts {
            let one = m.encoder.forward(&pack(std::slice::from_ref(text)), eval());
            let rows = states.narrow(0, at, text.len() as i64);
            assert_close(&one, &rows, 2e-5, &format!("{name}: alone"));
            at += text.len() as i64;
        }
        let low = m.encoder.forward(&pack(&texts), Mode::eval(Compute::Bf16));
        assert_relative(&low, &states, 4e-2, &format!("{name}: bf16"));

        let error = load_language_model(dir.path(), Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("a language model sees no later token"), "{error}");
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
}

#[test]
fn a_classifier_may_see_both_sides() {
    let _alone = alone();
    let both = json!({"is_causal": false});
    let dir = changed("qwen3", both.as_object().unwrap());
    let labels =
        Labels { names: vec!["a".into(), "b".into()], problem: "single_label_classification".into() };
    let texts = [vec![5u32, 6, 7, 8], vec![5, 9, 7, 8]];
    let logits = |dir: &Path| {
        ragduet_torch::rng::seed(1);
        SequenceClassifier::load(dir, Device::Cpu, Some(&labels)).unwrap().forward(&pack(&texts), eval())
    };
    assert!(max_diff(&logits(dir.path()), &logits(&golden("qwen3"))) > 1e-4);
}

#[test]
fn rows_that_only_look_do_not_change_the_others() {
    let _alone = alone();
    let both = json!({"is_causal": false});
    for name in ["qwen3_layer_types", "gemma3"] {
        for keys in [Map::new(), both.as_object().unwrap().clone()] {
            let m = load_encoder(changed(name, &keys).path(), Device::Cpu).unwrap();
            let (text, filled) =
                (vec![5u32, 6, 7, 8], vec![5u32, 6, 7, 8, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
            let want = m.encoder.forward(&pack(&[text]), eval());
            let got = m.encoder.forward(&pack(std::slice::from_ref(&filled)).with_seen(&[4]), eval());
            assert_close(&got.narrow(0, 0, 4), &want, 1e-5, name);
            assert!(f64::try_from(got.abs().max()).unwrap().is_finite());
        }
    }
}

#[test]
fn what_no_encoder_is_made_of_is_refused_with_what_there_is() {
    let _alone = alone();
    let refused = |name: &str, keys: Value| {
        let dir = changed(name, keys.as_object().unwrap());
        load_encoder(dir.path(), Device::Cpu).unwrap_err().to_string()
    };
    let error = load_encoder(&golden("t5"), Device::Cpu).unwrap_err().to_string();
    for known in ["`t5`", "bert", "qwen3", "gemma3_text", "llama_bidirec"] {
        assert!(error.contains(known), "{error}");
    }
    let error = refused("qwen3", json!({"use_bidirectional_attention": true}));
    assert!(error.contains("is_causal = false"), "{error}");
    let error = refused("llama", json!({"is_causal": null}));
    assert!(error.contains("true or false"), "{error}");
}

#[test]
fn classes_that_come_as_code_are_read_as_what_they_compute() {
    let _alone = alone();
    let own = json!({
        "model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalModel"], "pooling": "avg",
        "auto_map": {"AutoModel": "modeling.LlamaBidirectionalModel"},
    });
    let m = load_encoder(changed("llama", own.as_object().unwrap()).path(), Device::Cpu).unwrap();
    let both = json!({"is_causal": false});
    let same = load_encoder(changed("llama", both.as_object().unwrap()).path(), Device::Cpu).unwrap();
    let texts = texts("llama");
    let states = same.encoder.forward(&pack(&texts), eval());
    assert_eq!(max_diff(&m.encoder.forward(&pack(&texts), eval()), &states), 0.0);
    let out = tempfile::tempdir().unwrap();
    save_encoder(&m, out.path()).unwrap();
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["model_type"], &config["is_causal"]), (&json!("llama"), &json!(false)));
    assert_eq!((&config["architectures"], config.get("auto_map")), (&json!(["LlamaModel"]), None));
}
