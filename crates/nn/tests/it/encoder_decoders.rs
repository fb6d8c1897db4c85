//! Encoder-decoders against transformers: logits, loss, gradients, and the ways to the same logits (packed or alone, with
//! a cache in one go, in chunks, token by token, with beams that change places). Goldens and their script lie in
//! `golden/lm/`.

use ragduet_nn::{
    LanguageModel, Mode, PackedTokens, Seq2SeqCache, Seq2SeqLm, fresh_language_model, load_language_model,
    save_language_model,
};
use ragduet_testkit::{alone, assert_close, assert_relative, max_diff};
use ragduet_torch::ops::Segments;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, Tensor, grad, no_grad};
use std::path::{Path, PathBuf};

const F32: Compute = Compute::F32;
const NAMES: [&str; 4] = ["t5", "t5_silu", "flan_t5", "mt5"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm").join(name)
}

struct Case {
    sources: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
    data: Weights,
}

fn case(name: &str) -> Case {
    let data = Weights::open_file(&golden(name).join("golden.safetensors")).unwrap();
    let ints = |n: &str| Vec::<i64>::try_from(&data.load_as_is(n).unwrap()).unwrap();
    let texts = |ids: &str, lengths: &str| {
        let ids = ints(ids);
        let mut at = 0;
        let cut = |l: i64| {
            let text = ids[at..at + l as usize].iter().map(|&i| i as u32).collect();
            at += l as usize;
            text
        };
        ints(lengths).into_iter().map(cut).collect()
    };
    Case { sources: texts("ids", "lengths"), targets: texts("target_ids", "target_lengths"), data }
}

fn pack(texts: &[impl AsRef<[u32]>]) -> PackedTokens {
    PackedTokens::from_ids(texts.iter().map(AsRef::as_ref), Device::Cpu)
}

fn load(name: &str) -> LanguageModel {
    load_language_model(&golden(name), Device::Cpu).unwrap()
}

fn hidden(
    lm: &dyn Seq2SeqLm,
    sources: &[impl AsRef<[u32]>],
    targets: &[impl AsRef<[u32]>],
    mode: Mode,
) -> Tensor {
    let sources = pack(sources);
    lm.decode(&pack(targets), &lm.encode(&sources, mode), &sources.segments, mode)
}

fn full(lm: &dyn Seq2SeqLm, sources: &[impl AsRef<[u32]>], targets: &[impl AsRef<[u32]>]) -> Tensor {
    lm.logits(&hidden(lm, sources, targets, Mode::eval(F32)), Mode::eval(F32))
}

/// The rows of text `i` of packed rows.
fn rows(packed: &Tensor, texts: &[Vec<u32>], i: usize) -> Tensor {
    let start: usize = texts[..i].iter().map(Vec::len).sum();
    packed.narrow(0, start as i64, texts[i].len() as i64)
}

#[test]
fn logits_and_gradients_are_those_of_transformers() {
    let _alone = alone();
    for name in NAMES {
        let (c, model) = (case(name), load(name));
        let lm = model.seq2seq().unwrap();
        let ours = full(lm, &c.sources, &c.targets);
        assert_close(&ours, &c.data.load("logits", Device::Cpu).unwrap(), 1e-4, name);

        grad::backward(&[ours.shallow_clone()], &[c.data.load("probe", Device::Cpu).unwrap()]).unwrap();
        let norm = |t: &Tensor| f64::try_from(t.norm()).unwrap();
        let mut checked = 0;
        for (parameter, p) in model.params.iter() {
            let want = c.data.load(&format!("grad.{parameter}"), Device::Cpu).unwrap();
            let off = norm(&(p.tensor.grad() - &want)) / norm(&want);
            assert!(off <= 1e-3, "{name}: gradient of {parameter} is off by {off:.2e}");
            checked += 1;
        }
        let given = c.data.names().filter(|n| n.starts_with("grad.")).count();
        assert_eq!(checked, given, "{name}: every gradient of the reference was compared");
        assert_eq!(model.params.get("lm_head.weight").is_some(), ["flan_t5", "mt5"].contains(&name));

        // The scaled head, for losses that do not make logits.
        let head = lm.head(Mode::eval(F32));
        let states = hidden(lm, &c.sources, &c.targets, Mode::eval(F32));
        assert_close(&(states.matmul(&head.weight.tr()) * head.scale), &ours, 1e-5, name);
        assert_eq!(head.scale == 1.0, name == "flan_t5" || name == "mt5");
    }
}

#[test]
fn packed_alone_and_low_precision_agree() {
    let _alone = alone();
    let _guard = no_grad();
    // How far transformers' own bf16 pass is from its f32 pass: large scores, which T5 does not scale, suffer.
    for (name, theirs) in NAMES.into_iter().zip([1.6e-2, 7.5e-2, 9.2e-2, 1.9e-2]) {
        let (c, model) = (case(name), load(name));
        let lm = model.seq2seq().unwrap();
        let ours = full(lm, &c.sources, &c.targets);
        for i in 0..c.sources.len() {
            let alone = full(lm, &c.sources[i..=i], &c.targets[i..=i]);
            assert_close(&alone, &rows(&ours, &c.targets, i), 2e-5, &format!("{name}: alone against packed"));
        }
        // Many texts of all lengths make several groups, whose rows are put back in order.
        let lengths = [40, 1, 33, 7, 150, 90, 2, 61, 120, 5, 149];
        let text = |n: usize, by: usize| (0..n).map(|i| 2 + ((i * by + n) % 35) as u32).collect::<Vec<u32>>();
        let sources: Vec<Vec<u32>> = lengths.iter().map(|&n| text(n, 7)).collect();
        let targets: Vec<Vec<u32>> = lengths.iter().rev().map(|&n| text(n, 11)).collect();
        let many = full(lm, &sources, &targets);
        for i in 0..lengths.len() {
            let alone = full(lm, &sources[i..=i], &targets[i..=i]);
            assert_close(&alone, &rows(&many, &targets, i), 2e-5, &format!("{name}: one of many"));
        }
        let low = lm.logits(&hidden(lm, &c.sources, &c.targets, Mode::eval(Compute::Bf16)), Mode::eval(F32));
        assert_relative(&low, &ours, theirs, &format!("{name}: bf16"));
    }
}

#[test]
fn every_way_of_filling_a_cache_gives_the_logits_of_the_pass_without_one() {
    let _alone = alone();
    let _guard = no_grad();
    for name in NAMES {
        let (c, model) = (case(name), load(name));
        let lm = model.seq2seq().unwrap();
        let full = full(lm, &c.sources, &c.targets);
        let same = |got: &Tensor, want: &Tensor, how: &str| {
            assert_close(got, want, 2e-5, &format!("{name}: {how}"));
        };
        let part = |text: usize, from: usize, n: usize| {
            rows(&full, &c.targets, text).narrow(0, from as i64, n as i64)
        };
        let start = |sources: &[Vec<u32>], capacity: usize, compute: Compute| {
            let sources = pack(sources);
            let encoded = lm.encode(&sources, Mode::eval(compute));
            lm.start_cache(&encoded, &sources.segments, capacity, Mode::eval(compute))
        };
        let step = |new: &[&[u32]], cache: &mut Seq2SeqCache| {
            lm.logits(&lm.extend(&pack(new), cache), Mode::eval(F32))
        };

        let mut cache = start(&c.sources, 64, F32);
        let whole: Vec<&[u32]> = c.targets.iter().map(Vec::as_slice).collect();
        same(&step(&whole, &mut cache), &full, "all at once");
        assert_eq!(cache.lengths(), c.targets.iter().map(Vec::len).collect::<Vec<_>>());

        // Token by token, with sources of other lengths; the cache starts too small.
        let (a, b) = (&c.targets[1], &c.targets[2]);
        let mut cache = start(&c.sources[1..3], 2, F32);
        for i in 0..a.len() {
            let got = step(&[&a[i..=i], &b[i..=i]], &mut cache);
            same(&got, &Tensor::cat(&[part(1, i, 1), part(2, i, 1)], 0), "token by token");
        }
        // The second fans out in front of the first, and again, all go on; then one does.
        let n = a.len() - 1;
        let mut cache = start(&c.sources[1..3], 64, F32);
        let _ = lm.extend(&pack(&[&a[..n], &b[..n]]), &mut cache);
        cache.reorder(&[1, 0, 1, 1]);
        let got = step(&[&b[n..=n], &a[n..=n], &[3], &b[n..=n]], &mut cache);
        let want = [part(2, n, 1), part(1, n, 1), got.narrow(0, 2, 1), part(2, n, 1)];
        same(&got, &Tensor::cat(&want, 0), "after reordering");
        assert!(max_diff(&got.narrow(0, 2, 1), &part(2, n, 1)) > 1e-3, "another token, another answer");
        cache.reorder(&[3]);
        for i in n + 1..b.len() {
            same(&step(&[&b[i..=i]], &mut cache), &part(2, i, 1), "after dropping");
        }
        // In uneven chunks, one of them empty.
        let mut cache = start(&c.sources[1..3], 64, F32);
        let mut at = (0, 0);
        for (i, j) in [(3, 1), (1, 9), (0, 1), (1, 1), (4, b.len() - 12)] {
            let got = step(&[&a[at.0..at.0 + i], &b[at.1..at.1 + j]], &mut cache);
            same(&got, &Tensor::cat(&[part(1, at.0, i), part(2, at.1, j)], 0), "in chunks");
            at = (at.0 + i, at.1 + j);
        }
        // bf16: kept weights and keys are what the plain pass casts each time.
        let plain = hidden(lm, &c.sources[2..3], &[b], Mode::eval(Compute::Bf16));
        let mut cache = start(&c.sources[2..3], 64, Compute::Bf16);
        let cached: Vec<Tensor> = b.iter().map(|&t| lm.extend(&pack(&[[t]]), &mut cache)).collect();
        assert_relative(&Tensor::cat(&cached, 0), &plain, 2e-2, &format!("{name}: bf16 cache"));
    }
}

#[test]
fn dropout_is_the_configs_until_it_is_set() {
    let _alone = alone();
    for name in NAMES {
        let (c, mut model) = (case(name), load(name));
        let states = |m: &LanguageModel, mode| hidden(m.seq2seq().unwrap(), &c.sources, &c.targets, mode);
        let still = states(&model, Mode::eval(F32));
        assert!(max_diff(&states(&model, Mode::train(F32)), &still) > 1e-3, "{name}: on");
        model.seq2seq_mut().unwrap().set_dropout(Some(0.0), Some(0.0));
        assert_close(&states(&model, Mode::train(F32)), &still, 1e-6, &format!("{name}: off"));
        model.seq2seq_mut().unwrap().set_dropout(None, Some(0.3));
        assert!(max_diff(&states(&model, Mode::train(F32)), &still) > 1e-3, "{name}: of attention");
    }
}

#[test]
fn saved_models_read_back_whatever_said_that_the_head_is_tied() {
    let _alone = alone();
    for name in NAMES {
        let (c, model) = (case(name), load(name));
        let before = full(model.seq2seq().unwrap(), &c.sources, &c.targets);
        let out = tempfile::tempdir().unwrap();
        save_language_model(&model, out.path()).unwrap();
        let again = load_language_model(out.path(), Device::Cpu).unwrap();
        assert_eq!(max_diff(&full(again.seq2seq().unwrap(), &c.sources, &c.targets), &before), 0.0, "{name}");
        let own_head = name == "flan_t5" || name == "mt5";
        assert_eq!(again.config["tie_word_embeddings"], !own_head);
        assert_eq!(again.config["scale_decoder_outputs"], !own_head);
        assert_eq!(again.generation.decoder_start_token_id, Some(0));

        // transformers 5 says that every head is tied, and stores those that are not.
        if own_head {
            let mut config = again.config.clone();
            config["tie_word_embeddings"] = true.into();
            std::fs::write(out.path().join("config.json"), config.to_string()).unwrap();
            let again = load_language_model(out.path(), Device::Cpu).unwrap();
            let got = full(again.seq2seq().unwrap(), &c.sources, &c.targets);
            assert_eq!(max_diff(&got, &before), 0.0, "{name}: as transformers 5 writes it");
        }
    }
}

#[test]
fn copies_of_the_embedding_must_be_copies() {
    let _alone = alone();
    let model = load("t5");
    let embedding = model.params.get("shared.weight").unwrap().detach();
    let dir = tempfile::tempdir().unwrap();
    save_language_model(&model, dir.path()).unwrap();
    let write = |named: &[(String, Tensor)]| {
        ragduet_torch::weights::save_model(dir.path(), named, u64::MAX).unwrap();
        load_language_model(dir.path(), Device::Cpu)
    };
    let with = |copies: &[(&str, f64)]| {
        let mut named = model.params.named();
        named.extend(copies.iter().map(|&(n, by)| (n.to_string(), &embedding * by)));
        named
    };
    let unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    let mut named =
        with(&[("encoder.embed_tokens.weight", 1.0), ("decoder.embed_tokens.weight", 1.0), (unread, 3.0)]);
    assert_eq!(write(&named).unwrap().report.ignored.len(), 3);
    let e = write(&with(&[("decoder.embed_tokens.weight", 2.0)])).unwrap_err().to_string();
    assert!(e.contains("decoder.embed_tokens.weight is not shared.weight"), "{e}");
    // Only a copy.
    named.retain(|(n, _)| n != "shared.weight");
    let m = write(&named).unwrap();
    assert_eq!(max_diff(m.params.get("shared.weight").unwrap(), &embedding), 0.0);
}

#[test]
fn layers_are_found_by_name_the_decoders_after_the_encoders() {
    let _alone = alone();
    let m = load("t5_silu");
    let lm = m.seq2seq().unwrap();
    assert!(m.causal().is_none());
    assert_eq!((lm.layers(), lm.max_tokens(), lm.vocab_size(), lm.hidden_size()), (5, None, 37, 16));
    for (parameter, depth) in [
        ("shared.weight", Some(0)),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", Some(1)),
        ("encoder.block.1.layer.1.DenseReluDense.wi_0.weight", Some(2)),
        ("decoder.block.0.layer.1.EncDecAttention.q.weight", Some(3)),
        ("decoder.block.2.layer.2.layer_norm.weight", Some(5)),
        ("decoder.final_layer_norm.weight", None),
    ] {
        assert!(m.params.get(parameter).is_some(), "{parameter}");
        assert_eq!(lm.depth_of(parameter), depth, "{parameter}");
    }
}

#[test]
fn a_fresh_model_starts_as_transformers_would() {
    let _alone = alone();
    let config = serde_json::json!({
        "model_type": "t5", "vocab_size": 300, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 1, "num_heads": 4,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "eos_token_id": 1,
    });
    ragduet_torch::rng::seed(3);
    let m = fresh_language_model(config, Device::Cpu).unwrap();
    for (name, want) in [
        ("shared.weight", 1.0),
        ("lm_head.weight", 1.0),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", (64.0f64 * 16.0).powf(-0.5)),
        ("decoder.block.0.layer.1.EncDecAttention.k.weight", 64f64.powf(-0.5)),
        ("decoder.block.0.layer.2.DenseReluDense.wo.weight", 96f64.powf(-0.5)),
    ] {
        let std = f64::try_from(m.params.get(name).unwrap().std(true)).unwrap();
        assert!((std / want - 1.0).abs() < 0.05, "{name}: {std} for {want}");
    }
    let refused = |key: &str, value: serde_json::Value| {
        let mut config = m.config.clone();
        config[key] = value;
        fresh_language_model(config, Device::Cpu).unwrap_err().to_string()
    };
    let e = refused("feed_forward_proj", "gated-maxout".into());
    assert!(e.contains("feed_forward_proj"), "{e}");
    // The resolved name goes before the one it came from.
    let e = refused("dense_act_fn", "maxout".into());
    assert!(e.contains("feed_forward_proj"), "{e}");
    let mut config = m.config.clone();
    config["is_gated_act"] = false.into();
    let plain = fresh_language_model(config, Device::Cpu).unwrap();
    assert!(plain.params.get("encoder.block.0.layer.1.DenseReluDense.wi.weight").is_some());
    let e = refused("relative_attention_num_buckets", 7.into());
    assert!(e.contains("an even number"), "{e}");
    let e = refused("relative_attention_max_distance", 16.into());
    assert!(e.contains("relative_attention_max_distance"), "{e}");
}

#[test]
fn the_loss_is_that_of_labels() {
    let _alone = alone();
    for name in NAMES {
        let (c, model) = (case(name), load(name));
        let logits = full(model.seq2seq().unwrap(), &c.sources, &c.targets);
        let want = Vec::<f64>::try_from(&c.data.load("losses", Device::Cpu).unwrap()).unwrap();
        for (i, target) in c.targets.iter().enumerate() {
            let labels: Vec<i64> = target[1..].iter().map(|&t| i64::from(t)).chain([1]).collect();
            let loss = rows(&logits, &c.targets, i).cross_entropy_for_logits(&Tensor::from_slice(&labels));
            let off = (f64::try_from(loss).unwrap() - want[i]).abs();
            assert!(off < 1e-5, "{name} {i}: {off}");
        }
    }
}

/// What the bias costs: positions far apart share a bucket, so a long source is not the short one repeated.
#[test]
fn positions_matter_up_to_the_greatest_distance() {
    let _alone = alone();
    let _guard = no_grad();
    let model = load("t5");
    let lm = model.seq2seq().unwrap();
    let encode = |ids: &[u32]| lm.encode(&pack(&[ids]), Mode::eval(F32));
    let ids: Vec<u32> = (0..90).map(|i| 2 + (i * 5 % 35)).collect();
    let mut swapped = ids.clone();
    // Two tokens that are both far from the first: to it they are alike.
    swapped.swap(60, 80);
    let (a, b) = (encode(&ids), encode(&swapped));
    assert!(max_diff(&a.narrow(0, 61, 1), &b.narrow(0, 61, 1)) > 1e-3);
    let segments = Segments::new(&[90], Device::Cpu);
    let target = pack(&[[0u32, 5, 6]]);
    let far = |h: &Tensor| lm.decode(&target, h, &segments, Mode::eval(F32));
    assert_eq!(far(&a).kind(), Kind::Float);
    // Sources have no positions of their own to the decoder: only their hidden states count.
    let order: Vec<i64> = (0..90).rev().collect();
    assert_close(&far(&a.index_select(0, &Tensor::from_slice(&order))), &far(&a), 1e-5, "order of a source");
}
