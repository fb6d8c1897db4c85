//! QLoRA in the recipes: over 4 bits an adapter learns as over the base, resumes bit for bit, and is saved as any other.

use ragduet_generator::Generator;
use ragduet_generator::recipe::RunOptions;
use ragduet_generator::recipe::config::SftConfig;
use ragduet_generator::recipe::sft::train;
use ragduet_nn::{fresh_language_model, save_language_model};
use ragduet_testkit::alone;
use ragduet_text::{ByteBpeOptions, train_byte_bpe};
use ragduet_torch::device::fast_bf16;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Bits, Compute, Device, rng};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::Path;

/// Records of doors and their colours, which are called `answers`.
fn records(path: &Path, answers: [&str; 3]) -> String {
    let mut text = String::new();
    for i in 0..24 {
        let colour = ["red", "green", "blue"][i * 7 % 3];
        let answer = answers[i * 7 % 3];
        let row = serde_json::json!({
            "id": format!("q{i}"), "question": format!("What colour is door {i}?"), "answers": [answer],
            "contexts": [{"id": i.to_string(), "text": format!("Door {i} is {colour}.")}], "gold": [i.to_string()],
        });
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(path, &text).unwrap();
    text
}

fn run(dir: &Path, name: &str, config: &str, stop_after: Option<u64>, resume: bool) -> Vec<f64> {
    let c = SftConfig::from_toml(config).unwrap_or_else(|e| panic!("{config}\n{e}"));
    let out = dir.join(name);
    let options = RunOptions { out: out.clone(), resume, quiet: true, stop_after, ..RunOptions::default() };
    let _ = train(&c, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    rows.filter_map(|r| r["loss"].as_f64()).collect()
}

fn config(dir: &Path, base: &str, data: &str, quantize: &str, peft: &str, steps: u64, lr: f64) -> String {
    // Where the processor has no bf16, that is several times as slow as fp32 and no closer to what is asked here.
    let precision = if fast_bf16(Device::Cpu) { "bf16" } else { "fp32" };
    format!(
        "[run]\nseed = 5\nprecision = \"{precision}\"\nmax_steps = {steps}\nlog_every = 1\n[model]\nbase = \"{base}\"\nquantize = \"{quantize}\"\n{peft}\n[data]\n\
         train = \"{}\"\n[contexts]\ncount = 1\n[batch]\ntokens = 400\n[optim]\nlr = {lr}\n[save]\nevery_steps = 20\n",
        dir.join(data).display(),
    )
}

#[test]
fn losses_are_within_two_percent_of_lora_over_the_whole_base() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = records(&dir.join("first.jsonl"), ["red", "green", "blue"]);
    let _ = records(&dir.join("second.jsonl"), ["like a rose", "as grass is", "sky and sea"]);
    let options = ByteBpeOptions { vocab_size: 300, ..ByteBpeOptions::default() };
    let tokenizer = train_byte_bpe(text.lines(), &options).unwrap();
    rng::seed(3);
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 128, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "max_position_embeddings": 256,
        "tie_word_embeddings": true, "eos_token_id": tokenizer.eos_id(), "initializer_range": 0.05,
    });
    save_language_model(&fresh_language_model(json, Device::Cpu).unwrap(), &dir.join("new")).unwrap();
    tokenizer.save(dir.join("new")).unwrap();
    // A base that knows something, whose weights are not those of an initialisation.
    let new = dir.join("new").display().to_string();
    let first = run(dir, "base", &config(dir, &new, "first.jsonl", "none", "", 60, 2e-3), None, false);
    assert!(first[first.len() - 1] < 0.5 * first[0], "{first:?}");

    let base = dir.join("base/best").display().to_string();
    let lora = "[peft.lora]\nrank = 8\nalpha = 16.0";
    let of = |quantize: &str| config(dir, &base, "second.jsonl", quantize, lora, 60, 3e-3);
    let plain = run(dir, "lora", &of("none"), None, false);
    for quantize in ["int8", "nf4"] {
        let ours = run(dir, quantize, &of(quantize), None, false);
        assert_eq!(ours.len(), plain.len());
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        assert!(plain[plain.len() - 1] < 0.2 * plain[0], "there is something to learn: {plain:?}");
        // Over the curve, and where it falls: single steps of both rise and fall with their batch.
        for (a, b) in [(0, ours.len()), (0, 20), (0, 10)] {
            let (x, y) = (mean(&ours[a..b]), mean(&plain[a..b]));
            println!("{quantize} steps {a}..{b}: {x:.4}, whole {y:.4}, {:+.2} %", 100.0 * (x / y - 1.0));
            assert!((x / y - 1.0).abs() < 0.02, "{quantize} {a}..{b}: {x} beside {y}");
        }
    }

    // Stopped and resumed: the same adapter, in bf16 everywhere.
    let few = config(dir, &base, "second.jsonl", "nf4", lora, 8, 3e-3).replace("fp32", "bf16");
    let _ = run(dir, "at-once", &few, None, false);
    let _ = run(dir, "again", &few, Some(3), false);
    let _ = run(dir, "again", &few, None, true);
    let file = |n: &str| Weights::open_file(&dir.join(n).join("best/adapter_model.safetensors")).unwrap();
    let (a, b) = (file("at-once"), file("again"));
    for name in a.names() {
        assert!(a.load(name, Device::Cpu).unwrap().equal(&b.load(name, Device::Cpu).unwrap()), "{name}");
    }

    // The adapter's folder is one like any other; merging takes the base as it is on disk.
    let best = dir.join("nf4/best");
    let mut small = Generator::load_quantised(&best, Device::Cpu, Compute::Bf16, Some(Bits::Nf4)).unwrap();
    assert!(small.merge().unwrap_err().to_string().contains("quantised"));
    assert!(small.adapter.is_some(), "a refused merge leaves the adapter where it is");
    let mut whole = Generator::load(&best, Device::Cpu, Compute::F32).unwrap();
    whole.merge().unwrap();
    whole.save(&dir.join("merged")).unwrap();

    // Without an adapter there is nothing to learn.
    let c = SftConfig::from_toml(&config(dir, &base, "second.jsonl", "nf4", "", 4, 1e-3)).unwrap();
    let out = dir.join("none");
    let e = train(&c, &RunOptions { out, quiet: true, ..RunOptions::default() }).unwrap_err();
    assert!(e.to_string().contains("give [peft]"), "{e}");
}
