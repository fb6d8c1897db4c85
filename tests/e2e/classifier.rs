//! A classifier through the binary, with the shipped config: trained, measured, asked, as an adapter and merged; and what
//! goes wrong.

use crate::util::{fails, ok, root, s};
use serde_json::{Value, json};
use std::path::Path;

/// A small decoder with random weights as base, and texts whose label is a word in them.
fn world(dir: &Path) {
    let lines = |n: usize, from: usize| -> String {
        let row = |i: usize| {
            let colour = ["red", "green", "blue"][(i * 7 + i / 3) % 3];
            json!({"id": format!("t{i}"), "text": format!("thing {i} is {colour}"), "label": colour})
                .to_string()
        };
        (from..from + n).map(|i| row(i) + "\n").collect()
    };
    std::fs::write(dir.join("train.jsonl"), lines(90, 0)).unwrap();
    std::fs::write(dir.join("dev.jsonl"), lines(30, 40)).unwrap();
    let records: String = (0..30)
        .map(|i| {
            let text = format!("thing {i} is {}", ["red", "green", "blue"][i % 3]);
            json!({"question": format!("what is thing {i}?"), "answers": [text], "contexts": []}).to_string()
                + "\n"
        })
        .collect();
    std::fs::write(dir.join("records.jsonl"), records).unwrap();
    let config = format!(
        "[run]\nprecision = \"fp32\"\nmax_steps = 40\n[model.scratch]\nvocab_size = 300\nhidden_size = 32\nlayers = 2\nheads = 2\nkv_heads = 2\n\
         intermediate_size = 64\n[data]\ntrain = {:?}\n[contexts]\ncount = 0\n[batch]\ntokens = 512\n[optim]\nlr = 1e-2\n",
        s(&dir.join("records.jsonl"))
    );
    std::fs::write(dir.join("base.toml"), config).unwrap();
    ok(&["train", "generator", "-q", "-c", s(&dir.join("base.toml")), "--out", s(&dir.join("base"))]);
}

#[test]
fn from_labelled_texts_to_labels() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    world(dir);
    let (config, run) = (root().join("configs/classifier/text.toml"), dir.join("run"));
    let sets = [
        "run.precision=fp32".to_string(),
        format!("model.base={:?}", s(&dir.join("base/best"))),
        format!("data.train={:?}", s(&dir.join("train.jsonl"))),
        format!("data.dev={:?}", s(&dir.join("dev.jsonl"))),
        "optim.lr=3e-3".into(),
        "optim.head_lr=3e-3".into(),
        "batch.size=8".into(),
        "run.epochs=8".into(),
    ];
    let train = |out: &Path, more: &[&str]| -> Value {
        let mut args = vec!["train", "classifier", "-q", "--json", "-c", s(&config), "--out", s(out)];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        more.iter().for_each(|set| args.extend(["--set", set]));
        serde_json::from_str(&ok(&args)).unwrap()
    };
    let whole = train(&run, &[]);
    let accuracy = whole["best"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.8, "{whole}");
    assert_eq!(whole["labels"], json!(["blue", "green", "red"]));

    let (best, dev) = (run.join("best"), dir.join("dev.jsonl"));
    let measured =
        ok(&["eval", "classifier", "-m", s(&best), "--data", s(&dev), "--precision", "fp32", "--json"]);
    let measured: Value = serde_json::from_str(&measured).unwrap();
    assert_eq!(measured["scores"]["classification"]["accuracy"].as_f64().unwrap(), accuracy);
    let table = ok(&["eval", "classifier", "-m", s(&best), "--data", s(&dev)]);
    assert!(table.contains("macro_f1") && table.contains("green"), "{table}");

    // What is said does not need labels, keeps the order, and is the same for one text.
    let asked = dir.join("ask.jsonl");
    std::fs::write(
        &asked,
        "{\"id\": \"a\", \"text\": \"thing 5 is red\"}\n{\"text\": \"thing 77 is blue\"}\n",
    )
    .unwrap();
    let out = dir.join("labels.jsonl");
    ok(&["classify", "-m", s(&best), "--input", s(&asked), "--out", s(&out), "--precision", "fp32"]);
    let text = std::fs::read_to_string(&out).unwrap();
    let said: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&said[0]["id"], &said[1]["id"]), (&json!("a"), &json!(2)));
    let one = ok(&["classify", "-m", s(&best), "--text", "thing 5 is red", "--precision", "fp32"]);
    let one: Value = serde_json::from_str(&one).unwrap();
    let score = |v: &Value| v["score"].as_f64().unwrap();
    assert!((score(&one) - score(&said[0])).abs() < 1e-5 && one["label"] == said[0]["label"]);

    // As an adapter, and merged.
    let adapter = dir.join("adapter");
    train(&adapter, &["peft.lora={ rank = 4 }"]);
    let merged = dir.join("merged");
    ok(&["merge", s(&adapter.join("best")), "-o", s(&merged)]);
    let says = |m: &Path| -> Vec<Value> {
        ok(&["classify", "-m", s(m), "--input", s(&dev), "--precision", "fp32"])
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    };
    for (a, b) in says(&adapter.join("best")).iter().zip(&says(&merged)) {
        assert!((score(a) - score(b)).abs() < 1e-4, "{a} {b}");
    }

    // Errors name the place and what to do.
    std::fs::write(dir.join("odd.jsonl"), "{\"text\": \"thing 1 is red\", \"label\": \"pink\"}\n").unwrap();
    let e = fails(1, &["eval", "classifier", "-m", s(&best), "--data", s(&dir.join("odd.jsonl"))]);
    assert!(e.contains("record 1") && e.contains("`pink` is none of the labels"), "{e}");
    std::fs::write(dir.join("bad.jsonl"), "{\"text\": \"a\", \"label\": 1}\n{\"label\": 1}\n").unwrap();
    let e = fails(1, &["eval", "classifier", "-m", s(&best), "--data", s(&dir.join("bad.jsonl"))]);
    assert!(e.contains("bad.jsonl:2") && e.contains("no text"), "{e}");
    let e = fails(1, &["classify", "-m", s(&dir.join("base/best")), "--text", "x"]);
    assert!(e.contains("score.weight"), "{e}");
    let e = fails(1, &["classify", "-m", s(&dir.join("nowhere")), "--text", "x"]);
    assert!(e.contains("nowhere"), "{e}");
}
