//! Models over quantised weights: they compute what their weights' values compute, adapters learn over them, and they are
//! small. A process of its own: the generator and the allocator's counters are global.

use ragduet_nn::peft::{
    Adapter, Base, BottleneckConfig, Ia3Config, LoraConfig, PeftConfig, PrefixConfig, PromptConfig, Targets,
};
use ragduet_nn::{
    EncoderModel, EncoderOptions, FrozenBase, LanguageModel, LmKind, Mode, PackedTokens,
    fresh_language_model, load_encoder, load_encoder_with, load_language_model_over,
    load_quantised_language_model, save_encoder, save_language_model,
};
use ragduet_testkit::{alone, assert_close, assert_relative};
use ragduet_torch::{Bits, Compute, Device, Kind, ParamStore, Tensor, device, grad, no_grad, rng};
use std::path::{Path, PathBuf};

enum Model {
    Lm(Box<LanguageModel>),
    Encoder(Box<EncoderModel>),
}

impl Model {
    fn load(base: &str, bits: Option<Bits>) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(base);
        let model = if base.starts_with("lm/") {
            let mut lm = load_quantised_language_model(&dir, Device::Cpu, bits).unwrap();
            // What is made again in the backward pass goes through the same products.
            if let Some(causal) = lm.causal_mut() {
                causal.set_recompute(true);
            }
            Model::Lm(Box::new(lm))
        } else {
            Model::Encoder(Box::new(
                load_encoder_with(&dir, Device::Cpu, &EncoderOptions { bits, ..EncoderOptions::default() })
                    .unwrap(),
            ))
        };
        model.params().set_trainable(|_| false);
        model
    }

    fn params(&self) -> &ParamStore {
        match self {
            Model::Lm(m) => &m.params,
            Model::Encoder(m) => &m.params,
        }
    }

    fn base(&self) -> Base<'_> {
        match self {
            Model::Lm(m) => m.base(Device::Cpu).unwrap(),
            Model::Encoder(m) => m.base(Device::Cpu).unwrap(),
        }
    }

    /// Texts packed: logits, or hidden states.
    fn run(&self, m: Mode) -> Tensor {
        let texts: [&[u32]; 3] = [&[5, 9, 3, 20, 11], &[7], &[8, 8, 4, 30, 31, 6, 12]];
        let batch = PackedTokens::from_ids(texts, Device::Cpu);
        match self {
            Model::Lm(model) => {
                let hidden = match &model.kind {
                    LmKind::Causal(lm) => lm.forward(&batch, m),
                    LmKind::Seq2Seq(lm) => lm.decode(&batch, &lm.encode(&batch, m), &batch.segments, m),
                };
                model.kind.logits(&hidden, m)
            }
            Model::Encoder(model) => model.encoder.forward(&batch, m),
        }
    }
}

/// The model whose weights are what the codes of `of` stand for.
fn dequantised(base: &str, of: &Model) -> Model {
    let model = Model::load(base, None);
    let _guard = no_grad();
    for (name, q) in of.params().quantised() {
        let mut to = model.params().get(name).unwrap().shallow_clone();
        let values = q.values(Kind::Float);
        // GPT-2 keeps [in, out].
        to.copy_(&if base.ends_with("gpt2") { values.tr() } else { values });
    }
    model
}

fn methods() -> Vec<PeftConfig> {
    let lora = LoraConfig { rank: 3, ..LoraConfig::default() };
    vec![
        PeftConfig::Lora(lora.clone()),
        PeftConfig::Lora(LoraConfig { dora: true, ..lora }),
        PeftConfig::Ia3(Ia3Config::default()),
        PeftConfig::Prompt(PromptConfig { tokens: 4, ..PromptConfig::default() }),
        PeftConfig::Prefix(PrefixConfig { tokens: 4, projection: None }),
        PeftConfig::Bottleneck(BottleneckConfig::default()),
    ]
}

#[test]
fn outputs_and_adapters_gradients_are_those_of_the_values() {
    let _turn = alone();
    let bases =
        ["lm/llama", "lm/qwen3", "lm/gemma3", "lm/gpt2", "lm/gpt_neox", "lm/flan_t5", "bert", "modernbert"];
    for (base, bits) in bases.iter().flat_map(|b| [Bits::Nf4, Bits::Int8, Bits::Bf16].map(|bits| (*b, bits)))
    {
        let what = format!("{base} {}", bits.name());
        let model = Model::load(base, Some(bits));
        let codes = model.params().quantised().count();
        assert!(codes > 5, "{what}: {codes} weights");
        assert!(
            model.params().quantised().all(|(n, _)| !n.contains("head") && !n.contains("embed")),
            "{what}"
        );
        let plain = dequantised(base, &model);
        assert_eq!(model.params().count(), plain.params().count(), "{what}: parameters are counted as such");
        let eval = Mode::eval(Compute::F32);
        assert_close(&model.run(eval), &plain.run(eval), 1e-5, &what);
        {
            let _guard = no_grad();
            assert_close(&model.run(eval), &plain.run(eval), 1e-5, &what);
        }
        for config in methods() {
            let weights_alone = matches!(config, PeftConfig::Lora(_) | PeftConfig::Ia3(_));
            if base.contains("t5") && !weights_alone {
                continue;
            }
            let what = format!("{what}: {}", config.method());
            let [(ours, grads), (want, wanted)] = [&model, &plain].map(|m| {
                rng::seed(3);
                let adapter = Adapter::fresh(m.base(), &config).unwrap();
                // Away from the start, where B is zero.
                for (_, t) in adapter.params.trainable() {
                    let _guard = no_grad();
                    let moved = Tensor::randn_like(&t) * 0.1;
                    let _ = t.shallow_clone().g_add_(&moved);
                }
                let y = m.run(eval.with(Some(adapter.id)));
                rng::seed(4);
                grad::backward(&[y.shallow_clone()], &[Tensor::randn_like(&y)]).unwrap();
                let grads: Vec<_> =
                    adapter.params.trainable().into_iter().map(|(n, t)| (n, t.grad().copy())).collect();
                (y.detach(), grads)
            });
            assert_close(&ours, &want, 2e-5, &what);
            assert!(!grads.is_empty());
            for ((n, g), (_, w)) in grads.iter().zip(&wanted) {
                assert_relative(g, w, 1e-4, &format!("{what}: {n}"));
            }
        }
    }
}

/// What an adapter over a frozen base computes in bf16, and its gradients, to the bit.
#[test]
fn a_base_kept_in_bf16_alone_computes_what_f32_masters_do() {
    let _turn = alone();
    for base in ["lm/llama", "lm/gpt2", "lm/gpt_neox", "lm/flan_t5", "bert", "modernbert"] {
        let [ours, want] = [Some(Bits::Bf16), None].map(|bits| {
            let model = Model::load(base, bits);
            rng::seed(3);
            let adapter = Adapter::fresh(model.base(), &methods()[0]).unwrap();
            for (name, t) in adapter.params.trainable() {
                let _guard = no_grad();
                let _ = t.shallow_clone().g_add_(&(Tensor::randn_like(&t) * 0.1));
                assert!(name.contains("lora"), "{name}");
            }
            let mode = Mode::eval(Compute::Bf16);
            // Before and after the weights of one input are joined.
            let mut out = vec![model.run(mode).detach()];
            {
                let _guard = no_grad();
                out.push(model.run(mode));
            }
            let y = model.run(mode.with(Some(adapter.id)));
            rng::seed(4);
            grad::backward(&[y.shallow_clone()], &[Tensor::randn_like(&y)]).unwrap();
            out.push(y.detach());
            out.extend(adapter.params.trainable().into_iter().map(|(_, t)| t.grad().copy()));
            out
        });
        assert!(ours.len() > 5);
        for (i, (a, b)) in ours.iter().zip(&want).enumerate() {
            assert!(a.equal(b), "{base}: {i}");
        }
    }
}

/// A decoder as an encoder and as a language model, over one folder.
#[test]
fn a_second_model_over_the_same_base_holds_nothing_of_its_own() {
    let _turn = alone();
    for (base, bits) in [("llama", None), ("llama", Some(Bits::Bf16)), ("qwen3", Some(Bits::Int8))] {
        let what = format!("{base} {bits:?}");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(base);
        let options = EncoderOptions { bits, ..EncoderOptions::default() };
        let encoder = load_encoder_with(&dir, Device::Cpu, &options).unwrap();
        let name = dir.display().to_string();
        // What trains is not shared.
        let held = FrozenBase::new(&name, &encoder.params).unwrap();
        let own = load_language_model_over(&dir, Device::Cpu, bits, Some(&held)).unwrap();
        assert_eq!(held.bytes_shared(&own.params) > 0, bits.is_some(), "{what}");
        encoder.params.set_trainable(|_| false);
        let held = FrozenBase::new(&name, &encoder.params).unwrap();
        let lm = load_language_model_over(&dir, Device::Cpu, bits, Some(&held)).unwrap();
        let alone: Vec<&str> = lm
            .params
            .iter()
            .filter(|(_, p)| !encoder.params.iter().any(|(_, e)| e.tensor.data_ptr() == p.tensor.data_ptr()))
            .map(|(n, _)| n)
            .collect();
        assert!(alone.iter().all(|n| n.contains("lm_head")), "{what}: {alone:?}");
        assert!(held.bytes_shared(&lm.params) > 0 && lm.report.missing.is_empty(), "{what}");
        // Another folder is another model.
        let other = dir.parent().unwrap().join(if base == "llama" { "qwen3" } else { "llama" });
        let apart = load_language_model_over(&other, Device::Cpu, bits, Some(&held)).unwrap();
        assert_eq!(held.bytes_shared(&apart.params), 0, "{what}");

        // Each with its own adapter: neither sees the other's, and the language model is what it is alone.
        let plain = load_quantised_language_model(&dir, Device::Cpu, bits).unwrap();
        let mode = Mode::eval(Compute::Bf16);
        let batch = PackedTokens::from_ids([[5u32, 9, 3, 20].as_slice()], Device::Cpu);
        let logits = |m: &LanguageModel, mode: Mode| {
            let hidden = m.causal().unwrap().forward(&batch, mode);
            m.kind.logits(&hidden, mode).detach()
        };
        rng::seed(3);
        let of_encoder = Adapter::fresh(encoder.base(Device::Cpu).unwrap(), &methods()[0]).unwrap();
        for (_, t) in of_encoder.params.trainable() {
            let _guard = no_grad();
            let _ = t.shallow_clone().g_add_(&Tensor::randn_like(&t));
        }
        let _ = Adapter::fresh(lm.base(Device::Cpu).unwrap(), &methods()[0]).unwrap();
        let moved = encoder.encoder.forward(&batch, mode.with(Some(of_encoder.id)));
        let still = encoder.encoder.forward(&batch, mode);
        assert!(!moved.equal(&still), "{what}");
        assert!(logits(&lm, mode).equal(&logits(&plain, mode)), "{what}");
    }
}

#[test]
fn bf16_passes_are_close() {
    let _turn = alone();
    let model = Model::load("lm/llama", Some(Bits::Nf4));
    let wide = model.run(Mode::eval(Compute::F32));
    let off = (model.run(Mode::eval(Compute::Bf16)).to_kind(Kind::Float) - &wide).abs().max();
    let size = wide.abs().max();
    assert!(f64::try_from(off / size).unwrap() < 0.03);
}

fn large(dir: &Path) -> PathBuf {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": true,
    });
    rng::seed(3);
    save_language_model(&fresh_language_model(config, Device::Cpu).unwrap(), dir).unwrap();
    dir.into()
}

#[test]
fn memory_is_that_of_the_codes_also_while_loading() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    let dir = tempfile::tempdir().unwrap();
    let path = large(dir.path());
    // Of bf16's bytes: what is counted and held, and held beside a graph; the peak while loading.
    for (bits, counted, with_graph, while_loading) in
        [(Bits::Nf4, 0.3, 0.4, 0.75), (Bits::Bf16, 1.02, 1.1, 1.4)]
    {
        memory_of(&path, bits, counted, with_graph, while_loading);
    }
}

fn memory_of(path: &Path, bits: Bits, counted: f64, with_graph: f64, while_loading: f64) {
    let before = device::cpu_tensor_memory().unwrap().in_use;
    device::reset_peak(Device::Cpu).unwrap();
    let model = load_quantised_language_model(path, Device::Cpu, Some(bits)).unwrap();
    let memory = device::cpu_tensor_memory().unwrap();
    let bf16 = model.params.count().0 * 2;
    let share = |bytes: u64| bytes as f64 / bf16 as f64;
    let held = || share(device::cpu_tensor_memory().unwrap().in_use - before);
    let peak = share(memory.peak - before);
    let bytes = share(model.params.bytes());
    println!("{} of bf16: counted {bytes}, held {}, peak {peak}", bits.name(), held());
    assert!(bytes < counted, "{bytes}");
    assert!(held() < counted, "{}", held());
    // Beside the codes the largest weight in f32, and what quantizing it takes.
    assert!(peak < while_loading, "{peak}");

    // A step keeps none of the values.
    model.params.set_trainable(|_| false);
    let lora = LoraConfig { rank: 4, targets: Targets::default(), ..LoraConfig::default() };
    let adapter = Adapter::fresh(model.base(Device::Cpu).unwrap(), &PeftConfig::Lora(lora)).unwrap();
    let batch = PackedTokens::from_ids([[5u32, 6, 7, 8].as_slice()], Device::Cpu);
    let lm = model.causal().unwrap();
    let y = lm.forward(&batch, Mode::train(Compute::Bf16).with(Some(adapter.id)));
    assert!(held() < with_graph, "{} with a graph", held());
    y.sum(Kind::Float).backward();
    assert!(adapter.params.iter().all(|(_, p)| p.tensor.grad().defined()));
    drop(y);
    let _guard = no_grad();
    let _ = lm.forward(&batch, Mode::eval(Compute::Bf16));
    assert!(held() < with_graph, "{} after a pass without gradients", held());
}

#[test]
fn what_codes_cannot_do_is_said() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    for base in ["lm/llama", "bert"] {
        let model = Model::load(base, Some(Bits::Int8));
        let e = match &model {
            Model::Lm(m) => save_language_model(m, dir.path()),
            Model::Encoder(m) => save_encoder(m, dir.path()),
        };
        let e = e.unwrap_err().to_string();
        assert!(e.contains("ragduet merge") && e.contains("int8"), "{e}");
        let adapter = Adapter::fresh(model.base(), &methods()[0]).unwrap();
        let e = adapter.merge(model.params()).unwrap_err().to_string();
        assert!(e.contains("without quantisation"), "{e}");
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert");
    assert_eq!(load_encoder(&dir, Device::Cpu).unwrap().params.quantised().count(), 0);
}
