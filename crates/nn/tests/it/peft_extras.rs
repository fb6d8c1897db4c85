//! What is done with adapters beyond running them, against peft: PiSSA, biases, combinations; merging and taking it back.
//! Goldens and their script lie in `golden/peft_extras/`.

use ragduet_nn::peft::{Adapter, Combination, LoraBias, LoraConfig, LoraInit, PeftConfig, Targets, TaskType};
use ragduet_nn::{LanguageModel, Mode, PackedTokens, load_language_model, load_quantised_language_model};
use ragduet_testkit::{alone, assert_close, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Bits, Compute, Device, Tensor, grad, no_grad};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn base(name: &str) -> LanguageModel {
    let model = load_language_model(&golden(name), Device::Cpu).unwrap();
    model.params.set_trainable(|_| false);
    model
}

fn run(model: &LanguageModel, texts: &[Vec<u32>], adapter: Option<&Adapter>, compute: Compute) -> Tensor {
    let m = Mode::eval(compute).with(adapter.map(|a| a.id));
    let lm = model.causal().unwrap();
    let batch = PackedTokens::from_ids(texts.iter().map(Vec::as_slice), Device::Cpu);
    model.kind.logits(&lm.forward(&batch, m), m)
}

fn texts_of(data: &Weights, lengths: &[i64]) -> Vec<Vec<u32>> {
    let ids = Vec::<i64>::try_from(&data.load_as_is("ids").unwrap()).unwrap();
    let mut at = 0;
    let cut = |&l: &i64| {
        at += l as usize;
        ids[at - l as usize..at].iter().map(|&i| i as u32).collect()
    };
    lengths.iter().map(cut).collect()
}

fn names(list: &[&str]) -> Targets {
    Targets::Names(list.iter().map(|s| s.to_string()).collect())
}

fn pissa(name: &str) -> LoraConfig {
    let lora = LoraConfig { rank: 3, alpha: 5.0, init: LoraInit::Pissa, ..LoraConfig::default() };
    if name == "dora_llama" {
        return LoraConfig { targets: names(&["q_proj", "down_proj"]), dora: true, ..lora };
    }
    if name == "llama" {
        let rank_pattern = [("down_proj".to_string(), 2)].into();
        LoraConfig { targets: names(&["q_proj", "down_proj"]), rank_pattern, ..lora }
    } else {
        LoraConfig { targets: names(&["c_attn", "mlp.c_proj"]), rank_stabilized: true, ..lora }
    }
}

#[test]
fn pissa_starts_trains_and_is_saved_as_pefts() {
    let _alone = alone();
    for name in ["llama", "gpt2", "dora_llama"] {
        let dir = golden("peft_extras").join(format!("pissa_{name}"));
        let data = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
        let load = |n: &str| data.load(n, Device::Cpu).unwrap();
        let texts = texts_of(&data, &[9, 4]);
        let model = base(&format!("lm/{}", name.trim_start_matches("dora_")));
        let before: Vec<(String, Tensor)> =
            model.params.named().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let adapter =
            Adapter::fresh(model.base(Device::Cpu).unwrap(), &PeftConfig::Lora(pissa(name))).unwrap();
        let start = run(&model, &texts, Some(&adapter), Compute::F32);
        assert_close(&start, &load("plain"), 1e-5, &format!("{name}: nothing changes at the start"));
        assert_close(&start, &load("start"), 1e-5, &format!("{name}: the start"));
        // Also in bf16, where the difference of two products would have their rounding.
        let half = |a| run(&model, &texts, a, Compute::Bf16);
        assert_eq!(max_diff(&half(Some(&adapter)), &half(None)), 0.0, "{name}");

        let probe = load("probe");
        for _ in 0..4 {
            let y = run(&model, &texts, Some(&adapter), Compute::F32);
            grad::backward(&[y], &[&probe / probe.numel() as f64]).unwrap();
            let _guard = no_grad();
            for (_, t) in adapter.params.trainable() {
                let step = t.grad() * 0.5;
                let _ = t.shallow_clone().g_sub_(&step);
                let _ = t.grad().zero_();
            }
        }
        let _guard = no_grad();
        let trained = run(&model, &texts, Some(&adapter), Compute::F32);
        assert_close(&trained, &load("trained"), 2e-4, &format!("{name}: after steps"));

        let out = tempfile::tempdir().unwrap();
        adapter.save(out.path(), TaskType::CausalLm, "somewhere").unwrap();
        let again = Adapter::load(model.base(Device::Cpu).unwrap(), out.path()).unwrap();
        assert_close(
            &run(&model, &texts, Some(&again), Compute::F32),
            &trained,
            1e-5,
            &format!("{name}: saved"),
        );
        check_conversion(
            name,
            &model,
            &texts,
            (&adapter, &again),
            (dir.as_path(), out.path()),
            &load("trained"),
        );

        for (n, old) in before {
            assert_eq!(max_diff(model.params.get(&n).unwrap(), &old), 0.0, "{name}: {n} moved");
        }
        let merged = adapter.merge_reversibly(&model.params).unwrap();
        assert_close(&run(&model, &texts, None, Compute::F32), &trained, 1e-4, &format!("{name}: merged"));
        merged.undo();
    }
}

/// peft's conversion, and ours, are LoRAs of twice the rank over the base as it is.
fn check_conversion(
    name: &str,
    model: &LanguageModel,
    texts: &[Vec<u32>],
    (adapter, again): (&Adapter, &Adapter),
    (dir, out): (&Path, &Path),
    trained: &Tensor,
) {
    if name.starts_with("dora") {
        // peft's conversion loses the magnitudes.
        assert_eq!(adapter.tensors().len(), again.tensors().len());
        return;
    }
    let theirs = Adapter::load(model.base(Device::Cpu).unwrap(), dir).unwrap();
    assert_close(&run(model, texts, Some(&theirs), Compute::F32), trained, 2e-4, name);
    let shapes = |a: &Adapter| {
        let mut all: Vec<_> = a.tensors().into_iter().map(|(n, t)| (n, t.size())).collect();
        all.sort();
        all
    };
    assert_eq!(shapes(again), shapes(&theirs), "{name}");
    let json = |d: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(d.join("adapter_config.json")).unwrap()).unwrap()
    };
    let (a, b) = (json(out), json(dir));
    for key in ["r", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "fan_in_fan_out"] {
        assert_eq!(a[key], b[key], "{name}: {key}");
    }
    assert!((a["lora_alpha"].as_f64().unwrap() - b["lora_alpha"].as_f64().unwrap()).abs() < 1e-9);
}

#[test]
fn pissa_over_four_bits_changes_nothing_at_the_start() {
    let _alone = alone();
    let dir = golden("lm/llama");
    let model = load_quantised_language_model(&dir, Device::Cpu, Some(Bits::Nf4)).unwrap();
    let adapter =
        Adapter::fresh(model.base(Device::Cpu).unwrap(), &PeftConfig::Lora(pissa("llama"))).unwrap();
    let texts = [vec![5u32, 9, 3, 20], vec![7]];
    let off = max_diff(
        &run(&model, &texts, Some(&adapter), Compute::F32),
        &run(&model, &texts, None, Compute::F32),
    );
    assert!(off < 1e-5, "{off}");
}

#[test]
fn combinations_are_pefts() {
    let _alone = alone();
    let dir = golden("peft_extras/combine");
    let data = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
    let texts = texts_of(&data, &[11]);
    let model = base("lm/llama");
    let place = || model.base(Device::Cpu).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|n| Adapter::load(place(), &dir.join(n)).unwrap());
    type Case<'a> = (&'a str, Vec<(&'a Adapter, f64)>, Combination);
    let cases: [Case<'_>; 5] = [
        ("linear", vec![(&a, 0.7), (&b, -0.3)], Combination::Linear),
        ("cat", vec![(&a, 0.7), (&c, 0.4)], Combination::Cat),
        ("cat_negative", vec![(&a, 0.7), (&b, -0.4), (&c, 1.3)], Combination::Cat),
        ("svd", vec![(&a, 0.7), (&c, 0.4)], Combination::Svd(Some(2))),
        ("svd_full", vec![(&a, 0.5), (&b, 0.4), (&c, -0.2)], Combination::Svd(Some(8))),
    ];
    let still = run(&model, &texts, None, Compute::F32);
    for (name, parts, how) in cases {
        let whole = Adapter::combined(place(), &parts, how).unwrap();
        let want = data.load(name, Device::Cpu).unwrap();
        assert_close(&run(&model, &texts, Some(&whole), Compute::F32), &want, 1e-4, name);
        assert!(max_diff(&want, &still) > 1e-2, "{name} matters");
        let out = tempfile::tempdir().unwrap();
        whole.save(out.path(), TaskType::CausalLm, "somewhere").unwrap();
        let again = Adapter::load(place(), out.path()).unwrap();
        let off = max_diff(
            &run(&model, &texts, Some(&again), Compute::F32),
            &run(&model, &texts, Some(&whole), Compute::F32),
        );
        assert_eq!(off, 0.0, "{name}: saved and read again");
    }
    let e = |parts: &[(&Adapter, f64)], how| Adapter::combined(place(), parts, how).unwrap_err().to_string();
    assert!(e(&[(&a, 1.0), (&c, 1.0)], Combination::Linear).contains("ranks differ"));
    assert!(e(&[], Combination::Cat).contains("none"));
    assert!(e(&[(&a, f64::NAN)], Combination::Cat).contains("numbers"));
    let dora = LoraConfig { dora: true, ..LoraConfig::default() };
    let dora = Adapter::fresh(place(), &PeftConfig::Lora(dora)).unwrap();
    assert!(e(&[(&a, 1.0), (&dora, 1.0)], Combination::Cat).contains("DoRA"));
}

#[test]
fn a_merge_taken_back_leaves_the_base_bit_for_bit() {
    let _alone = alone();
    for (name, config) in [
        ("lm/llama", LoraConfig { rank: 2, ..LoraConfig::default() }),
        ("lm/gpt2", LoraConfig { rank: 2, bias: LoraBias::LoraOnly, ..LoraConfig::default() }),
        (
            "lm/llama",
            LoraConfig { dora: true, targets: names(&["q_proj", "up_proj"]), ..LoraConfig::default() },
        ),
    ] {
        let model = base(name);
        let before: Vec<(String, Tensor)> =
            model.params.named().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let adapter = Adapter::fresh(model.base(Device::Cpu).unwrap(), &PeftConfig::Lora(config)).unwrap();
        let _guard = no_grad();
        for (_, t) in adapter.params.trainable() {
            let moved = Tensor::randn_like(&t) * 0.2;
            let _ = t.shallow_clone().g_add_(&moved);
        }
        let texts = [vec![5u32, 9, 3, 20], vec![7]];
        let (plain, want) =
            (run(&model, &texts, None, Compute::F32), run(&model, &texts, Some(&adapter), Compute::F32));
        let merged = adapter.merge_reversibly(&model.params).unwrap();
        assert_close(&run(&model, &texts, None, Compute::F32), &want, 1e-4, name);
        merged.undo();
        assert_eq!(max_diff(&run(&model, &texts, None, Compute::F32), &plain), 0.0, "{name}");
        for (n, old) in before {
            assert!(model.params.get(&n).unwrap().equal(&old), "{name}: {n}");
        }
        adapter.merge_reversibly(&model.params).unwrap().keep();
        assert_close(&run(&model, &texts, None, Compute::F32), &want, 1e-4, name);
    }
}

/// Adapters of all kinds stay resident over one base; a pass names one, and sees nothing of the others.
#[test]
fn adapters_take_turns_over_one_base() {
    let _alone = alone();
    let dir = |name: &str| golden("peft").join(name);
    let names = ["lora_llama", "dora_llama", "ia3_llama", "prompt_llama", "prefix_llama", "bn_houlsby_llama"];
    let texts = [vec![5u32, 9, 3, 20], vec![7]];
    let model = base("lm/llama");
    let place = || model.base(Device::Cpu).unwrap();
    let f32 = |model: &LanguageModel, a: Option<&Adapter>| run(model, &texts, a, Compute::F32);
    let before: Vec<(String, Tensor)> =
        model.params.named().into_iter().map(|(n, t)| (n, t.copy())).collect();
    let _guard = no_grad();
    let plain = f32(&model, None);
    // What each gives over a base of its own.
    let alone = names.map(|n| {
        let model = base("lm/llama");
        let a = Adapter::load(model.base(Device::Cpu).unwrap(), &dir(n)).unwrap();
        f32(&model, Some(&a))
    });
    let mut all: Vec<Adapter> = names.iter().map(|n| Adapter::load(place(), &dir(n)).unwrap()).collect();
    for (i, want) in alone.iter().enumerate() {
        for other in 0..names.len() {
            // A, B, none, A.
            assert!(f32(&model, Some(&all[i])).equal(want), "{}", names[i]);
            assert!(f32(&model, Some(&all[other])).equal(&alone[other]), "{}", names[other]);
            assert!(f32(&model, None).equal(&plain));
        }
        assert!(max_diff(want, &plain) > 1e-2, "{} matters", names[i]);
    }
    // In bf16 as well, where operands are kept between passes; and one that goes leaves the others as they are.
    let half = |a: &Adapter| run(&model, &texts, Some(a), Compute::Bf16);
    let first = half(&all[1]);
    let _ = half(&all[0]);
    drop(all.remove(0));
    assert!(half(&all[0]).equal(&first));
    assert!(f32(&model, Some(&all[0])).equal(&alone[1]));
    all.clear();
    assert!(f32(&model, None).equal(&plain));
    for (n, old) in before {
        assert!(model.params.get(&n).unwrap().equal(&old), "{n} moved");
    }
}

#[test]
fn layers_are_chosen_by_number() {
    let _alone = alone();
    let model = base("lm/llama");
    let make = |layers: Vec<u32>| {
        let lora = LoraConfig { layers, targets: names(&["q_proj", "up_proj"]), ..LoraConfig::default() };
        Adapter::fresh(model.base(Device::Cpu).unwrap(), &PeftConfig::Lora(lora))
    };
    let adapter = make(vec![1]).unwrap();
    assert_eq!(adapter.modules(), ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"]);
    let out = tempfile::tempdir().unwrap();
    adapter.save(out.path(), TaskType::CausalLm, "somewhere").unwrap();
    let again = Adapter::load(model.base(Device::Cpu).unwrap(), out.path()).unwrap();
    assert_eq!(again.modules(), adapter.modules());
    assert!(make(vec![77]).unwrap_err().to_string().contains("77"));
}
