//! Language models against transformers: logits, gradients, and the ways to the same logits (packed or alone, with a
//! cache in one go, in chunks, token by token, after reordering). Goldens and their script lie in `golden/lm/`.

use crate::goldens;

use ragduet_nn::{
    CausalLm, KvCache, LanguageModel, Mode, PackedTokens, fresh_language_model, load_language_model,
    save_language_model,
};
use ragduet_testkit::{alone, assert_close, assert_relative, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, Tensor, grad, no_grad};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(name)
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

fn pack(texts: &[impl AsRef<[u32]>]) -> PackedTokens {
    PackedTokens::from_ids(texts.iter().map(AsRef::as_ref), Device::Cpu)
}

fn causal(model: &LanguageModel) -> &dyn CausalLm {
    model.causal().unwrap()
}

const F32: Compute = Compute::F32;

fn full(lm: &dyn CausalLm, texts: &[impl AsRef<[u32]>]) -> Tensor {
    lm.logits(&lm.forward(&pack(texts), Mode::eval(F32)), Mode::eval(F32))
}

/// The rows of text `i` of packed rows.
fn rows(packed: &Tensor, texts: &[Vec<u32>], i: usize) -> Tensor {
    let start: usize = texts[..i].iter().map(Vec::len).sum();
    packed.narrow(0, start as i64, texts[i].len() as i64)
}

fn check(name: &str) {
    let dir = golden(name);
    let c = case(&dir);
    let mut model = load_language_model(&dir, Device::Cpu).unwrap();
    let want = c.data.load("logits", Device::Cpu).unwrap();
    let ours = full(causal(&model), &c.texts);
    assert_close(&ours, &want, 1e-4, name);
    check_gradients(name, &model, &c, &ours);
    let _guard = no_grad();
    for (i, text) in c.texts.iter().enumerate() {
        let alone = full(causal(&model), &[text]);
        assert_close(&alone, &rows(&ours, &c.texts, i), 2e-5, &format!("{name}: alone against packed"));
    }
    check_cache(name, causal(&model), &c.texts, &ours);

    let out = tempfile::tempdir().unwrap();
    save_language_model(&model, out.path()).unwrap();
    let again = load_language_model(out.path(), Device::Cpu).unwrap();
    let before = full(causal(&model), &c.texts);
    assert_eq!(max_diff(&full(causal(&again), &c.texts), &before), 0.0, "{name}: saved and read again");
    assert_eq!(again.generation, model.generation);

    let lm = causal(&model);
    let low = lm.logits(&lm.forward(&pack(&c.texts), Mode::eval(Compute::Bf16)), Mode::eval(F32));
    assert_relative(&low, &ours, 3e-2, &format!("{name}: bf16"));

    let train = |m: &LanguageModel| causal(m).forward(&pack(&c.texts), Mode::train(F32));
    let still = lm.forward(&pack(&c.texts), Mode::eval(F32));
    assert_eq!(max_diff(&train(&model), &still) > 1e-3, name.starts_with("gpt2"), "{name}: dropout");
    model.causal_mut().unwrap().set_dropout(Some(0.3), Some(0.3));
    assert!(max_diff(&train(&model), &still) > 1e-3, "{name}: dropout switched on");
    model.causal_mut().unwrap().set_dropout(Some(0.0), Some(0.0));
    assert_close(&train(&model), &still, 1e-5, &format!("{name}: dropout switched off"));
}

fn check_gradients(name: &str, model: &LanguageModel, c: &Case, ours: &Tensor) {
    grad::backward(&[ours.shallow_clone()], &[c.data.load("probe", Device::Cpu).unwrap()]).unwrap();
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
}

/// Every way of filling a cache gives the logits of the pass without one.
fn check_cache(name: &str, lm: &dyn CausalLm, texts: &[Vec<u32>], full: &Tensor) {
    let same = |got: &Tensor, want: &Tensor, how: &str| {
        assert_close(got, want, 2e-5, &format!("{name}: {how}"));
    };
    // Scaling by the length changes the angles of all keys when a text outgrows the model, except those in a cache.
    let grows = name == "llama_dynamic" || name.contains("longrope") || name == "phi3_old";
    let texts: Vec<Vec<u32>> =
        if grows { texts.iter().map(|t| t[..t.len().min(30)].to_vec()).collect() } else { texts.to_vec() };
    let full = if grows { &self::full(lm, &texts) } else { full };

    let mut cache = lm.new_cache(texts.len(), 64, Mode::eval(F32), Device::Cpu);
    let step = |new: &[&[u32]], cache: &mut KvCache| {
        let hidden = lm.extend(&pack(new), cache);
        lm.logits(&hidden, Mode::eval(F32))
    };
    let whole: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    same(&step(&whole, &mut cache), full, "prompt into a cache");
    assert_eq!(cache.lengths(), texts.iter().map(Vec::len).collect::<Vec<_>>());

    // Token by token, the longest texts; the cache starts too small.
    let (a, b) = (&texts[2], &texts[3]);
    let mut cache = lm.new_cache(2, 3, Mode::eval(F32), Device::Cpu);
    for i in 0..b.len() {
        let got = step(&[&a[i..=i], &b[i..=i]], &mut cache);
        same(&got.narrow(0, 0, 1), &rows(full, &texts, 2).narrow(0, i as i64, 1), "token by token");
        same(&got.narrow(0, 1, 1), &rows(full, &texts, 3).narrow(0, i as i64, 1), "token by token");
    }
    assert!(cache.capacity() >= b.len());

    // In uneven chunks, one of them empty.
    cache.reset(2, 64);
    let mut at = (0, 0);
    for (i, j) in [(5, 1), (1, 9), (1, 1), (9, 0), (a.len() - 16, b.len() - 11)] {
        let (x, y) = (&a[at.0..at.0 + i], &b[at.1..at.1 + j]);
        let got = step(&[x, y], &mut cache);
        let part =
            |text: usize, from: usize, n: usize| rows(full, &texts, text).narrow(0, from as i64, n as i64);
        same(&got, &Tensor::cat(&[part(2, at.0, i), part(3, at.1, j)], 0), "in chunks");
        at = (at.0 + i, at.1 + j);
    }

    // Two prompts; the second fans out in front of the first, all go on; then only one goes on.
    let half = b.len() / 2;
    let mut cache = lm.new_cache(2, 8, Mode::eval(F32), Device::Cpu);
    let _ = lm.extend(&pack(&[&a[..6], &b[..half]]), &mut cache);
    cache.reorder(&[1, 0, 1]);
    assert_eq!(cache.lengths(), [half, 6, half]);
    let got = step(&[&b[half..=half], &a[6..7], &[3]], &mut cache);
    same(&got.narrow(0, 0, 1), &rows(full, &texts, 3).narrow(0, half as i64, 1), "after reordering");
    same(&got.narrow(0, 1, 1), &rows(full, &texts, 2).narrow(0, 6, 1), "after reordering");
    cache.reorder(&[1]);
    cache.grow(100);
    let got = step(&[&a[7..8]], &mut cache);
    same(&got, &rows(full, &texts, 2).narrow(0, 7, 1), "after dropping and growing");
    cache.truncate(5);
    let got = step(&[&a[5..8]], &mut cache);
    same(&got, &rows(full, &texts, 2).narrow(0, 5, 3), "after truncation");

    // bf16: the kept weights are what the plain pass casts each time.
    let plain = lm.forward(&pack(&[b]), Mode::eval(Compute::Bf16));
    let mut cache = lm.new_cache(1, 64, Mode::eval(Compute::Bf16), Device::Cpu);
    let first = lm.extend(&pack(&[&b[..half]]), &mut cache);
    let mut hidden = vec![first];
    for i in half..b.len() {
        hidden.push(lm.extend(&pack(&[&b[i..=i]]), &mut cache));
    }
    assert_relative(&Tensor::cat(&hidden, 0), &plain, 2e-2, &format!("{name}: bf16 cache"));
}

#[test]
fn every_variant_computes_what_transformers_does() {
    let _alone = alone();
    let decoders = goldens::language_models().into_iter().filter(|(_, spec)| spec.is_decoder_only());
    let names: Vec<String> = decoders.map(|(name, _)| name).collect();
    assert!(names.len() >= 26, "{names:?}");
    let each = goldens::one_of_each(|spec| spec.is_decoder_only());
    assert!(each.iter().all(|name| names.contains(name)), "an architecture without a golden: {each:?}");
    names.iter().for_each(|name| check(name));
}

#[test]
fn layers_are_found_by_name() {
    let _alone = alone();
    for (name, first, embedding) in [
        ("qwen3", "model.layers.0.self_attn.q_norm.weight", "model.embed_tokens.weight"),
        ("gpt2", "transformer.h.0.attn.c_attn.weight", "transformer.wpe.weight"),
        ("gpt_neox", "gpt_neox.layers.0.mlp.dense_h_to_4h.bias", "gpt_neox.embed_in.weight"),
        ("gemma3_multimodal", "model.layers.0.pre_feedforward_layernorm.weight", "model.embed_tokens.weight"),
    ] {
        let m = load_language_model(&golden(name), Device::Cpu).unwrap();
        for (parameter, depth) in
            [(first, Some(1)), (&first.replace(".0.", ".1."), Some(2)), (embedding, Some(0))]
        {
            assert!(m.params.get(parameter).is_some(), "{parameter}");
            assert_eq!(causal(&m).depth_of(parameter), depth, "{parameter}");
        }
        assert_eq!(causal(&m).depth_of("lm_head.weight"), None);
    }
}

fn copy(from: &str, to: &Path, edit: impl Fn(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(golden(from).join("config.json")).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(to.join("config.json"), json.to_string()).unwrap();
    std::fs::copy(golden(from).join("model.safetensors"), to.join("model.safetensors")).unwrap();
}

#[test]
fn bare_checkpoints_with_buffers_and_shards_load() {
    let _alone = alone();
    for (name, prefix, buffer) in [
        ("gpt2", "transformer.", "h.0.attn.bias"),
        ("gpt_neox", "gpt_neox.", "gpt_neox.layers.1.attention.masked_bias"),
        ("qwen3", "model.", "layers.0.self_attn.rotary_emb.inv_freq"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(name, dir.path(), |_| {});
        std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        let whole = load_language_model(&golden(name), Device::Cpu).unwrap();
        let mut named: Vec<(String, Tensor)> = whole
            .params
            .named()
            .into_iter()
            .map(|(n, t)| (n.strip_prefix(prefix).unwrap_or(&n).to_string(), t))
            .collect();
        named.push((buffer.into(), Tensor::ones([4], (Kind::Float, Device::Cpu))));
        ragduet_torch::weights::save_model(dir.path(), &named, 5_000).unwrap();
        assert!(!dir.path().join("model.safetensors").exists());
        let m = load_language_model(dir.path(), Device::Cpu).unwrap();
        assert_eq!(m.report.ignored.len(), 1);
        let text = [vec![5u32, 6, 7]];
        assert_eq!(max_diff(&full(causal(&m), &text), &full(causal(&whole), &text)), 0.0);
    }
}

#[test]
fn a_tied_head_is_stored_once_and_another_one_is_refused() {
    let _alone = alone();
    let m = load_language_model(&golden("qwen3"), Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save_language_model(&m, dir.path()).unwrap();
    let stored = Weights::open_dir(dir.path()).unwrap();
    assert!(stored.shape("lm_head.weight").is_none() && stored.shape("model.embed_tokens.weight").is_some());
    let mut named = m.params.named();
    let embedding = m.params.get("model.embed_tokens.weight").unwrap().detach();
    named.push(("lm_head.weight".into(), embedding.copy()));
    ragduet_torch::weights::save_model(dir.path(), &named, u64::MAX).unwrap();
    assert!(load_language_model(dir.path(), Device::Cpu).is_ok());
    named.last_mut().unwrap().1 = embedding * 2.0;
    ragduet_torch::weights::save_model(dir.path(), &named, u64::MAX).unwrap();
    let e = load_language_model(dir.path(), Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("the stored head is not the embedding"), "{e}");
}

#[test]
fn strange_directories_are_refused_with_a_reason() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let error = |from: &str, key: &str, value: serde_json::Value| {
        copy(from, dir.path(), |json| json[key] = value.clone());
        load_language_model(dir.path(), Device::Cpu).unwrap_err().to_string()
    };
    use serde_json::json;
    let e = error("llama", "model_type", json!("mamba"));
    assert!(e.contains("language models: llama, mistral") && e.contains(", umt5, gemma3"), "{e}");
    let e = error("llama", "rope_parameters", json!({"rope_type": "longrope", "rope_theta": 1e4}));
    assert!(e.contains("`short_factor` with 2 numbers above 0"), "{e}");
    let e = error("llama", "rope_parameters", json!({"rope_type": "spiral", "rope_theta": 1e4}));
    assert!(e.contains("llama3"), "{e}");
    let e = error("llama", "rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5}));
    assert!(e.contains("a partial_rotary_factor of 1"), "{e}");
    let e = error("phi3", "rope_parameters", json!({"rope_type": "linear", "factor": 2.0}));
    assert!(e.contains("default or longrope"), "{e}");
    let e = error("gemma2", "use_bidirectional_attention", json!(true));
    assert!(e.contains("is_causal = false"), "{e}");
    let e = error("llama", "rope_parameters", json!({"rope_type": "linear"}));
    assert!(e.contains("needs `factor`"), "{e}");
    let e = error("llama", "num_key_value_heads", json!(3));
    assert!(e.contains("num_key_value_heads = 3"), "{e}");
    let e = error("llama", "num_hidden_layers", json!(3));
    assert!(e.contains("missing: model.layers.2.input_layernorm.weight"), "{e}");
    for (key, value, words) in [
        ("layer_types", json!(["sliding_attention"]), "for each of the num_hidden_layers layers"),
        ("layer_types", json!(["linear_attention", "full_attention", "full_attention"]), "full_attention"),
        ("sliding_window", json!(null), "a number of tokens"),
        (
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 1e4}),
            "one for `sliding_attention`",
        ),
        ("rope_parameters", json!({"full_attention": {"rope_type": "spiral"}}), "llama3"),
        ("final_logit_softcapping", json!(30.0), "final_logit_softcapping = 30.0"),
        ("attn_logit_softcapping", json!(50.0), "attn_logit_softcapping = 50.0"),
        ("use_bidirectional_attention", json!(true), "no later token"),
    ] {
        let e = error("gemma3", key, value);
        assert!(e.contains(key) && e.contains(words), "{e}");
    }
    let e = error("gpt2", "add_cross_attention", json!(true));
    assert!(e.contains("add_cross_attention"), "{e}");
    let e = error("gpt2", "tie_word_embeddings", json!(false));
    assert!(e.contains("missing: lm_head.weight"), "{e}");
}

/// What of Gemma 3's spellings means the same, computes the same.
#[test]
fn ropes_and_windows_of_layers_have_two_spellings() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let logits = |edit: &dyn Fn(&mut serde_json::Value)| {
        copy("gemma3_old", dir.path(), edit);
        let model = load_language_model(dir.path(), Device::Cpu).unwrap();
        full(causal(&model), &[(3u32..30).collect::<Vec<u32>>()])
    };
    let _guard = no_grad();
    let old = logits(&|_| ());
    let rewrite = |json: &mut serde_json::Value| {
        let map = json.as_object_mut().unwrap();
        for key in ["sliding_window_pattern", "rope_theta", "rope_local_base_freq", "rope_scaling"] {
            assert!(map.remove(key).is_some(), "{key}");
        }
        json["layer_types"] = ["sliding_attention", "sliding_attention", "full_attention"].into();
        json["rope_parameters"] = serde_json::json!({
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 40.0},
        });
    };
    assert_eq!(max_diff(&logits(&rewrite), &old), 0.0);
    let other = |key: &'static str, value: serde_json::Value| {
        max_diff(&logits(&|json| json[key] = value.clone()), &old)
    };
    for (key, value) in [
        ("rope_theta", 1e4.into()),
        ("rope_local_base_freq", 1e4.into()),
        ("rope_scaling", serde_json::Value::Null),
        ("sliding_window_pattern", 2.into()),
        ("sliding_window", 3.into()),
        ("query_pre_attn_scalar", 8.into()),
    ] {
        assert!(other(key, value) > 1e-3, "{key} matters");
    }
}

#[test]
fn of_several_models_the_language_model_is_read() {
    let _alone = alone();
    let m = load_language_model(&golden("gemma3_multimodal"), Device::Cpu).unwrap();
    assert_eq!(m.config["model_type"], "gemma3_text");
    assert_eq!(m.generation.eos_token_id, [2]);
    let left = |part: &str| m.report.ignored.iter().filter(|n| n.starts_with(part)).count();
    assert_eq!(left("multi_modal_projector."), 2);
    assert_eq!(left("vision_tower.") + 2, m.report.ignored.len());
    assert!(m.params.iter().all(|(n, _)| n.starts_with("model.")));
    // As transformers names the parts in memory, and with a head that is the embedding.
    let dir = tempfile::tempdir().unwrap();
    copy("gemma3_multimodal", dir.path(), |_| {});
    let text = [vec![5u32, 6, 7]];
    let want = full(causal(&m), &text);
    let mut named: Vec<(String, Tensor)> = m
        .params
        .named()
        .into_iter()
        .map(|(n, t)| (n.replacen("model.", "model.language_model.", 1), t.detach().copy()))
        .collect();
    named.push(("model.vision_tower.x".into(), Tensor::ones([4], (Kind::Float, Device::Cpu))));
    let words = m.params.get("model.embed_tokens.weight").unwrap().detach();
    named.push(("lm_head.weight".into(), words.copy()));
    let save = |named: &[(String, Tensor)]| {
        ragduet_torch::weights::save_model(dir.path(), named, u64::MAX).unwrap();
        load_language_model(dir.path(), Device::Cpu)
    };
    assert_eq!(max_diff(&full(causal(&save(&named).unwrap()), &text), &want), 0.0);
    named.last_mut().unwrap().1 = words * 2.0;
    let e = save(&named).unwrap_err().to_string();
    assert!(e.contains("the stored head is not the embedding"), "{e}");
}

#[test]
fn generation_config_is_read_and_kept() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    copy("llama", dir.path(), |json| {
        json["eos_token_id"] = 2.into();
        json["pad_token_id"] = (-1).into();
    });
    let load = || load_language_model(dir.path(), Device::Cpu).unwrap();
    let from_config = load().generation;
    assert_eq!((from_config.eos_token_id, from_config.pad_token_id), (vec![2], None));
    let text =
        r#"{"eos_token_id": [7, 9], "pad_token_id": 3, "temperature": 0.6, "top_p": 0.9, "custom": 1}"#;
    std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
    let m = load();
    assert_eq!(m.generation.eos_token_id, [7, 9]);
    assert_eq!((m.generation.bos_token_id, m.generation.pad_token_id), (Some(1), Some(3)));
    assert_eq!((m.generation.temperature, m.generation.top_k), (Some(0.6), None));
    let out = tempfile::tempdir().unwrap();
    save_language_model(&m, out.path()).unwrap();
    let written = std::fs::read_to_string(out.path().join("generation_config.json")).unwrap();
    assert!(written.contains("\"custom\": 1"), "{written}");
    std::fs::write(dir.path().join("generation_config.json"), "{\"top_p\": \"x\"}").unwrap();
    let e = load_language_model(dir.path(), Device::Cpu).unwrap_err().to_string();
    assert!(e.contains("generation_config.json"), "{e}");
}

#[test]
fn a_fresh_model_starts_as_configured() {
    let _alone = alone();
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 2,
    });
    ragduet_torch::rng::seed(3);
    let m = fresh_language_model(config, Device::Cpu).unwrap();
    let std = |n: &str| f64::try_from(m.params.get(n).unwrap().std(true)).unwrap();
    assert!((std("model.embed_tokens.weight") - 0.02).abs() < 1e-3);
    assert!((std("model.layers.1.mlp.down_proj.weight") - 0.02).abs() < 1e-3);
    assert_eq!(std("model.norm.weight"), 0.0);
    let lm = causal(&m);
    assert_eq!((lm.vocab_size(), lm.hidden_size(), lm.layers()), (300, 64, 2));
    assert_eq!((lm.max_tokens(), lm.context_length()), (None, 2048));
    let loss = full(lm, &[vec![1u32, 2, 3, 4]]).log_softmax(-1, Kind::Float).mean(Kind::Float);
    assert!((f64::try_from(loss).unwrap() + 300f64.ln()).abs() < 0.1);
}

#[test]
fn a_step_of_training_is_seen_by_the_next_generated_token() {
    let _alone = alone();
    let m = load_language_model(&golden("llama"), Device::Cpu).unwrap();
    let lm = causal(&m);
    let _guard = no_grad();
    let step = |ids: &[u32], cache: &mut KvCache| {
        let hidden = lm.extend(&pack(&[ids]), cache);
        lm.logits(&hidden, Mode::eval(Compute::Bf16))
    };
    let mut cache = lm.new_cache(1, 8, Mode::eval(Compute::Bf16), Device::Cpu);
    let before = step(&[3, 4, 5], &mut cache);
    for name in ["model.layers.0.self_attn.k_proj.weight", "lm_head.weight"] {
        cache.reset(1, 8);
        assert_eq!(max_diff(&step(&[3, 4, 5], &mut cache), &before), 0.0);
        let mut weight = m.params.get(name).unwrap().shallow_clone();
        let saved = weight.copy();
        let _ = weight.g_mul_scalar_(1.5);
        cache.reset(1, 8);
        assert!(max_diff(&step(&[3, 4, 5], &mut cache), &before) > 1e-2, "{name}");
        weight.copy_(&saved);
    }
}
