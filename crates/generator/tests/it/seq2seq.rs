//! Encoder-decoders as generators: the tokens of transformers' `generate` (`golden/seq2seq.json`), training that learns
//! and resumes bit for bit, preferences, and folders that load again.

use ragduet_data::{Found, Passage, RagRecord};
use ragduet_generator::answers::{AnswerOptions, answer_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::decode::{DecodeConfig, Finish, Hooks, Request};
use ragduet_generator::packed::PackedExamples;
use ragduet_generator::prepare::{PrepareReport, Preparer, PromptConfig};
use ragduet_generator::recipe::config::{PreferenceConfig, SftConfig};
use ragduet_generator::recipe::{RunOptions, preference, sft};
use ragduet_generator::{Generator, ScratchArchitecture, ScratchGenerator};
use ragduet_nn::{Mode, PackedTokens, load_language_model};
use ragduet_testkit::alone;
use ragduet_text::{ByteBpeOptions, ExampleOptions, TrainExample, train_byte_bpe};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor, no_grad, rng};
use ragduet_train::config::Config as _;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A model of `nn`'s goldens; its tokenizer serves stop strings alone.
fn golden_model(name: &str) -> Generator {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden/lm").join(name);
    let options = ByteBpeOptions { vocab_size: 260, ..ByteBpeOptions::default() };
    let model = load_language_model(&dir, Device::Cpu).unwrap();
    let tokenizer = train_byte_bpe(["a b"], &options).unwrap();
    Generator::new(model, tokenizer, Device::Cpu, Compute::F32)
}

fn golden() -> (Value, Vec<Request>) {
    let all: Value = serde_json::from_str(include_str!("../golden/seq2seq.json")).unwrap();
    let sources: Vec<Vec<u32>> = serde_json::from_value(all["sources"].clone()).unwrap();
    let requests = sources
        .into_iter()
        .zip(0..)
        .map(|(prompt, seed)| Request { prompt, seed, ..Request::default() })
        .collect();
    (all, requests)
}

#[test]
fn greedy_and_beam_tokens_are_those_of_transformers() {
    let _turn = alone();
    let (all, requests) = golden();
    for name in ["t5", "flan_t5"] {
        let g = golden_model(name);
        for case in all["models"][name]["cases"].as_array().unwrap() {
            let d = DecodeConfig::default().resolve(Some(&case["config"]), &[]).unwrap();
            assert!(d.ignored.is_empty(), "{:?}", d.ignored);
            let want: Vec<Vec<Vec<u32>>> = serde_json::from_value(case["sequences"].clone()).unwrap();
            let have = g.generate(&requests, &d, Hooks::default()).unwrap();
            for (i, (have, want)) in have.iter().zip(&want).enumerate() {
                let tokens: Vec<Vec<u32>> = have.iter().map(|g| g.tokens.clone()).collect();
                assert_eq!(&tokens, want, "{name}, source {i}, {}", case["config"]);
            }
            // Alone, and in another order.
            let alone = g.generate(&requests[2..3], &d, Hooks::default()).unwrap();
            assert_eq!(alone[0].iter().map(|g| g.tokens.clone()).collect::<Vec<_>>(), want[2]);
        }
    }
}

/// What a model without a cache would say next, again and again.
fn greedy(g: &Generator, source: &[u32], n: usize) -> Vec<u32> {
    let lm = g.model.seq2seq().unwrap();
    let _guard = no_grad();
    let mode = g.mode(false);
    let pack = |ids: &[u32]| PackedTokens::from_ids([ids], Device::Cpu);
    let source = pack(source);
    let encoded = lm.encode(&source, mode);
    let mut ids = vec![g.decoder_start().unwrap()];
    for _ in 0..n {
        let hidden = lm.decode(&pack(&ids), &encoded, &source.segments, mode);
        let logits = lm.logits(&hidden.narrow(0, ids.len() as i64 - 1, 1), mode);
        ids.push(i64::try_from(logits.argmax(None, false)).unwrap() as u32);
    }
    ids.split_off(1)
}

#[test]
fn passages_read_apart_are_fused_as_in_transformers() {
    let _turn = alone();
    let all: Value = serde_json::from_str(include_str!("../golden/fusion.json")).unwrap();
    let parts: Vec<Vec<Vec<u32>>> = serde_json::from_value(all["parts"].clone()).unwrap();
    let targets: Vec<Vec<u32>> = serde_json::from_value(all["targets"].clone()).unwrap();
    for name in ["t5", "flan_t5"] {
        let g = golden_model(name);
        let want = all["models"][name].as_array().unwrap();
        let start = g.decoder_start().unwrap();
        let examples: Vec<TrainExample> = parts
            .iter()
            .zip(&targets)
            .map(|(texts, target)| {
                let ids: Vec<u32> = texts.concat().into_iter().chain([start]).chain(target.clone()).collect();
                let source = ids.len() - target.len() - 1;
                let loss = (0..ids.len()).map(|i| i > source).collect();
                TrainExample { ids, loss, source, parts: texts.iter().map(Vec::len).collect() }
            })
            .collect();
        let mode = g.mode(false);
        let flat = |key: &str| -> Vec<f64> {
            want.iter().flat_map(|w| serde_json::from_value::<Vec<f64>>(w[key].clone()).unwrap()).collect()
        };
        let _guard = no_grad();
        let nll = PackedExamples::of(examples.clone()).nll(&g, mode);
        let nll: Vec<f64> = Vec::try_from(nll.to_kind(ragduet_torch::Kind::Double)).unwrap();
        assert_close(&nll, &flat("nll"), name);
        // Greedy, all together and each alone.
        let requests: Vec<Request> = examples
            .iter()
            .map(|e| Request { prompt: e.ids[..e.source].to_vec(), seed: 0, parts: e.parts.clone() })
            .collect();
        let d =
            DecodeConfig { max_new_tokens: Some(20), ..DecodeConfig::default() }.resolve(None, &[1]).unwrap();
        let have = g.generate(&requests, &d, Hooks::default()).unwrap();
        for ((have, want), request) in have.iter().zip(want).zip(&requests) {
            let tokens: Vec<u32> = serde_json::from_value(want["greedy"].clone()).unwrap();
            assert_eq!(have[0].tokens, tokens, "{name}");
            let alone = g.generate(std::slice::from_ref(request), &d, Hooks::default()).unwrap();
            assert_eq!(alone[0][0].tokens, tokens, "{name}");
        }
        // One text in one part is the text.
        let whole = TrainExample { parts: Vec::new(), ..examples[1].clone() };
        let off = (g.hidden_states([&examples[1]], mode) - g.hidden_states([&whole], mode)).abs().max();
        assert_eq!(f64::try_from(off).unwrap(), 0.0);
        // What is looked at: nothing of the target.
        let seen = g.attention_received(&examples.iter().collect::<Vec<_>>(), mode);
        let seen: Vec<f64> = Vec::try_from(seen.to_kind(ragduet_torch::Kind::Double)).unwrap();
        let mut padded = Vec::new();
        for (w, e) in want.iter().zip(&examples) {
            padded.extend(serde_json::from_value::<Vec<f64>>(w["attention"].clone()).unwrap());
            padded.extend(vec![0.0; e.ids.len() - e.source]);
        }
        assert_close(&seen, &padded, name);
    }
    let ids: Vec<u32> = serde_json::from_value(all["text"].clone()).unwrap();
    for (name, want) in all["causal"].as_object().unwrap() {
        let g = golden_model(name);
        let loss = (0..ids.len()).map(|i| i + 6 >= ids.len()).collect();
        let e = TrainExample { ids: ids.clone(), loss, ..TrainExample::default() };
        let other = TrainExample {
            ids: ids[3..].to_vec(),
            loss: vec![true; ids.len() - 3],
            ..TrainExample::default()
        };
        let seen = g.attention_received(&[&other, &e], g.mode(false)).narrow(0, other.ids.len() as i64, 24);
        let seen: Vec<f64> = Vec::try_from(seen.to_kind(ragduet_torch::Kind::Double)).unwrap();
        assert_close(&seen, &serde_json::from_value::<Vec<f64>>(want.clone()).unwrap(), name);
    }
}

fn assert_close(have: &[f64], want: &[f64], what: &str) {
    assert_eq!(have.len(), want.len(), "{what}");
    for (h, w) in have.iter().zip(want) {
        assert!(
            (h - w).abs() < 1e-4 * w.abs().max(1.0) && (h - w).abs() < 1e-3 * w.abs().max(1e-3),
            "{what}: {h} {w}"
        );
    }
}

#[test]
fn fusion_shows_each_passage_beside_the_question() {
    let _turn = alone();
    rng::seed(1);
    let g = scratch().build(["a few words"].into_iter(), Device::Cpu, Compute::F32).unwrap();
    let text = |n: usize| format!("passage {n} {}", "says what it says. ".repeat(n));
    let found = |n: usize| Found {
        passage: Passage { id: format!("p{n}"), title: None, text: text(n) },
        score: None,
    };
    let record = RagRecord {
        id: "q".into(),
        question: "what does it say?".into(),
        answers: vec!["much".into()],
        contexts: vec![found(1), found(2), found(12)],
        ..RagRecord::default()
    };
    let mut config = PromptConfig {
        fusion: true,
        max_tokens: Some(160),
        min_passage_tokens: 4,
        ..PromptConfig::default()
    };
    let p = Preparer::new(&g, &config, ContextConfig::retrieved(3), 4000, 0).unwrap();
    let mut report = PrepareReport::default();
    let (e, places) = p.example_with_places(&record, 0, &mut report).unwrap().unwrap();
    assert_eq!((e.parts.len(), e.parts.iter().sum::<usize>()), (3, e.source));
    assert!(e.parts.iter().all(|&n| n <= 160 && n > 40), "{:?}", e.parts);
    assert_eq!((report.kept, report.shortened, report.dropped), (2, 1, 0));
    for (n, place) in [1, 2, 12].into_iter().zip(&places) {
        let read = g.tokenizer.decode(&e.ids[place.tokens.clone()], true).unwrap();
        assert!(read.contains(&format!("passage {n} says")) && read.contains("what does it say?"), "{read}");
    }
    let prompt = p.prompt(&record, 8, &mut report).unwrap().unwrap();
    assert_eq!((prompt.parts.len(), prompt.ids.len()), (3, prompt.parts.iter().sum()));
    // The room for all of it takes passages from the end.
    let p = Preparer::new(&g, &config, ContextConfig::retrieved(3), 320, 0).unwrap();
    let e = p.example(&record, 0, &mut report).unwrap().unwrap();
    assert!(e.ids.len() <= 320 && e.parts.len() >= 2, "{:?}", e.parts);
    // Read together: the same passages have places that hold their text.
    config.fusion = false;
    config.max_tokens = Some(900);
    let p = Preparer::new(&g, &config, ContextConfig::retrieved(3), 4000, 0).unwrap();
    let (e, places) = p.example_with_places(&record, 0, &mut report).unwrap().unwrap();
    assert!(e.parts.is_empty());
    for (n, place) in [1, 2, 12].into_iter().zip(&places) {
        let read = g.tokenizer.decode(&e.ids[place.tokens.clone()], true).unwrap();
        assert_eq!(read.trim(), text(n).trim());
    }
    (config.fusion, config.max_tokens) = (true, Some(32));
    let llama = golden_model("llama");
    let e = Preparer::new(&llama, &config, ContextConfig::retrieved(3), 64, 0).unwrap_err().to_string();
    assert!(e.contains("prompt.fusion") && e.contains("encoder-decoder"), "{e}");
}

#[test]
fn adapters_answer_with_a_cache_and_beams_and_are_swapped_without_a_trace() {
    let _turn = alone();
    let (_, requests) = golden();
    let peft = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden/peft");
    let mut g = golden_model("t5");
    let plain = DecodeConfig { max_new_tokens: Some(7), ..DecodeConfig::default() };
    let beams = DecodeConfig { num_beams: Some(3), num_return_sequences: Some(2), ..plain.clone() };
    // Without an end, so that all are as long.
    let resolve = |c: &DecodeConfig| c.resolve(None, &[]).unwrap();
    let tokens = |g: &Generator, requests: &[Request], c: &DecodeConfig| -> Vec<Vec<Vec<u32>>> {
        let have = g.generate(requests, &resolve(c), Hooks::default()).unwrap();
        have.into_iter().map(|a| a.into_iter().map(|s| s.tokens).collect()).collect()
    };
    let before = tokens(&g, &requests, &beams);
    for name in ["prompt_t5", "prefix_t5", "bn_houlsby_t5", "lora_t5"] {
        let adapter = g.read_adapter(&peft.join(name)).unwrap();
        assert!(g.swap(Some(adapter)).is_none());
        let together = tokens(&g, &requests, &plain);
        for (r, have) in requests.iter().zip(&together) {
            assert_eq!(have[0], greedy(&g, &r.prompt, have[0].len()), "{name}");
        }
        let both = tokens(&g, &requests, &beams);
        assert_ne!(both, before, "{name} matters");
        for (r, want) in requests.iter().zip(&both) {
            assert_eq!(&tokens(&g, std::slice::from_ref(r), &beams)[0], want, "{name}: alone");
        }
        // Off, on, off.
        let held = g.swap(None);
        assert_eq!(tokens(&g, &requests, &beams), before, "{name} leaks");
        g.swap(held);
        assert_eq!(tokens(&g, &requests, &beams), both, "{name} comes back");
        g.swap(None);
    }
}

#[test]
fn samples_are_a_matter_of_the_seed_and_empty_sources_an_error() {
    let _turn = alone();
    let (_, requests) = golden();
    let g = golden_model("flan_t5");
    let config = DecodeConfig {
        max_new_tokens: Some(20),
        do_sample: Some(true),
        num_return_sequences: Some(3),
        ..DecodeConfig::default()
    };
    let together = g.answer(&requests, &config, 4, &mut |_| ()).unwrap();
    let mut backwards: Vec<Request> = requests.clone();
    backwards.reverse();
    let mut apart = g.answer(&backwards, &config, 2, &mut |_| ()).unwrap();
    apart.reverse();
    assert_eq!(together, apart);
    assert!(together[0][0].tokens != together[0][1].tokens && together[0].len() == 3);
    let d = config.resolve(None, &[1]).unwrap();
    let empty = Request { prompt: vec![], seed: 0, ..Request::default() };
    let e = g.generate(&[requests[0].clone(), empty], &d, Hooks::default()).unwrap_err().to_string();
    assert!(e.contains("request 1 has an empty prompt"), "{e}");
    assert!(g.generate(&[], &d, Hooks::default()).unwrap().is_empty());
}

fn scratch() -> ScratchGenerator {
    ScratchGenerator {
        architecture: ScratchArchitecture::T5,
        vocab_size: 300,
        hidden_size: 48,
        layers: 2,
        heads: 4,
        intermediate_size: 96,
        max_positions: 256,
        ..ScratchGenerator::default()
    }
}

const COLOURS: [&str; 4] = ["red", "green", "blue", "white"];

/// Doors and their colours; the passages say which.
fn write_records(dir: &Path) -> PathBuf {
    let mut text = String::new();
    for i in 0..12 {
        let contexts: Vec<Value> = [i, (i + 5) % 12]
            .iter()
            .map(|d| json!({"id": d.to_string(), "text": format!("Door {d} is {}.", COLOURS[d % 4])}))
            .collect();
        let row = json!({
            "id": format!("q{i}"), "question": format!("What colour is door {i}?"), "answers": [COLOURS[i % 4]],
            "contexts": contexts, "gold": [i.to_string()],
        });
        let _ = writeln!(text, "{row}");
    }
    let path = dir.join("records.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

fn config(records: &Path, model: &str, run: &str) -> SftConfig {
    SftConfig::from_toml(&format!(
        r#"
        [run]
        seed = 5
        precision = "fp32"
        {run}
        [model]
        {model}
        [model.scratch]
        architecture = "t5"
        vocab_size = 300
        hidden_size = 48
        layers = 2
        heads = 4
        intermediate_size = 96
        max_positions = 256
        [data]
        train = "{0}"
        dev = "{0}"
        [contexts]
        count = 2
        golden_drop_rate = 0.1
        [batch]
        tokens = 300
        accumulate = 2
        [optim]
        lr = 3e-3
        [eval]
        at_start = false
        every_steps = 3
        [eval.decode]
        max_new_tokens = 8
        do_sample = false
        [save]
        every_steps = 2
        "#,
        records.display()
    ))
    .unwrap()
}

fn run(config: &SftConfig, out: &Path, resume: bool, stop_after: Option<u64>) -> sft::Outcome {
    sft::train(
        config,
        &RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() },
    )
    .unwrap()
}

fn losses(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().filter_map(|l| serde_json::from_str::<Value>(l).unwrap()["loss"].as_f64()).collect()
}

fn weights(run: &Path) -> Vec<(String, Tensor)> {
    let w = Weights::open_dir(&run.join("best")).unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

#[test]
fn a_t5_learns_its_examples_and_the_saved_folder_answers_them() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let records = write_records(dir.path());
    let mut c = config(&records, "dropout = 0.0", "epochs = 100\nlog_every = 1");
    c.eval.every_steps = 0;
    c.contexts.golden_drop_rate = 0.0;
    let out = dir.path().join("run");
    let o = run(&c, &out, false, None);
    let losses = losses(&out);
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.1 * first, "{first} {last}");
    let best = o.run.best.unwrap().scores;
    assert!(o.run.finished && best.exact_match >= 0.9, "{best:?}");

    let g = Generator::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
    assert_eq!(
        (g.decoder_start(), g.usual_tokens(), g.max_tokens()),
        (g.tokenizer.pad_id(), 256, usize::MAX)
    );
    let all: Vec<_> =
        ragduet_data::read_rag(&records, &Default::default()).unwrap().map(Result::unwrap).collect();
    let options = AnswerOptions {
        prompt: &c.prompt,
        contexts: ContextConfig::retrieved(2),
        decode: &c.eval.decode,
        batch: 5,
        seed: c.run.seed,
    };
    let (answers, _) = answer_all(&g, &all, &options, &mut |_| ()).unwrap();
    let right = answers.iter().filter(|a| a.exact_match > Some(0.5)).count();
    assert!((right as f64 / 12.0 - best.exact_match).abs() < 1e-9, "{right}");
    // It learned to stop.
    let source = g.tokenizer.source_ids("What colour is door 1?").unwrap();
    let d = c.eval.decode.resolve(None, &g.eos()).unwrap();
    let out = g
        .generate(&[Request { prompt: source, seed: 0, ..Request::default() }], &d, Hooks::default())
        .unwrap();
    assert_eq!(out[0][0].finish, Finish::Eos);
}

#[test]
fn adapters_that_add_rows_and_networks_learn_over_a_t5() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let records = write_records(dir.path());
    let c = config(&records, "dropout = 0.0", "epochs = 3");
    let base = dir.path().join("base");
    run(&c, &base, false, None);
    let stored = std::fs::read(base.join("best/model.safetensors")).unwrap();
    for (peft, lr) in [
        ("prompt = { tokens = 5 }", 0.3),
        ("prefix = { tokens = 5 }", 0.1),
        ("prefix = { tokens = 5, projection = 16 }", 2e-2),
        ("bottleneck = { reduction = 4.0 }", 2e-2),
        ("bottleneck = { kind = \"parallel\" }", 2e-2),
    ] {
        let mut c = config(&records, "dropout = 0.1", "epochs = 30\nlog_every = 1");
        c.model.scratch = None;
        c.model.base = Some(base.join("best").display().to_string());
        c.peft = Some(toml::from_str(peft).unwrap());
        c.eval.every_steps = 0;
        c.optim.lr = lr;
        let (out, parts) = (dir.path().join("out"), dir.path().join("parts"));
        assert!(run(&c, &out, false, None).run.finished);
        let all = losses(&out);
        // Batches differ more than a prefix over so small a base moves in a step.
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        let (first, last) = (mean(&all[..10]), mean(&all[all.len() - 10..]));
        assert!(last < 0.98 * first, "{peft}: {first} to {last}");
        assert!(!run(&c, &parts, false, Some(5)).run.finished);
        run(&c, &parts, true, None);
        let hub = peft.starts_with("bottleneck");
        let file = if hub { "best/adapter.safetensors" } else { "best/adapter_model.safetensors" };
        let read = |run: &Path| std::fs::read(run.join(file)).unwrap();
        assert!(read(&out) == read(&parts), "{peft}: stopped and resumed");
        // The folder answers.
        let g = Generator::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
        let source = g.tokenizer.source_ids("What colour is door 1?").unwrap();
        let d =
            DecodeConfig { max_new_tokens: Some(4), ..DecodeConfig::default() }.resolve(None, &[]).unwrap();
        let said = g
            .generate(
                &[Request { prompt: source.clone(), seed: 0, ..Request::default() }],
                &d,
                Hooks::default(),
            )
            .unwrap();
        assert_eq!(said[0][0].tokens, greedy(&g, &source, 4), "{peft}");
        for d in [out, parts] {
            std::fs::remove_dir_all(d).unwrap();
        }
    }
    assert!(stored == std::fs::read(base.join("best/model.safetensors")).unwrap(), "the base moved");
}

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let records = write_records(dir.path());
    // With dropout everywhere.
    let c = config(&records, "dropout = 0.1\nattention_dropout = 0.1", "epochs = 3");
    let whole = dir.path().join("whole");
    let o = run(&c, &whole, false, None);
    assert!(o.run.finished && o.run.step >= 4, "{}", o.run.step);
    for stops in [vec![1], vec![2, 1]] {
        let parts = dir.path().join(format!("parts{}", stops.len()));
        assert!(!run(&c, &parts, false, Some(stops[0])).run.finished);
        for n in &stops[1..] {
            assert!(!run(&c, &parts, true, Some(*n)).run.finished);
        }
        assert!(run(&c, &parts, true, None).run.finished);
        let (a, b) = (weights(&whole), weights(&parts));
        assert!(a.len() == b.len() && a.len() > 40);
        for ((name, a), (_, b)) in a.iter().zip(&b) {
            assert!(a.equal(b), "{name} after {stops:?}");
        }
    }
}

#[test]
fn preferences_are_learned() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    rng::seed(2);
    let things = ["door", "gate", "roof", "wall", "lamp", "boat", "tree", "road"];
    let texts = things.map(|t| format!("Is the {t} open? yes it is, no it is not."));
    let model = scratch().build(texts.iter().map(String::as_str), Device::Cpu, Compute::F32).unwrap();
    model.save(&dir.path().join("base")).unwrap();
    let mut rows = String::new();
    for t in things {
        let row = json!({"prompt": format!("Is the {t} open?"), "chosen": " yes it is", "rejected": " no it is not"});
        let _ = writeln!(rows, "{row}");
    }
    std::fs::write(dir.path().join("pairs.jsonl"), rows).unwrap();
    for (loss, at_first) in [("dpo", Some(2f64.ln())), ("orpo", None)] {
        let config = PreferenceConfig::from_toml(&format!(
            r#"
            run = {{ seed = 3, precision = "fp32", epochs = 8, log_every = 1 }}
            model.base = "{0}/base"
            data.train = "{0}/pairs.jsonl"
            data.dev = "{0}/pairs.jsonl"
            preference.loss.{loss} = {{}}
            batch.tokens = 120
            optim.lr = 2e-3
            "#,
            dir.path().display()
        ))
        .unwrap();
        let out = dir.path().join(loss);
        let options = RunOptions { out: out.clone(), quiet: true, ..RunOptions::default() };
        let o = preference::train(&config, &options).unwrap();
        let scores = o.run.best.unwrap().scores;
        assert_eq!(o.pairs, (8, 0));
        assert!(
            o.run.finished && scores.rewards.margin > 0.0 && scores.rewards.accuracy == Some(1.0),
            "{scores:?}"
        );
        if let Some(want) = at_first {
            let first = losses(&out)[0];
            assert!((first - want).abs() < 1e-5, "{first}: policy and reference are equal at the start");
        }
        Generator::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
    }
}

#[test]
fn what_does_not_fit_an_encoder_decoder_is_said() {
    let _turn = alone();
    rng::seed(1);
    let dir = tempfile::tempdir().unwrap();
    let g = scratch().build(["a few words"].into_iter(), Device::Cpu, Compute::F32).unwrap();
    let prompt = PromptConfig { chat: Some(true), ..PromptConfig::default() };
    let e = Preparer::new(&g, &prompt, ContextConfig::default(), 100, 0).unwrap_err().to_string();
    assert!(e.contains("prompt.chat") && e.contains("plain prompts"), "{e}");

    g.save(dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("decoder_start_token_id");
    std::fs::write(&path, config.to_string()).unwrap();
    let e = Generator::load(dir.path(), Device::Cpu, Compute::F32).unwrap_err().to_string();
    assert!(e.contains("decoder_start_token_id"), "{e}");

    // More than the usual length only where it is asked for.
    let record = ragduet_data::RagRecord {
        id: "1".into(),
        question: "which?".into(),
        contexts: (0..9)
            .map(|i| ragduet_data::Found {
                passage: ragduet_data::Passage {
                    id: i.to_string(),
                    title: None,
                    text: "a few words ".repeat(20),
                },
                score: None,
            })
            .collect(),
        ..ragduet_data::RagRecord::default()
    };
    let length = |prompt: &PromptConfig| {
        let p = Preparer::new(&g, prompt, ContextConfig::retrieved(9), usize::MAX, 0).unwrap();
        p.prompt(&record, 10, &mut PrepareReport::default()).unwrap().unwrap().ids.len()
    };
    let usual = length(&PromptConfig::default());
    assert!((200..=246).contains(&usual), "{usual}");
    let more = length(&PromptConfig { max_tokens: Some(600), ..PromptConfig::default() });
    assert!((500..=590).contains(&more), "{more}");
}

#[test]
fn examples_have_the_source_first_and_rows_that_predict_the_target() {
    let _turn = alone();
    rng::seed(1);
    let g = scratch().build(["a few words"].into_iter(), Device::Cpu, Compute::F32).unwrap();
    let start = g.decoder_start().unwrap();
    let options = ExampleOptions::default();
    let made = |p: &str, c: &str| g.tokenizer.seq2seq_example(p, c, start, &options).unwrap().unwrap();
    let (a, b) = (made("what is it?", " a few"), made("and this, a few words on?", "words"));
    assert_eq!(&a.ids[..a.source], g.tokenizer.source_ids("what is it?").unwrap());
    assert_eq!(a.ids[a.source], start);
    assert_eq!(a.ids.last().copied(), g.tokenizer.eos_id());
    assert_eq!(g.tokenizer.decode(&a.ids[a.source + 1..], true).unwrap(), "a few");
    assert_eq!(a.loss.iter().filter(|on| **on).count(), a.targets());
    assert_eq!(a.targets(), a.ids.len() - a.source - 1);

    let mode = Mode::eval(Compute::F32);
    let together = g.hidden_states([&a, &b], mode);
    let lm = g.model.seq2seq().unwrap();
    let pack = |ids: &[u32]| ragduet_nn::PackedTokens::from_ids([ids], Device::Cpu);
    let source = pack(&b.ids[..b.source]);
    let encoded = lm.encode(&source, mode);
    let decoded = lm.decode(&pack(&b.ids[b.source..]), &encoded, &source.segments, mode);
    let want = Tensor::cat(&[encoded, decoded], 0);
    let have = together.narrow(0, a.ids.len() as i64, b.ids.len() as i64);
    let off = f64::try_from((have - want).abs().max()).unwrap();
    assert!(off < 1e-5, "{off}");
}
