//! Hidden states and gradients against transformers (goldens and the script that made them lie in `golden/`).

use ragduet_nn::{Mode, PackedTokens, load_encoder, save_encoder};
use ragduet_testkit::{alone, assert_close, assert_relative, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, Tensor, grad};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

struct Case {
    texts: Vec<Vec<u32>>,
    data: Weights,
}

fn case(dir: &Path) -> Case {
    let data = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
    let ints = |n: &str| Vec::<i64>::try_from(&data.load_as_is(n).unwrap()).unwrap();
    let (ids, lengths) = (ints("ids"), ints("lengths"));
    let mut texts = Vec::new();
    let mut at = 0;
    for l in lengths {
        texts.push(ids[at..at + l as usize].iter().map(|&i| i as u32).collect());
        at += l as usize;
    }
    Case { texts, data }
}

fn pack(texts: &[Vec<u32>]) -> PackedTokens {
    let zeros: Vec<Vec<u32>> = texts.iter().map(|t| vec![0; t.len()]).collect();
    PackedTokens::new(texts.iter().zip(&zeros).map(|(t, z)| (t.as_slice(), z.as_slice())), Device::Cpu)
}

fn check(name: &str) {
    let dir = golden(name);
    let c = case(&dir);
    let mut model = load_encoder(&dir, Device::Cpu).unwrap();
    let mode = Mode::eval(Compute::F32);
    let hidden = model.encoder.forward(&pack(&c.texts), mode);
    assert_close(&hidden, &c.data.load("hidden", Device::Cpu).unwrap(), 1e-4, name);

    grad::backward(&[hidden.shallow_clone()], &[c.data.load("probe", Device::Cpu).unwrap()]).unwrap();
    let norm = |t: &Tensor| f64::try_from(t.norm()).unwrap();
    let all: f64 = model.params.iter().map(|(_, p)| norm(&p.tensor.grad()).powi(2)).sum::<f64>().sqrt();
    let mut checked = 0;
    for (parameter, p) in model.params.iter() {
        let want = c.data.load(&format!("grad.{parameter}"), Device::Cpu).unwrap();
        // A key's bias cancels in the softmax: its true gradient is 0 and only rounding is left to compare.
        let allowed = 1e-3 * norm(&want).max(1e-4 * all);
        let off = norm(&(p.tensor.grad() - &want));
        assert!(off <= allowed, "{name}: gradient of {parameter} is off by {off:.2e}, allowed {allowed:.2e}");
        checked += 1;
    }
    let given = c.data.names().filter(|n| n.starts_with("grad.")).count();
    assert_eq!(checked, given, "{name}: every gradient of the reference was compared");

    // A text alone is the text in a batch.
    let mut at = 0;
    for text in &c.texts {
        let alone = model.encoder.forward(&pack(std::slice::from_ref(text)), mode);
        let together = hidden.narrow(0, at, text.len() as i64);
        assert_close(&alone, &together, 1e-5, &format!("{name}: alone against in a batch"));
        at += text.len() as i64;
    }

    // Saved and read again: the same model.
    let out = tempfile::tempdir().unwrap();
    save_encoder(&model, out.path()).unwrap();
    let again = load_encoder(out.path(), Device::Cpu).unwrap();
    assert_eq!(max_diff(&again.encoder.forward(&pack(&c.texts), mode), &hidden), 0.0);

    // bf16 compute stays near.
    let low = model.encoder.forward(&pack(&c.texts), Mode::eval(Compute::Bf16));
    assert_eq!(low.kind(), Kind::Float);
    assert_relative(&low, &hidden, 3e-2, &format!("{name}: bf16"));

    // Dropout draws, and only in training.
    let train = model.encoder.forward(&pack(&c.texts), Mode::train(Compute::F32));
    let drops = name != "modernbert";
    assert_eq!(max_diff(&train, &hidden) > 1e-3, drops, "{name}: dropout");
    model.encoder.set_dropout(Some(0.0), Some(0.0));
    let off = model.encoder.forward(&pack(&c.texts), Mode::train(Compute::F32));
    assert_close(&off, &hidden, 1e-5, &format!("{name}: dropout switched off"));
}

macro_rules! parity {
    ($($name:ident),*) => { $( #[test] fn $name() { let _alone = alone(); check(stringify!($name)); } )* };
}
parity!(
    bert,
    bert_relu,
    roberta,
    xlm_roberta,
    distilbert,
    mpnet,
    modernbert,
    deberta_v2,
    deberta_v3,
    electra,
    electra_wide
);

#[test]
fn layers_are_found_by_name() {
    let _alone = alone();
    for (name, first, second) in [
        ("bert", "encoder.layer.0.output.dense.weight", "encoder.layer.1.output.dense.weight"),
        ("distilbert", "transformer.layer.0.ffn.lin1.weight", "transformer.layer.1.ffn.lin1.weight"),
        ("modernbert", "layers.0.mlp.Wi.weight", "layers.1.mlp.Wi.weight"),
    ] {
        let m = load_encoder(&golden(name), Device::Cpu).unwrap();
        assert!(m.params.get(first).is_some(), "{first}");
        assert_eq!(m.encoder.depth_of(first), Some(1));
        assert_eq!(m.encoder.depth_of(second), Some(2));
        let word = m.params.iter().find(|(n, _)| n.contains("embeddings")).unwrap().0;
        assert_eq!(m.encoder.depth_of(word), Some(0));
    }
}

#[test]
fn a_strange_directory_is_refused_with_a_reason() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let error = |json: &str| {
        std::fs::write(dir.path().join("config.json"), json).unwrap();
        load_encoder(dir.path(), Device::Cpu).unwrap_err().to_string()
    };
    assert!(load_encoder(dir.path(), Device::Cpu).unwrap_err().to_string().contains("no config.json"));
    assert!(error("{").contains("config.json: EOF"));
    assert!(error(r#"{"model_type":"mamba"}"#).contains("encoders: bert"));
    let relative = r#"{"model_type":"bert","position_embedding_type":"relative_key"}"#;
    std::fs::copy(golden("bert").join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    assert!(error(relative).contains("position_embedding_type"), "{}", error(relative));
    assert!(error(r#"{"model_type":"bert","hidden_act":"tanhexp"}"#).contains("tanhexp"));
    let missing = error(
        r#"{"model_type":"bert","vocab_size":61,"hidden_size":32,"num_hidden_layers":3,
        "num_attention_heads":4,"intermediate_size":48,"max_position_embeddings":200}"#,
    );
    assert!(missing.contains("missing: encoder.layer.2."), "{missing}");
}

#[test]
fn a_checkpoint_with_a_head_and_old_names_loads() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden("bert").join("config.json"), dir.path().join("config.json")).unwrap();
    let w = Weights::open_dir(&golden("bert")).unwrap();
    let mut named: Vec<(String, Tensor)> = w
        .names()
        .map(|n| {
            let old =
                n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            (format!("bert.{old}"), w.load(n, Device::Cpu).unwrap())
        })
        .collect();
    named.push(("cls.predictions.bias".into(), Tensor::zeros([61], (Kind::Float, Device::Cpu))));
    ragduet_torch::weights::save_model(dir.path(), &named, 20_000).unwrap();
    let m = load_encoder(dir.path(), Device::Cpu).unwrap();
    assert!(m.report.ignored.contains(&"cls.predictions.bias".to_string()));
}
