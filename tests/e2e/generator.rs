//! Retrieved contexts to generator to answers, and the commands' errors.

use crate::util::{binary, config, fails, json, ok, root, s, slice};
use serde_json::Value;
use std::path::Path;

fn lines(path: &std::path::Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn from_contexts_to_answers() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = slice(dir, 30);
    std::fs::copy(root().join("datasets/maravel/answers.jsonl"), data.join("answers.jsonl")).unwrap();
    let run = dir.join("retriever");
    let short = "[run]\nmax_steps = 3\nepochs = 9.0\n";
    ok(&["train", "retriever", "-c", s(&config(dir, &data, short)), "--out", s(&run), "--quiet"]);
    let best = run.join("best");
    let records = dir.join("train.jsonl");
    ok(&["retrieve", "-m", s(&best), "--data", s(&data), "--split", "train", "-k", "4", "-o", s(&records)]);
    let rows = lines(&records);
    assert!(rows.len() >= 25);
    for row in &rows {
        assert_eq!(row["contexts"].as_array().unwrap().len(), 4);
        assert!(
            !row["gold"].as_array().unwrap().is_empty() && !row["answers"].as_array().unwrap().is_empty()
        );
    }

    // Several splits at once, the corpus encoded once: the same files.
    let splits = dir.join("splits");
    let of =
        |split, out| ["retrieve", "-m", s(&best), "--data", s(&data), "--split", split, "-k", "4", "-o", out];
    ok(&of("train,dev", s(&splits)));
    let alone = dir.join("dev.jsonl");
    ok(&of("dev", s(&alone)));
    for (name, want) in [("train", &records), ("dev", &alone)] {
        let have = splits.join(format!("{name}.rag.jsonl"));
        assert_eq!(std::fs::read(have).unwrap(), std::fs::read(want).unwrap(), "{name}");
    }
    assert!(fails(2, &of("dev,train,dev", s(&splits))).contains("names dev twice"));
    assert!(fails(2, &of("dev,train", s(&alone))).contains("is a file"));

    let sft = dir.join("sft.toml");
    std::fs::write(
        &sft,
        format!(
            r#"
[run]
seed = 3
device = "cpu"
max_steps = 5
[model.scratch]
vocab_size = 500
hidden_size = 32
layers = 2
heads = 2
kv_heads = 1
intermediate_size = 64
max_positions = 512
[data]
train = "{0}"
dev = "{0}"
[contexts]
count = 2
[batch]
tokens = 1500
[eval]
limit = 5
[eval.decode]
max_new_tokens = 6
do_sample = false
"#,
            records.display()
        ),
    )
    .unwrap();
    let index = dir.join("index");
    ok(&["index", "build", "-m", s(&best), "--corpus", s(&data.join("corpus.jsonl")), "-o", s(&index)]);
    for architecture in ["t5", "llama"] {
        let kind = format!("model.scratch.architecture={architecture}");
        let reader = dir.join(architecture);
        let out = ok(&[
            "train",
            "generator",
            "-c",
            s(&sft),
            "--set",
            &kind,
            "--out",
            s(&reader),
            "--json",
            "--quiet",
        ]);
        let trained: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&trained["step"], &trained["finished"]), (&Value::from(5), &Value::from(true)));
        let model = reader.join("best");
        for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            assert!(model.join(file).is_file(), "{file}");
        }

        // Answers; a second call, with the file cut in the middle of a line, goes on where the first was cut off.
        let answers = dir.join(format!("answers-{architecture}.jsonl"));
        let generate =
            ["generate", "-g", s(&model), "-i", s(&records), "-o", s(&answers), "--max-new-tokens", "6"];
        ok(&generate);
        let whole = std::fs::read_to_string(&answers).unwrap();
        assert_eq!(whole.lines().count(), rows.len());
        std::fs::write(&answers, &whole[..whole.len() * 2 / 3]).unwrap();
        ok(&generate);
        assert_eq!(std::fs::read_to_string(&answers).unwrap(), whole);

        let scores = ok(&[
            "eval",
            "generator",
            "-g",
            s(&model),
            "--data",
            s(&records),
            "--max-new-tokens",
            "6",
            "--compare",
            "--json",
        ]);
        let scores: Value = serde_json::from_str(&scores).unwrap();
        let held = |condition: &str| scores[condition]["answer"]["answer_in_contexts"].as_f64().unwrap();
        assert_eq!(held("without"), 0.0);
        assert!(held("with passages") > held("another's") && held("with passages") == held("reordered"));

        // The whole: retrieval, answers, faithfulness, and what each question was shown.
        let each = dir.join(format!("each-{architecture}.jsonl"));
        let whole = ["eval", "rag", "-m", s(&best), "-g", s(&model), "--data", s(&data), "--split", "train"];
        let report = ok(&[&whole[..], &["--max-new-tokens", "6", "--save", s(&each), "--json"]].concat());
        let report: Value = serde_json::from_str(&report).unwrap();
        assert!(report["retrieval"]["recall@2"].as_f64().unwrap() > 0.0);
        for (section, name) in [("answer", "f1"), ("text", "rouge_l"), ("faithfulness", "support")] {
            // An untrained model may say nothing that could be supported.
            assert!(report["with passages"][section].get(name).is_some(), "{section} {name}");
        }
        let each = lines(&each);
        assert_eq!(each.len(), rows.len());
        for line in &each {
            let passages = line["passages"].as_array().unwrap();
            assert_eq!(passages.len(), 2);
            assert!(passages.iter().all(|p| p["text"].is_string() && p["rank"].is_number()));
        }

        let said = ok(&[
            "ask",
            "--index",
            s(&index),
            "-g",
            s(&model),
            "--max-new-tokens",
            "5",
            "--json",
            "where is it?",
        ]);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said[0]["sources"].as_array().unwrap().len(), 2);
    }

    let model = dir.join("llama/best");
    adapters(dir, &sft, &model, &records);
    few_shot(dir, &model, &records);
    // A model of the other kind, and a file that holds no answers.
    let e = fails(1, &["generate", "-g", s(&best), "-i", s(&records), "-o", s(&dir.join("x"))]);
    assert!(e.contains("bert"), "{e}");
    let e = fails(
        2,
        &["generate", "-g", s(&model), "-i", s(&records), "-o", s(&data.join("corpus.jsonl.bad"))]
            .map(|a| if a.ends_with(".bad") { s(&sft) } else { a }),
    );
    assert!(e.contains("sft.toml:") && e.contains("no answer"), "{e}");
    let e = fails(
        2,
        &[
            "train",
            "generator",
            "-c",
            s(&sft),
            "--set",
            "contexts.golden_drop_rate=2",
            "--out",
            s(&dir.join("y")),
        ],
    );
    assert!(e.contains("golden_drop_rate"), "{e}");
}

/// Few-shot prompts, and systems side by side.
fn few_shot(dir: &Path, model: &Path, records: &Path) {
    let eval = ["eval", "generator", "-g", s(model), "--data", s(records), "--questions", "6"];
    let shots = ["--max-new-tokens", "6", "--examples", s(records), "--shots", "2"];
    let against = ["--against", "0", "--against", s(model), "--json"];
    let table = json(&ok(&[&eval[..], &shots, &against].concat()));
    let systems = table["systems"].as_array().unwrap();
    let names: Vec<&str> = systems.iter().map(|s| s["system"].as_str().unwrap()).collect();
    assert!(
        names[0].ends_with(", 2 examples") && names[1..].iter().all(|n| n.ends_with(", zero-shot")),
        "{names:?}"
    );
    assert_eq!(systems[0]["p"], Value::Null);
    // The same model, told to show no examples and with its own prompt.
    for key in ["questions", "exact_match", "f1", "p"] {
        assert_eq!(systems[1][key], systems[2][key], "{key}");
    }
    let out = dir.join("none.jsonl");
    let none = ["generate", "-g", s(model), "-i", s(records), "-o", s(&out), "--shots", "3"];
    let e = fails(2, &none);
    assert!(e.contains("--examples FILE"), "{e}");
    let few = dir.join("few.jsonl");
    std::fs::write(&few, "{\"question\": \"Who?\", \"answer\": \"I\"}\n").unwrap();
    let e = fails(2, &[&none[..5], &["-o", s(&out), "--examples", s(&few)]].concat());
    assert!(e.contains("few.jsonl") && e.contains("4 examples are wanted"), "{e}");
}

/// LoRA over the model: the adapter answers, is described, and merges into a model that answers alike.
fn adapters(
    dir: &std::path::Path,
    sft: &std::path::Path,
    model: &std::path::Path,
    records: &std::path::Path,
) {
    let text = std::fs::read_to_string(sft).unwrap();
    let scratch = &text[text.find("[model.scratch]").unwrap()..text.find("[data]").unwrap()];
    let lora = format!("[model]\nbase = {:?}\n[peft.lora]\nrank = 4\n", s(model));
    let config = dir.join("lora.toml");
    std::fs::write(&config, text.replace(scratch, &lora)).unwrap();
    let run = dir.join("lora");
    ok(&["train", "generator", "-c", s(&config), "--set", "optim.lr=1e-2", "--out", s(&run), "--quiet"]);
    let (adapter, merged) = (run.join("best"), dir.join("merged"));
    let said: Value = serde_json::from_str(&ok(&["info", s(&adapter), "--json"])).unwrap();
    assert_eq!((&said["kind"], &said["method"]), (&Value::from("adapter"), &Value::from("LORA")));
    ok(&["merge", s(&adapter), "-o", s(&merged)]);
    let answers = |g: &std::path::Path, name: &str| {
        let out = dir.join(name);
        let args = ["generate", "-g", s(g), "-i", s(records), "-o", s(&out), "--max-new-tokens", "6"];
        ok(&[&args[..], &["--precision", "fp32", "--contexts", "2"]].concat());
        std::fs::read_to_string(out).unwrap()
    };
    assert_eq!(answers(&adapter, "by-adapter.jsonl"), answers(&merged, "by-merged.jsonl"));

    // Seven tenths and three tenths of an adapter are the adapter.
    let both = dir.join("both");
    let parts = [format!("{}=0.7", s(&adapter)), format!("{}=0.3", s(&adapter))];
    ok(&["combine", &parts[0], &parts[1], "-o", s(&both)]);
    let said: Value = serde_json::from_str(&ok(&["info", s(&both), "--json"])).unwrap();
    assert_eq!((&said["r"], &said["combined"]["how"]), (&Value::from(8), &Value::from("cat")));
    assert_eq!(answers(&both, "by-both.jsonl"), answers(&adapter, "by-adapter.jsonl"));
    let e = fails(1, &["combine", &parts[0], s(model), "-o", s(&dir.join("none"))]);
    assert!(e.contains("no adapter"), "{e}");

    // QLoRA through the binary: trains over 4 bits, answers over them and over the base as it is.
    let small = dir.join("qlora");
    let c = ["train", "generator", "-c", s(&config), "--set", "optim.lr=1e-2", "--set", "model.quantize=nf4"];
    ok(&[&c[..], &["--out", s(&small), "--quiet"]].concat());
    let best = small.join("best");
    assert!(!best.join("model.safetensors").exists());
    let out = dir.join("by-qlora.jsonl");
    let args = ["generate", "-g", s(&best), "-i", s(records), "-o", s(&out), "--max-new-tokens", "6"];
    ok(&[&args[..], &["--contexts", "2", "--quantize", "nf4"]].concat());
    ok(&["merge", s(&best), "-o", s(&dir.join("qlora-merged"))]);
    let e = fails(2, &["generate", "-g", s(&best), "-i", s(records), "-o", s(&out), "--quantize", "int3"]);
    assert!(e.contains("none, int8 or nf4"), "{e}");
    let e = fails(1, &["merge", s(model), "-o", s(&dir.join("none"))]);
    assert!(e.contains("no adapter"), "{e}");
}

#[test]
fn the_schemas_in_configs_are_current() {
    let all = [
        "retriever",
        "contriever",
        "generator",
        "distil",
        "tfew",
        "preference",
        "classifier",
        "reward",
        "cross-encoder",
        "joint",
    ];
    for of in all {
        let path = root().join(format!("configs/schema/{of}.json"));
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            ok(&["train", "schema", of]),
            kept,
            "{} train schema {of} > {}",
            binary().display(),
            path.display()
        );
        let page = root().join(format!("docs/config/{of}.md"));
        let kept = std::fs::read_to_string(&page).unwrap_or_default();
        assert_eq!(
            ok(&["train", "schema", of, "--markdown"]),
            kept,
            "{} train schema {of} --markdown > {}",
            binary().display(),
            page.display()
        );
    }
}
