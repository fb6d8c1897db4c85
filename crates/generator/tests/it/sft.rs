//! Supervised fine-tuning as a whole: it learns, it resumes bit for bit, and what it cannot learn from is counted.

use ragduet_generator::Generator;
use ragduet_generator::decode::{DecodeConfig, Request};
use ragduet_generator::recipe::RunOptions;
use ragduet_generator::recipe::config::SftConfig;
use ragduet_generator::recipe::sft::{Outcome, train};
use ragduet_testkit::alone;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const COLOURS: [&str; 4] = ["red", "green", "blue", "white"];

/// Doors and their colours; the passages say which.
fn write_records(dir: &Path, more: &str) -> PathBuf {
    let mut text = String::new();
    for i in 0..12 {
        let contexts: Vec<_> = [i, (i + 5) % 12]
            .iter()
            .map(|d| serde_json::json!({"id": d.to_string(), "text": format!("Door {d} is {}.", COLOURS[d % 4])}))
            .collect();
        let row = serde_json::json!({
            "id": format!("q{i}"), "question": format!("What colour is door {i}?"), "answers": [COLOURS[i % 4]],
            "contexts": contexts, "gold": [i.to_string()],
        });
        let _ = writeln!(text, "{row}");
    }
    text.push_str(more);
    let path = dir.join("records.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

fn config(records: &Path, epochs: f64, more: &str) -> SftConfig {
    SftConfig::from_toml(&format!(
        r#"
        [run]
        seed = 5
        precision = "fp32"
        epochs = {epochs}
        [model.scratch]
        vocab_size = 300
        hidden_size = 48
        layers = 2
        heads = 4
        kv_heads = 2
        intermediate_size = 96
        max_positions = 256
        [data]
        train = "{0}"
        dev = "{0}"
        [contexts]
        count = 2
        [batch]
        tokens = 400
        [optim]
        lr = 3e-3
        [eval]
        at_start = false
        [eval.decode]
        max_new_tokens = 8
        do_sample = false
        {more}
        "#,
        records.display()
    ))
    .unwrap()
}

fn run(config: &SftConfig, out: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    train(config, &RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() })
        .unwrap()
}

fn weights(run: &Path) -> Vec<(String, Tensor)> {
    let w = Weights::open_dir(&run.join("best")).unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

#[test]
fn it_learns_its_examples_and_the_saved_folder_answers_them() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let records = write_records(dir.path(), "");
    let c = config(&records, 200.0, "");
    let out = dir.path().join("run");
    let o = run(&c, &out, false, None);
    let best = o.run.best.unwrap().scores;
    assert!(o.run.finished && best.exact_match >= 0.9, "{best:?}");
    assert_eq!(o.prepared.examples, 12);
    // The folder is a generator of its own.
    let g = Generator::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
    let prompt = g.tokenizer.prompt_ids("hello").unwrap();
    let decode = DecodeConfig { max_new_tokens: Some(3), do_sample: Some(false), ..DecodeConfig::default() };
    let request = Request { prompt, seed: 0, ..Request::default() };
    let all = g.answer(&[request.clone(), request], &decode, 1, &mut |_| ()).unwrap();
    assert_eq!(all[0], all[1]);
    assert!(out.join("metrics.jsonl").is_file() && out.join("best.json").is_file());
}

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let records = write_records(dir.path(), "");
    let mut c = config(&records, 3.0, "");
    (c.eval.every_steps, c.save.every_steps, c.batch.accumulate) = (3, 2, 2);
    c.contexts.golden_drop_rate = 0.3;
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
        for ((name, a), (_, b)) in weights(&whole).iter().zip(&weights(&parts)) {
            assert!(a.equal(b), "{name} after {stops:?}");
        }
    }
}

#[test]
fn first_epochs_show_excerpts_and_a_resumed_run_shows_the_same() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for i in 0..12 {
        let colour = COLOURS[i % 4];
        let passage = format!("The hall is long. Door {i} is {colour}. It was never shut.");
        let row = serde_json::json!({
            "id": format!("q{i}"), "question": format!("What colour is door {i}?"), "answers": [colour],
            "contexts": [{"id": i.to_string(), "text": passage}], "gold": [i.to_string()],
        });
        let _ = writeln!(text, "{row}");
    }
    let records = dir.path().join("halls.jsonl");
    std::fs::write(&records, text).unwrap();
    let mut c = config(&records, 2.0, "");
    c.contexts.excerpt_epochs = 2;
    for (epochs, steps) in [(Some(2.0), None), (None, None), (Some(2.0), Some(9))] {
        (c.run.epochs, c.run.max_steps) = (epochs, steps);
        let e = c.validate().unwrap_err().to_string();
        assert!(e.contains("contexts.excerpt_epochs") && e.contains("give run.max_steps"), "{e}");
    }
    (c.run.epochs, c.run.max_steps, c.save.every_steps) = (None, Some(9), 2);
    let whole = dir.path().join("whole");
    // What is counted is the epoch under way.
    let first = run(&c, &dir.path().join("first"), false, Some(1)).prepared;
    assert_eq!(first.excerpts, 12);
    assert!(first.to_string().contains("12 show an excerpt"), "{first}");
    assert_eq!(run(&c, &whole, false, None).prepared.excerpts, 0, "the last epoch shows whole passages");
    let parts = dir.path().join("parts");
    assert!(!run(&c, &parts, false, Some(3)).run.finished);
    assert!(!run(&c, &parts, true, Some(3)).run.finished);
    assert!(run(&c, &parts, true, None).run.finished);
    for ((name, a), (_, b)) in weights(&whole).iter().zip(&weights(&parts)) {
        assert!(a.equal(b), "{name}");
    }
    c.contexts.excerpt_epochs = 0;
    let other = dir.path().join("other");
    assert_eq!(run(&c, &other, false, None).prepared.excerpts, 0);
    let differ = weights(&whole).iter().zip(&weights(&other)).any(|((_, a), (_, b))| !a.equal(b));
    assert!(differ, "what is shown is what is learned");
}

#[test]
fn what_cannot_be_learned_is_counted_and_never_trained_on() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let long = "very ".repeat(400);
    let more = format!(
        "{}\n{}\n",
        serde_json::json!({"id": "none", "question": "What is missing?", "contexts": ["nothing"]}),
        serde_json::json!({"id": "long", "question": format!("What is {long} long?"), "answers": ["this"]}),
    );
    let records = write_records(dir.path(), &more);
    let o = run(&config(&records, 1.0, ""), &dir.path().join("run"), false, None);
    assert_eq!((o.prepared.examples, o.prepared.left_out.values().sum::<usize>()), (12, 2));
    let told = o.prepared.to_string();
    assert!(told.contains("no answer") && told.contains("alone are over"), "{told}");
}

#[test]
fn a_folder_with_nothing_to_learn_is_an_error() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("r.jsonl");
    std::fs::write(&records, "{\"question\": \"why?\", \"contexts\": [\"because\"]}\n").unwrap();
    let c = config(&records, 1.0, "");
    let options = RunOptions { out: dir.path().join("run"), quiet: true, ..RunOptions::default() };
    let e = train(&c, &options).unwrap_err().to_string();
    assert!(e.contains("none of its 1 records has an answer"), "{e}");
    assert!(e.contains("columns found are question, contexts"), "{e}");
}

#[test]
fn every_format_of_records_is_learned() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let ask = |i: usize| format!("Which colour has {}?", ["blood", "grass", "the sky", "snow"][i]);
    type Row = fn(String, &str) -> serde_json::Value;
    let formats: [(&str, Row); 4] = [
        ("chat", |q, a| {
            serde_json::json!({"messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": q}, {"role": "assistant", "content": a},
            ]})
        }),
        ("prompt_completion", |q, a| serde_json::json!({"prompt": q, "completion": format!(" {a}")})),
        ("lists", |q, a| {
            serde_json::json!({
                "prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}],
            })
        }),
        ("alpaca", |q, a| serde_json::json!({"instruction": "Answer.", "input": q, "output": a})),
    ];
    for (name, row) in formats {
        let mut text = String::new();
        for (i, colour) in COLOURS.iter().enumerate() {
            let _ = writeln!(text, "{}", row(ask(i), colour));
        }
        let records = dir.path().join(format!("{name}.jsonl"));
        std::fs::write(&records, text).unwrap();
        let learned = |loss_on: &str, epochs: f64| {
            let mut c = config(&records, epochs, &format!("[prompt]\nloss_on = \"{loss_on}\""));
            c.run.log_every = 1;
            let out = dir.path().join(format!("{name}-{loss_on}"));
            let o = run(&c, &out, false, None);
            assert_eq!(o.prepared.examples, 4, "{name} {loss_on}");
            let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
            let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
            (first["targets"].as_f64().unwrap(), o.run.best.unwrap().scores.exact_match)
        };
        let (last_answer, right) = learned("completion", 150.0);
        assert!(right >= 0.75, "{name}: {right}");
        let (answers, everything) = (learned("assistant", 1.0).0, learned("all", 1.0).0);
        // Only the conversations of `chat` have an answer before the last.
        assert_eq!(answers > last_answer, name == "chat", "{name}: {last_answer} {answers}");
        assert!(everything > answers, "{name}: {answers} {everything}");
    }
}

#[test]
fn conversations_that_cannot_be_learned_are_counted() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let talk = |q: &str, a: Option<&str>| {
        let mut messages = vec![serde_json::json!({"role": "user", "content": q})];
        messages.extend(a.map(|a| serde_json::json!({"role": "assistant", "content": a})));
        serde_json::json!({"messages": messages}).to_string()
    };
    let long = "very ".repeat(400);
    let rows =
        [talk("Hi", Some("Hello")), talk("And?", None), talk(&long, Some("yes")), talk("Hi", Some(&long))];
    let records = dir.path().join("chat.jsonl");
    std::fs::write(&records, rows.join("\n")).unwrap();
    let o = run(&config(&records, 1.0, ""), &dir.path().join("run"), false, None);
    assert_eq!((o.prepared.examples, o.prepared.left_out.values().sum::<usize>()), (1, 3));
}
