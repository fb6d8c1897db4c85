//! Adapters against peft: outputs and gradients, the folders both ways, merging, and that several over one base do not
//! touch each other. Goldens and their script lie in `golden/peft/`.

use crate::goldens;

use ragduet_nn::peft::{
    Adapter, BottleneckConfig, BottleneckKind, Ia3Config, LoraConfig, PeftConfig, PrefixConfig, PromptConfig,
    PromptInit, TaskType,
};
use ragduet_nn::{
    EncoderModel, LanguageModel, LmKind, Mode, PackedTokens, load_encoder, load_language_model,
};
use ragduet_testkit::{alone, assert_close, assert_relative, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, ParamStore, Tensor, grad, no_grad};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

enum Model {
    Lm(Box<LanguageModel>),
    Encoder(Box<EncoderModel>),
}

impl Model {
    fn load(base: &str) -> Self {
        let dir = golden(base);
        if base.starts_with("lm/") {
            Model::Lm(Box::new(load_language_model(&dir, Device::Cpu).unwrap()))
        } else {
            Model::Encoder(Box::new(load_encoder(&dir, Device::Cpu).unwrap()))
        }
    }

    fn base(&self) -> ragduet_nn::peft::Base<'_> {
        match self {
            Model::Lm(m) => m.base(Device::Cpu).unwrap(),
            Model::Encoder(m) => m.base(Device::Cpu).unwrap(),
        }
    }

    fn params(&self) -> &ParamStore {
        match self {
            Model::Lm(m) => &m.params,
            Model::Encoder(m) => &m.params,
        }
    }

    /// Logits, or hidden states.
    fn run(&self, texts: &[Vec<u32>], m: Mode) -> Tensor {
        let batch = PackedTokens::from_ids(texts.iter().map(Vec::as_slice), Device::Cpu);
        match self {
            Model::Lm(model) => {
                let hidden = match &model.kind {
                    LmKind::Causal(lm) => lm.forward(&batch, m),
                    // What it reads is what it writes.
                    LmKind::Seq2Seq(lm) => lm.decode(&batch, &lm.encode(&batch, m), &batch.segments, m),
                };
                model.kind.logits(&hidden, m)
            }
            Model::Encoder(model) => model.encoder.forward(&batch, m),
        }
    }
}

fn eval(a: &Adapter) -> Mode {
    Mode::eval(Compute::F32).with(Some(a.id))
}

fn plain() -> Mode {
    Mode::eval(Compute::F32)
}

fn cases() -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(golden("peft"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

fn texts_of(data: &Weights) -> Vec<Vec<u32>> {
    let ints = |n: &str| Vec::<i64>::try_from(&data.load_as_is(n).unwrap()).unwrap();
    let (ids, mut at) = (ints("ids"), 0);
    let cut = |l: i64| {
        at += l as usize;
        ids[at - l as usize..at].iter().map(|&i| i as u32).collect()
    };
    ints("lengths").into_iter().map(cut).collect()
}

#[test]
fn outputs_and_gradients_equal_pefts() {
    let _alone = alone();
    let cases = cases();
    assert!(cases.len() >= 54);
    for name in cases {
        let dir = golden("peft").join(&name);
        let model = Model::load(&ragduet_nn::peft::base_of(&dir).unwrap());
        let adapter = Adapter::load(model.base(), &dir).unwrap();
        let data = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
        let texts = texts_of(&data);
        model.params().set_trainable(|_| false);
        let ours = model.run(&texts, eval(&adapter));
        let want = data.load("outputs", Device::Cpu).unwrap();
        assert_close(&ours, &want, 5e-5, &name);
        assert!(max_diff(&model.run(&texts, plain()), &want) > 1e-2, "{name}: the adapter matters");

        grad::backward(&[ours], &[data.load("probe", Device::Cpu).unwrap()]).unwrap();
        let mut compared = 0;
        for (parameter, p) in adapter.params.iter() {
            let Ok(want) = data.load(&format!("grad.{parameter}"), Device::Cpu) else { continue };
            compared += 1;
            if parameter.ends_with(".key.bias") {
                // Softmax does not see it: what both have is rounding.
                assert!(max_diff(&p.tensor.grad(), &want.zeros_like()) < 1e-3, "{name}: {parameter}");
                continue;
            }
            assert_relative(&p.tensor.grad(), &want, 1e-3, &format!("{name}: gradient of {parameter}"));
        }
        let given = data.names().filter(|n| n.starts_with("grad.")).count();
        assert_eq!(compared, given, "{name}: every gradient of the reference was compared");
        assert!(given > 0 || name.contains("projected"), "{name}");
        assert!(
            model.params().iter().all(|(_, p)| !p.tensor.grad().defined()),
            "{name}: the base has gradients"
        );
        check_cache(&name, &model, &adapter, &texts);
        check_saved(&name, &model, &adapter, &texts);
        check_merged(&name, &model, adapter, &texts);
    }
}

/// Prompt in one go, then token by token, equals the pass without a cache.
fn check_cache(name: &str, model: &Model, adapter: &Adapter, texts: &[Vec<u32>]) {
    let Model::Lm(model) = model else { return };
    let _guard = no_grad();
    let Some(lm) = model.causal() else { return check_answers(name, model, adapter, texts) };
    let m = eval(adapter);
    for text in texts.iter().filter(|t| t.len() > 6) {
        let whole = lm.forward(&PackedTokens::from_ids([text.as_slice()], Device::Cpu), m);
        let mut cache = lm.new_cache(2, 8, m, Device::Cpu);
        let cut = text.len() - 4;
        let mut rows = Vec::new();
        let both = PackedTokens::from_ids([&text[..cut], &text[..2]], Device::Cpu);
        rows.push(lm.extend(&both, &mut cache).narrow(0, 0, cut as i64));
        for i in cut..text.len() {
            let both = PackedTokens::from_ids([&text[i..=i], &text[2..3]], Device::Cpu);
            rows.push(lm.extend(&both, &mut cache).narrow(0, 0, 1));
        }
        assert_close(&Tensor::cat(&rows, 0), &whole, 2e-5, &format!("{name}: with a cache"));
    }
}

/// Answers token by token, two to a source and in another order, equal the pass without a cache.
fn check_answers(name: &str, model: &LanguageModel, adapter: &Adapter, texts: &[Vec<u32>]) {
    let Some(lm) = model.seq2seq() else { return };
    let m = eval(adapter);
    let pack = |texts: &[&[u32]]| PackedTokens::from_ids(texts.iter().copied(), Device::Cpu);
    let (a, b) = (texts[1].as_slice(), texts[3].as_slice());
    let sources = pack(&[b, a]);
    let mut cache = lm.start_cache(&lm.encode(&sources, m), &sources.segments, 2, m);
    let mut last = lm.extend(&pack(&[&b[..3], &a[..2]]), &mut cache);
    cache.reorder(&[1, 0, 1]);
    for i in 0..3 {
        last = lm.extend(&pack(&[&a[2 + i..=2 + i], &b[3 + i..=3 + i], &b[i..=i]]), &mut cache);
    }
    let other = [&a[..2], &b[..3]].concat();
    let answers: [(&[u32], &[u32]); 3] = [(a, &a[..5]), (b, &b[..6]), (a, &other)];
    for (i, (source, answer)) in answers.into_iter().enumerate() {
        let source = pack(&[source]);
        let whole = lm.decode(&pack(&[answer]), &lm.encode(&source, m), &source.segments, m);
        let want = whole.narrow(0, answer.len() as i64 - 1, 1);
        assert_relative(&last.narrow(0, i as i64, 1), &want, 2e-5, &format!("{name}: with a cache"));
    }
}

fn check_saved(name: &str, model: &Model, adapter: &Adapter, texts: &[Vec<u32>]) {
    let _guard = no_grad();
    let out = tempfile::tempdir().unwrap();
    let task = match model {
        Model::Lm(m) if m.causal().is_some() => TaskType::CausalLm,
        Model::Lm(_) => TaskType::Seq2SeqLm,
        Model::Encoder(_) => TaskType::FeatureExtraction,
    };
    adapter.save(out.path(), task, "somewhere").unwrap();
    assert_eq!(ragduet_nn::peft::base_of(out.path()).unwrap(), "somewhere");
    let again = Adapter::load(model.base(), out.path()).unwrap();
    let off = max_diff(&model.run(texts, eval(&again)), &model.run(texts, eval(adapter)));
    assert_eq!(off, 0.0, "{name}: saved and read again");
}

fn check_merged(name: &str, model: &Model, adapter: Adapter, texts: &[Vec<u32>]) {
    let _guard = no_grad();
    let want = model.run(texts, eval(&adapter));
    let merged = adapter.merge(model.params());
    if ["prompt", "prefix", "bn_"].iter().any(|p| name.starts_with(p)) {
        assert!(merged.is_err(), "{name}");
        return;
    }
    merged.unwrap_or_else(|e| panic!("{name}: {e}"));
    drop(adapter);
    assert_close(&model.run(texts, plain()), &want, 5e-5, &format!("{name}: merged"));
}

fn texts() -> Vec<Vec<u32>> {
    vec![vec![5, 9, 3, 20, 11], vec![7], vec![8, 8, 4, 30, 31, 6, 12]]
}

fn methods() -> Vec<PeftConfig> {
    let lora = LoraConfig { rank: 3, ..LoraConfig::default() };
    vec![
        PeftConfig::Lora(lora.clone()),
        PeftConfig::Lora(LoraConfig { dora: true, ..lora }),
        PeftConfig::Ia3(Ia3Config::default()),
        PeftConfig::Prompt(PromptConfig { tokens: 4, ..PromptConfig::default() }),
        PeftConfig::Prefix(PrefixConfig { tokens: 4, projection: None }),
        PeftConfig::Prefix(PrefixConfig { tokens: 4, projection: Some(8) }),
        PeftConfig::Bottleneck(BottleneckConfig {
            kind: BottleneckKind::Houlsby,
            ..BottleneckConfig::default()
        }),
        PeftConfig::Bottleneck(BottleneckConfig::default()),
        PeftConfig::Bottleneck(BottleneckConfig {
            kind: BottleneckKind::Parallel,
            ..BottleneckConfig::default()
        }),
    ]
}

const ENCODERS: [&str; 6] = ["bert", "roberta", "distilbert", "mpnet", "modernbert", "xlm_roberta"];

/// A golden of each language model, and T5 with a head of its own.
fn language_models() -> Vec<String> {
    let each = goldens::one_of_each(|_| true).into_iter().chain(["t5".into()]);
    let mut all: Vec<String> = each.map(|name| format!("lm/{name}")).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn every_method_works_on_every_architecture() {
    let _alone = alone();
    let encoders = ENCODERS.map(String::from);
    for base in language_models().into_iter().chain(encoders) {
        let model = Model::load(&base);
        model.params().set_trainable(|_| false);
        let before: Vec<(String, Tensor)> =
            model.params().named().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let still = model.run(&texts(), plain());
        let all: Vec<Adapter> = methods()
            .iter()
            .map(|c| Adapter::fresh(model.base(), c).unwrap_or_else(|e| panic!("{base}: {e}")))
            .collect();
        for adapter in &all {
            let what = format!("{base}: {}", adapter.config.method());
            let start = model.run(&texts(), eval(adapter));
            let identity = match &adapter.config {
                PeftConfig::Lora(_) | PeftConfig::Ia3(_) => true,
                PeftConfig::Bottleneck(c) => c.kind == BottleneckKind::Parallel,
                _ => false,
            };
            if !identity {
                assert!(max_diff(&start, &still) > 1e-7, "{what}: matters");
            } else {
                assert_close(&start, &still, 1e-5, &format!("{what}: nothing changes at the start"));
            }
            // A step along the gradient lowers the loss.
            let loss = |m| model.run(&texts(), m).square().mean(ragduet_torch::Kind::Float);
            let first = loss(eval(adapter));
            first.backward();
            let _guard = no_grad();
            let grads: Vec<Tensor> = adapter.params.trainable().iter().map(|(_, t)| t.grad()).collect();
            let norm = grad::norm(&grads).unwrap();
            for (name, t) in adapter.params.trainable() {
                let g = t.grad();
                assert!(g.defined(), "{what}: {name} has no gradient");
                let mut t = t;
                let _ = t.g_sub_(&(g * (1e-2 / norm)));
            }
            let second = loss(eval(adapter));
            assert!(f64::try_from(&second).unwrap() < f64::try_from(&first).unwrap(), "{what}");
            // Texts alone and packed.
            let packed = model.run(&texts(), eval(adapter));
            let alone: Vec<Tensor> =
                texts().iter().map(|t| model.run(std::slice::from_ref(t), eval(adapter))).collect();
            assert_relative(&Tensor::cat(&alone, 0), &packed, 2e-5, &format!("{what}: packed"));
        }
        assert_eq!(max_diff(&model.run(&texts(), plain()), &still), 0.0, "{base}: adapters leak");
        for (name, old) in before {
            assert_eq!(max_diff(model.params().get(&name).unwrap(), &old), 0.0, "{base}: {name} moved");
        }
    }
}

/// Also where the model multiplies its embeddings.
#[test]
fn a_prompt_that_starts_as_tokens_is_those_tokens() {
    let _alone = alone();
    let _guard = no_grad();
    for base in ["lm/llama", "lm/gpt2", "lm/gemma3"] {
        let model = Model::load(base);
        let config = PromptConfig { tokens: 2, init: PromptInit::Tokens(vec![5, 9]) };
        let adapter = Adapter::fresh(model.base(), &PeftConfig::Prompt(config)).unwrap();
        let with_prompt = model.run(&[vec![3, 7, 8, 20]], eval(&adapter));
        let with_tokens = model.run(&[vec![5, 9, 3, 7, 8, 20]], plain()).narrow(0, 2, 4);
        assert_close(&with_prompt, &with_tokens, 1e-5, base);
    }
}

#[test]
fn folders_that_do_not_fit_are_errors() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str, edit: &dyn Fn(&mut serde_json::Value)| {
        let from = golden("peft").join(name);
        std::fs::copy(from.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors"))
            .unwrap();
        let text = std::fs::read(from.join("adapter_config.json")).unwrap();
        let mut json = serde_json::from_slice(&text).unwrap();
        edit(&mut json);
        std::fs::write(dir.path().join("adapter_config.json"), serde_json::to_vec(&json).unwrap()).unwrap();
        let model = Model::load("lm/llama");
        Adapter::load(model.base(), dir.path()).map(drop).unwrap_err().to_string()
    };
    for (name, key, value, words) in [
        ("lora_llama", "peft_type", serde_json::json!("BOFT"), "BOFT"),
        ("lora_llama", "r", serde_json::json!(4), "wrong shape"),
        ("lora_llama", "target_modules", serde_json::json!(["q_proj"]), "unexpected"),
        (
            "dora_llama",
            "target_modules",
            serde_json::json!(["q_proj", "v_proj", "down_proj", "up_proj"]),
            "missing",
        ),
        ("dora_llama", "target_modules", serde_json::json!(["q_prj"]), "q_prj"),
        ("lora_llama", "bias", serde_json::json!("some"), "bias"),
        // Whole paths, as of lora_llama, are meant wherever they are.
        ("dora_llama", "layers_to_transform", serde_json::json!([0]), "unexpected"),
        ("lora_tokens_llama", "layers_pattern", serde_json::json!("block"), "layers"),
        ("lora_tokens_llama", "trainable_token_indices", serde_json::json!([5, 9, 5000]), "5000"),
        ("lora_tokens_llama", "trainable_token_indices", serde_json::json!({"words": [5]}), "`words`"),
        ("lora_tokens_llama", "trainable_token_indices", serde_json::json!("all"), "trainable_token_indices"),
        ("lora_tokens_llama", "trainable_token_indices", serde_json::Value::Null, "unexpected"),
        ("lora_llama", "layers_to_transform", serde_json::json!(["x"]), "layers_to_transform"),
        ("prefix_llama", "num_virtual_tokens", serde_json::json!(7), "prompt_embeddings"),
    ] {
        let e = copy(name, &|json| json[key] = value.clone());
        assert!(e.contains(words), "{name} {key}: {e}");
    }
}

#[test]
fn recomputed_layers_give_an_adapter_the_same_gradients() {
    let _alone = alone();
    for base in goldens::one_of_each(|spec| spec.is_decoder_only()) {
        let Model::Lm(mut model) = Model::load(&format!("lm/{base}")) else { panic!("a language model") };
        model.params.set_trainable(|_| false);
        for config in methods() {
            let adapter = Adapter::fresh(model.base(Device::Cpu).unwrap(), &config).unwrap();
            let mut gradients = Vec::new();
            for recompute in [false, true] {
                let lm = model.causal_mut().unwrap();
                lm.set_recompute(recompute);
                let batch = PackedTokens::from_ids(texts().iter().map(Vec::as_slice), Device::Cpu);
                lm.forward(&batch, eval(&adapter)).square().sum(ragduet_torch::Kind::Float).backward();
                let all: Vec<Tensor> =
                    adapter.params.trainable().iter().map(|(_, t)| t.grad().copy()).collect();
                adapter.params.trainable().iter().for_each(|(_, t)| drop(t.grad().zero_()));
                gradients.push(all);
            }
            for (a, b) in gradients[0].iter().zip(&gradients[1]) {
                // Gradients are sums of large terms: rounding is in proportion to the tensor, not to the element.
                let size = f64::try_from(a.abs().max()).unwrap();
                assert!(
                    max_diff(a, b) <= 1e-5 * size.max(1.0),
                    "{base}: {}: {}",
                    config.method(),
                    max_diff(a, b)
                );
            }
        }
    }
}
