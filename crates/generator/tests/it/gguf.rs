//! GGUF files of every family: read as transformers, tokenizers and SentencePiece have them (`golden/gguf/make_gguf.py`), and
//! written.

use ragduet_generator::Generator;
use ragduet_gguf::{Array, GgufFile, GgufWriter, TensorPlan, TensorType, Value};
use ragduet_nn::peft::PeftConfig;
use ragduet_nn::{Mode, PackedTokens};
use ragduet_testkit::assert_close;
use ragduet_text::EncodeOptions;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor, no_grad};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 5] = ["llama", "llama_spm", "qwen2", "qwen3", "gemma3"];
const F32: Compute = Compute::F32;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

fn load(path: &Path) -> Generator {
    Generator::load(path, Device::Cpu, F32).unwrap()
}

fn file(family: &str) -> PathBuf {
    golden(&format!("{family}.gguf"))
}

fn cases() -> Json {
    serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap()
}

fn logits(generator: &Generator, ids: &[u32]) -> Tensor {
    let _guard = no_grad();
    let lm = generator.model.causal().unwrap();
    let hidden = lm.forward(&PackedTokens::from_ids([ids], Device::Cpu), Mode::eval(F32));
    lm.logits(&hidden, Mode::eval(F32))
}

/// Ids of a text, special tokens parsed and, with `around`, put around it.
fn ids(generator: &Generator, text: &str, around: bool) -> Vec<u32> {
    let options = EncodeOptions { strip: false, add_special_tokens: around, ..EncodeOptions::default() };
    generator.tokenizer.encode(text, &options).unwrap().ids
}

fn numbers(json: &Json) -> Vec<u32> {
    serde_json::from_value(json.clone()).unwrap()
}

#[test]
fn every_family_is_read_as_it_was_before_it_was_converted() {
    let (cases, wanted) = (cases(), Weights::open_file(&golden("logits.safetensors")).unwrap());
    for family in FAMILIES {
        let generator = load(&file(family));
        let case = &cases[family];
        for (text, wanted) in case["texts"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap()) {
            let text = text.as_str().unwrap();
            assert_eq!(ids(&generator, text, false), numbers(wanted), "{family}: {text:?}");
        }
        let ours = logits(&generator, &numbers(&case["ids"][0]));
        assert_close(&ours, &wanted.load(family, Device::Cpu).unwrap(), 1e-4, family);
        for key in [
            "model_type",
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
            "rms_norm_eps",
            "tie_word_embeddings",
            "attention_bias",
            "layer_types",
            "rope_parameters",
        ] {
            // Not every family has every key; Qwen2's heads are always hidden size over heads.
            if let (Some(ours), Some(theirs)) = (generator.model.config.get(key), case["config"].get(key))
                && !(key == "head_dim" && theirs.is_null())
            {
                assert_eq!(ours, theirs, "{family}: {key}");
            }
        }
    }
}

#[test]
fn special_tokens_ends_and_templates_are_read() {
    let llama = load(&file("llama"));
    assert_eq!(ids(&llama, "hi", true)[0], 0, "Llama 3 begins a text");
    assert_eq!(llama.eos(), [1, 3], "the end of a text, then of a turn");
    assert_eq!(llama.tokenizer.special_ids().all, [0, 1, 2, 3]);
    let template = llama.tokenizer.chat_template().unwrap().unwrap();
    let text = template.render(&[ragduet_text::message("user", "hi")], None, true).unwrap().text;
    assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    let gemma = load(&file("gemma3"));
    let ends: Vec<String> = gemma.eos().iter().map(|&id| gemma.tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!(ends, ["</s>", "<end_of_turn>"]);
    for family in FAMILIES {
        let generator = load(&file(family));
        let text = "The generator answers, 12 times.";
        let back = generator.tokenizer.decode(&ids(&generator, text, true), true).unwrap();
        assert_eq!(back, text, "{family}");
    }
}

#[test]
fn what_is_written_is_read_again_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let from = load(&file(family));
        let ids_of = |g: &Generator| ids(g, "  Two spaces, 2024\n\nand 'll 🚀 <|im_end|>", true);
        // By way of a Hugging Face folder.
        let folder = dir.path().join(family);
        from.save(&folder).unwrap();
        for (kind, tolerance) in [
            (TensorType::F32, 1e-5),
            (TensorType::F16, 0.1),
            (TensorType::Bf16, 0.8),
            (TensorType::Q8_0, 0.8),
        ] {
            let path = dir.path().join(format!("{family}.{kind}.gguf"));
            let notes = load(&folder).save_gguf(&path, kind, "tiny").unwrap();
            let no_template = from.tokenizer.chat_template().unwrap().is_none();
            assert_eq!(notes.len(), usize::from(family == "qwen2") + usize::from(no_template), "{notes:?}");
            let again = load(&path);
            assert_eq!(ids_of(&again), ids_of(&from), "{family} {kind}");
            assert_eq!(again.eos(), from.eos(), "{family}");
            assert_eq!(again.tokenizer.special_ids(), from.tokenizer.special_ids(), "{family}");
            let some = [5, 30, 12, 8, 19, 33, 4, 4, 21];
            assert_close(
                &logits(&again, &some),
                &logits(&from, &some),
                tolerance,
                &format!("{family} {kind}"),
            );
            if kind == TensorType::F32 {
                assert_eq!(again.model.config, from.model.config, "{family}");
            }
        }
    }
}

/// A file with other metadata and without some tensors.
fn changed(family: &str, to: &Path, edit: impl Fn(&mut GgufWriter), left_out: &str) {
    let source = GgufFile::open(&file(family)).unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in source.metadata().entries() {
        writer.set(key.clone(), value.clone());
    }
    edit(&mut writer);
    for t in source.tensors().iter().filter(|t| t.name != left_out) {
        writer.plan(TensorPlan { name: t.name.clone(), shape: t.shape.clone(), kind: TensorType::F32 });
    }
    writer.write(to, |plan| source.read(&plan.name)).unwrap();
}

#[test]
fn what_is_not_computed_here_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let refused = |family: &str, edit: &dyn Fn(&mut GgufWriter), left_out: &str| {
        changed(family, &path, edit, left_out);
        Generator::load(&path, Device::Cpu, F32).unwrap_err().to_string()
    };
    let set = |key: &'static str, value: Value| move |w: &mut GgufWriter| w.set(key, value.clone());
    for (family, key, value, says) in [
        ("llama", "general.architecture", Value::from("phi3"), "llama, qwen2, qwen3, gemma3"),
        ("llama", "llama.expert_count", Value::from(8u32), "without experts"),
        ("llama", "llama.block_count", Value::from(1u32 << 31), "block_count"),
        ("llama", "llama.attention.head_count", Value::from(3u32), "rows"),
        ("llama", "llama.attention.head_count_kv", Value::from(0u32), "from 1"),
        ("llama", "llama.context_length", Value::from("long"), "llama.context_length"),
        ("llama", "llama.rope.scaling.factor", Value::from(2f32), "rope_freqs.weight"),
        ("qwen2", "qwen2.rope.scaling.type", Value::from("longrope"), "none, linear or yarn"),
        ("gemma3", "gemma3.final_logit_softcapping", Value::from(30f32), "Gemma 3"),
        ("llama", "tokenizer.ggml.pre", Value::from("bert"), "llama-bpe"),
        ("llama", "tokenizer.ggml.model", Value::from("bert"), "byte-level"),
        ("llama", "tokenizer.ggml.tokens", Value::Array(Array::Text(vec!["a".into(); 2])), "twice"),
        ("llama", "tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1])), "360 tokens"),
        ("llama", "tokenizer.ggml.merges", Value::Array(Array::Text(vec!["one".into()])), "two tokens"),
        ("gemma3", "tokenizer.ggml.scores", Value::Array(Array::F32(vec![f32::NAN])), "scores"),
        ("llama", "tokenizer.chat_template.../x", Value::from("x"), "name of a template"),
    ] {
        let said = refused(family, &set(key, value), "");
        assert!(said.contains(says) && said.contains("x.gguf"), "{key}: {said}");
    }
    let said = refused("llama", &|_| {}, "blk.1.ffn_up.weight");
    assert!(said.contains("model.layers.1.mlp.up_proj.weight"), "{said}");
    // A tensor that is no part of such a model.
    let said = refused("llama", &|w| w.set("general.architecture", "qwen2"), "");
    assert!(said.contains("x.gguf"), "{said}");
}

#[test]
fn what_llama_cpp_does_not_compute_is_not_written() {
    let path = std::env::temp_dir().join("never-written.gguf");
    let refused = |family: &str, key: &str, value: Json| {
        let mut generator = load(&file(family));
        generator.model.config[key] = value;
        let e = generator.save_gguf(&path, TensorType::F16, "x").unwrap_err().to_string();
        assert!(!path.exists());
        e
    };
    for (family, key, value) in [
        ("llama", "model_type", "gpt2".into()),
        ("llama", "hidden_act", "gelu".into()),
        ("qwen2", "use_sliding_window", true.into()),
        ("gemma3", "query_pre_attn_scalar", 10.into()),
        ("gemma3", "layer_types", serde_json::json!(vec!["sliding_attention"; 7])),
        ("llama", "rope_parameters", serde_json::json!({"rope_type": "dynamic", "factor": 2.0})),
    ] {
        let said = refused(family, key, value);
        assert!(said.contains(key), "{said}");
    }
    let generator = load(&file("llama"));
    assert!(generator.save_gguf(&path, TensorType::Q4K, "x").is_err());
}

#[test]
fn an_adapter_goes_over_a_file_and_is_merged_into_another() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.gguf");
    std::fs::copy(file("qwen3"), &base).unwrap();
    let mut generator = load(&base);
    let peft: PeftConfig = toml::from_str("[lora]\nrank = 2").unwrap();
    generator.adapt(&peft).unwrap();
    for (name, t) in generator.trained().whole().unwrap() {
        let _guard = no_grad();
        let _ = t.shallow_clone().fill_(if name.contains("lora_B") { 0.05 } else { 0.1 });
    }
    let some = [5, 30, 12, 8];
    let adapter = dir.path().join("adapter");
    generator.save(&adapter).unwrap();
    let lm = |g: &Generator| {
        let _guard = no_grad();
        let lm = g.model.causal().unwrap();
        let mode = g.mode(false);
        lm.logits(&lm.forward(&PackedTokens::from_ids([some.as_slice()], Device::Cpu), mode), mode)
    };
    let mut again = load(&adapter);
    assert_close(&lm(&again), &lm(&generator), 1e-6, "an adapter names the file");
    let out = dir.path().join("merged.gguf");
    assert!(again.save_gguf(&out, TensorType::F32, "x").is_err(), "an adapter that acts");
    again.merge().unwrap();
    again.save_gguf(&out, TensorType::F32, "x").unwrap();
    let merged = load(&out);
    assert_close(&lm(&merged), &lm(&generator), 1e-4, "merged");
    assert!((lm(&merged) - lm(&load(&base))).abs().max().double_value(&[]) > 1e-2);
}
