//! Adapters in the recipes: they learn, the base stays, runs resume bit for bit, folders load and merge.

use ragduet_generator::Generator;
use ragduet_generator::recipe::RunOptions;
use ragduet_generator::recipe::config::SftConfig;
use ragduet_generator::recipe::sft::{Outcome, train};
use ragduet_nn::{PackedTokens, fresh_language_model, save_language_model};
use ragduet_testkit::alone;
use ragduet_text::{ByteBpeOptions, train_byte_bpe};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor, no_grad, rng};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::Path;

/// A base with random weights, and records to learn.
fn prepare(dir: &Path) {
    let mut text = String::new();
    for i in 0..8 {
        let colour = ["red", "green"][i % 2];
        let row = serde_json::json!({
            "id": format!("q{i}"), "question": format!("What colour is door {i}?"), "answers": [colour],
            "contexts": [{"id": i.to_string(), "text": format!("Door {i} is {colour}.")}], "gold": [i.to_string()],
        });
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(dir.join("records.jsonl"), &text).unwrap();
    let tokenizer =
        train_byte_bpe(text.lines(), &ByteBpeOptions { vocab_size: 300, ..ByteBpeOptions::default() })
            .unwrap();
    rng::seed(3);
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256,
        "tie_word_embeddings": true, "eos_token_id": tokenizer.eos_id(),
        "initializer_range": 0.15,
    });
    let model = fresh_language_model(config, Device::Cpu).unwrap();
    save_language_model(&model, &dir.join("base")).unwrap();
    tokenizer.save(dir.join("base")).unwrap();
}

fn config(dir: &Path, peft: &str, steps: u64) -> SftConfig {
    let text = format!(
        "[run]\nseed = 5\nprecision = \"fp32\"\nmax_steps = {steps}\n[model]\nbase = \"{0}/base\"\nrecompute = {1}\n{peft}\n[data]\ntrain = \"{0}/records.jsonl\"\n\
         [contexts]\ncount = 1\n[batch]\ntokens = 300\n[optim]\nlr = 1e-2\n\
         [save]\nevery_steps = 4\n",
        dir.display(),
        // With dropout, what is made again must be what it was.
        peft.contains("dropout"),
    );
    SftConfig::from_toml(&text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn run(c: &SftConfig, out: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    train(c, &RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() })
        .unwrap()
}

fn losses(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    rows.filter_map(|r| r["loss"].as_f64()).collect()
}

fn weights(dir: &Path) -> Vec<(String, Tensor)> {
    let w = Weights::open_file(&dir.join("adapter_model.safetensors")).unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

const METHODS: [(&str, &str); 6] = [
    ("lora", "[peft.lora]\nrank = 4\ndropout = 0.1\nb_lr_ratio = 2.0"),
    ("dora", "[peft.lora]\nrank = 4\ndora = true\ntargets = [\"q_proj\", \"v_proj\", \"down_proj\"]"),
    ("tables", "[peft.lora]\nrank = 4\ntargets = [\"embed_tokens\", \"o_proj\"]"),
    ("ia3", "[peft.ia3]"),
    ("prompt", "[peft.prompt]\ntokens = 6"),
    ("prefix", "[peft.prefix]\ntokens = 6\nprojection = 16"),
];

#[test]
fn every_method_learns_resumes_and_leaves_the_base_alone() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let base = std::fs::read(dir.path().join("base/model.safetensors")).unwrap();
    for (name, peft) in METHODS {
        let c = config(dir.path(), peft, 60);
        let out = dir.path().join(name);
        assert!(run(&c, &out, false, None).run.finished);
        let all = losses(&out);
        assert!(all[all.len() - 1] < 0.95 * all[0], "{name}: {all:?}");
        let best = out.join("best");
        assert!(!best.join("model.safetensors").exists(), "{name}: an adapter's folder holds no base");

        // Stopped and resumed: the same adapter, bit for bit.
        let again = dir.path().join(format!("{name}-again"));
        let _ = run(&c, &again, false, Some(13));
        assert!(run(&c, &again, true, None).run.finished);
        for ((n, a), (_, b)) in weights(&best).into_iter().zip(weights(&again.join("best"))) {
            assert!(a.equal(&b), "{name}: {n} differs after a resume");
        }
        check_folder(name, &best, &dir.path().join(format!("{name}-merged")));
    }
    assert_eq!(base, std::fs::read(dir.path().join("base/model.safetensors")).unwrap());
}

fn hidden(g: &Generator) -> Tensor {
    let _guard = no_grad();
    let batch = PackedTokens::from_ids([[5u32, 17, 30, 99].as_slice(), &[7, 8]], Device::Cpu);
    let lm = g.model.causal().unwrap();
    lm.logits(&lm.forward(&batch, g.mode(false)), g.mode(false))
}

/// The folder loads, matters, and merges into a model that computes the same.
fn check_folder(name: &str, best: &Path, merged: &Path) {
    let mut g = Generator::load(best, Device::Cpu, Compute::F32).unwrap();
    let want = hidden(&g);
    let base = Generator::load(Path::new(&g.base), Device::Cpu, Compute::F32).unwrap();
    assert!(!hidden(&base).allclose(&want, 1e-3, 1e-3, false), "{name}: the adapter matters");
    match g.merge() {
        Ok(()) => {
            g.save(merged).unwrap();
            let alone = Generator::load(merged, Device::Cpu, Compute::F32).unwrap();
            assert!(alone.adapter.is_none() && hidden(&alone).allclose(&want, 1e-4, 1e-4, false), "{name}");
        }
        // A tied table would change the head as well; prompts and prefixes are no weights.
        Err(_) => assert!(["tables", "prompt", "prefix"].contains(&name), "{name}"),
    }
}

#[test]
fn what_cannot_be_adapted_is_said() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let fails = |peft: &str| {
        let options = RunOptions { out: dir.path().join("x"), quiet: true, ..RunOptions::default() };
        let e = train(&config(dir.path(), peft, 2), &options).unwrap_err().to_string();
        let _ = std::fs::remove_dir_all(dir.path().join("x"));
        e
    };
    for (peft, words) in [
        ("[peft.lora]\ntargets = [\"query\"]", "q_proj"),
        ("[peft.lora]\nrank = 0", "rank"),
        ("[peft.ia3]\ntargets = [\"nothing\"]", "nothing"),
    ] {
        let e = fails(peft);
        assert!(e.contains("peft") && e.contains(words), "{peft}: {e}");
    }
}
