//! Preference optimisation as a whole: it starts at the loss that equal models have, prefers what it was taught to,
//! and resumes bit for bit with the reference it began with.

use ragduet_generator::ScratchGenerator;
use ragduet_generator::recipe::RunOptions;
use ragduet_generator::recipe::config::PreferenceConfig;
use ragduet_generator::recipe::preference::{Outcome, train};
use ragduet_testkit::alone;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor, rng};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::Path;

const THINGS: [&str; 8] = ["door", "gate", "roof", "wall", "lamp", "boat", "tree", "road"];

fn set_up(dir: &Path) {
    rng::seed(2);
    let size = ScratchGenerator {
        vocab_size: 320,
        hidden_size: 32,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        intermediate_size: 64,
        max_positions: 128,
        ..ScratchGenerator::default()
    };
    let texts = THINGS.map(|t| format!("Is the {t} open? yes it is, no it is not."));
    let model = size.build(texts.iter().map(String::as_str), Device::Cpu, Compute::F32).unwrap();
    model.save(&dir.join("base")).unwrap();
    let mut rows = String::new();
    for t in THINGS {
        let row = serde_json::json!({
            "prompt": format!("Is the {t} open?"), "chosen": " yes it is", "rejected": " no it is not",
        });
        let _ = writeln!(rows, "{row}");
    }
    let _ = writeln!(
        rows,
        "{}",
        serde_json::json!({"prompt": "long ".repeat(300), "chosen": " yes", "rejected": " no"})
    );
    std::fs::write(dir.join("pairs.jsonl"), rows).unwrap();
}

fn config(dir: &Path, loss: &str, more: &str) -> PreferenceConfig {
    PreferenceConfig::from_toml(&format!(
        r#"
        run.seed = 3
        run.precision = "fp32"
        model.base = "{0}/base"
        data.train = "{0}/pairs.jsonl"
        data.dev = "{0}/pairs.jsonl"
        preference.loss.{loss}
        batch = {{ tokens = 160, accumulate = 2 }}
        optim.lr = 1e-3
        save.every_steps = 1
        {more}
        "#,
        dir.display()
    ))
    .unwrap()
}

fn run(config: &PreferenceConfig, out: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    train(config, &RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() })
        .unwrap()
}

fn lines(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn every_paired_loss_learns_to_prefer() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    for loss in ["dpo = {}", "robust = {}", "hinge = {}", "ipo = {}", "orpo = {}", "simpo = {}"] {
        let name = loss.split(' ').next().unwrap();
        let out = dir.path().join(name);
        let o = run(&config(dir.path(), loss, "run.epochs = 12\nrun.log_every = 1"), &out, false, None);
        assert_eq!(o.pairs, (8, 1), "{name}: what is too long is counted");
        let s = o.run.best.unwrap().scores;
        assert!(o.run.finished && s.rewards.accuracy == Some(1.0) && s.rewards.margin > 0.0, "{name}: {s:?}");
        let first = lines(&out).into_iter().find(|l| l["kind"] == "train").unwrap();
        let first = first["loss"].as_f64().unwrap();
        assert!(s.loss < first, "{name}: {first} to {}", s.loss);
        if name == "dpo" {
            // Policy and reference are equal at the first step: -log sigmoid(0).
            assert!((first - std::f64::consts::LN_2).abs() < 1e-5, "{first}");
        }
        assert_eq!(out.join("reference").is_dir(), !matches!(name, "orpo" | "simpo"), "{name}");
    }
}

#[test]
fn adapters_learn_to_prefer_over_codes() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    for (loss, quantize) in [("dpo = {}", "nf4"), ("dpo = {}", "int8"), ("simpo = {}", "nf4")] {
        let name = format!("{} {quantize}", loss.split(' ').next().unwrap());
        let more = format!(
            "model.quantize = '{quantize}'\npeft.lora = {{ rank = 4 }}\nrun.epochs = 20\nrun.log_every = 1"
        );
        let mut c = config(dir.path(), loss, &more);
        c.optim.lr = 1e-2;
        let (out, parts) = (dir.path().join(&name), dir.path().join(format!("{name} in parts")));
        let o = run(&c, &out, false, None);
        let s = o.run.best.unwrap().scores;
        assert!(s.rewards.accuracy == Some(1.0) && s.rewards.margin > 0.0, "{name}: {s:?}");
        if name.starts_with("dpo") {
            // The reference is the base with the adapter off, in codes as well: equal to the policy at first.
            let first = lines(&out).into_iter().find(|l| l["kind"] == "train").unwrap();
            assert!(
                (first["loss"].as_f64().unwrap() - std::f64::consts::LN_2).abs() < 1e-5,
                "{name}: {first}"
            );
        }
        assert!(!run(&c, &parts, false, Some(3)).run.finished);
        assert!(run(&c, &parts, true, None).run.finished);
        let file = |run: &Path| std::fs::read(run.join("best/adapter_model.safetensors")).unwrap();
        assert!(file(&out) == file(&parts), "{name}: stopped and resumed");
    }
    let whole = config(dir.path(), "dpo = {}", "model.quantize = 'nf4'");
    let options = RunOptions { out: dir.path().join("whole"), quiet: true, ..RunOptions::default() };
    assert!(train(&whole, &options).unwrap_err().to_string().contains("give [peft]"));
}

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    let c = config(
        dir.path(),
        "dpo = { beta = 0.2 }",
        "run.epochs = 3\neval = { every_steps = 2, at_start = false }",
    );
    let weights = |run: &Path| -> Vec<(String, Tensor)> {
        let w = Weights::open_dir(&run.join("best")).unwrap();
        w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
    };
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    assert!(run(&c, &whole, false, None).run.step >= 3);
    assert!(!run(&c, &parts, false, Some(2)).run.finished);
    let rows = std::fs::read_to_string(dir.path().join("pairs.jsonl")).unwrap();
    // What the reference says belongs to its rows.
    std::fs::write(dir.path().join("pairs.jsonl"), rows.replace("door", "boat")).unwrap();
    let options = RunOptions { out: parts.clone(), resume: true, quiet: true, ..RunOptions::default() };
    let e = train(&c, &options).unwrap_err().to_string();
    assert!(e.contains("reference") && e.contains("other data"), "{e}");
    std::fs::write(dir.path().join("pairs.jsonl"), rows).unwrap();
    assert!(run(&c, &parts, true, None).run.finished);
    for ((name, a), (_, b)) in weights(&whole).iter().zip(&weights(&parts)) {
        assert!(a.equal(b), "{name}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    for (loss, more, words) in [
        ("kto = {}", "", "no completion"),
        ("kto = {}", "preference.sft_weight = 0.5", "no pairs"),
        ("dpo = {}", "data.format = 'chat'", "the loss says"),
        ("dpo = {}", "max_tokens = 100", "a pair stays together"),
        ("dpo = {}", "chat = true", "no chat template"),
        ("orpo = {}", "preference.sft_weight = 0.5", "likelihood term of its own"),
    ] {
        let c = config(dir.path(), loss, more);
        let options = RunOptions { out: dir.path().join(loss), quiet: true, ..RunOptions::default() };
        let e = train(&c, &options).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
        let _ = std::fs::remove_dir_all(dir.path().join(loss));
    }
}

/// A good and a bad completion of each prompt, side by side.
fn judged(dir: &Path, loss: &str, more: &str) -> PreferenceConfig {
    let mut rows = String::new();
    for t in THINGS {
        for (completion, label) in [(" yes it is", true), (" no it is not", false)] {
            let row = serde_json::json!({
                "prompt": format!("Is the {t} open?"), "completion": completion, "label": label,
            });
            let _ = writeln!(rows, "{row}");
        }
    }
    let long = serde_json::json!({"prompt": "long ".repeat(300), "completion": " yes", "label": true});
    let _ = writeln!(rows, "{long}");
    std::fs::write(dir.join("pairs.jsonl"), rows).unwrap();
    config(dir, loss, more)
}

#[test]
fn kto_learns_from_single_judged_completions_and_resumes() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    let loss = "kto = { undesirable_weight = 1.1 }";
    let c = judged(dir.path(), loss, "run.epochs = 8\nrun.log_every = 1");
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let o = run(&c, &whole, false, None);
    assert_eq!(o.pairs, (16, 1));
    let s = o.run.best.unwrap().scores;
    // Equal models: every ratio and the divergence are 0, so a row's loss is half its weight.
    let train: Vec<_> = lines(&whole).into_iter().filter(|l| l["kind"] == "train").collect();
    let first = train[0]["loss"].as_f64().unwrap();
    assert!((0.5 - 1e-5..=0.55 + 1e-5).contains(&first), "{first}");
    assert!(s.loss < 0.525 && s.rewards.chosen > s.rewards.rejected && s.rewards.accuracy.is_none(), "{s:?}");

    assert!(!run(&c, &parts, false, Some(3)).run.finished);
    assert!(run(&c, &parts, true, None).run.finished);
    let weights = |run: &Path| -> Vec<(String, Tensor)> {
        let w = Weights::open_dir(&run.join("best")).unwrap();
        w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
    };
    for ((name, a), (_, b)) in weights(&whole).iter().zip(&weights(&parts)) {
        assert!(a.equal(b), "{name}");
    }
}

#[test]
fn kto_needs_two_prompts() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    let c = judged(dir.path(), "kto = {}", "");
    let row = "{\"prompt\": \"p\", \"completion\": \" c\", \"label\": true}\n";
    std::fs::write(dir.path().join("pairs.jsonl"), row.repeat(2)).unwrap();
    let options = RunOptions { out: dir.path().join("run"), quiet: true, ..RunOptions::default() };
    let e = train(&c, &options).unwrap_err().to_string();
    assert!(e.contains("two prompts"), "{e}");
}

#[test]
fn conversations_are_preferred_without_a_chat_template() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path());
    let mut rows = String::new();
    for t in THINGS {
        let talk = |answer: &str| {
            serde_json::json!([
                {"role": "user", "content": format!("Is the {t} open?")}, {"role": "assistant", "content": answer},
            ])
        };
        let _ =
            writeln!(rows, "{}", serde_json::json!({"chosen": talk("yes it is"), "rejected": talk("no")}));
    }
    std::fs::write(dir.path().join("pairs.jsonl"), rows).unwrap();
    let c = config(dir.path(), "dpo = {}", "run.epochs = 6");
    let o = run(&c, &dir.path().join("run"), false, None);
    assert_eq!((o.pairs, o.run.best.unwrap().scores.rewards.accuracy), ((8, 0), Some(1.0)));
}
