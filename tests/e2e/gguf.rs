//! GGUF files through the binary: as a base, as a folder, and out again.

use crate::util::{fails, json, ok, root, s};
use serde_json::json;
use std::path::PathBuf;

fn tiny(family: &str) -> PathBuf {
    root().join(format!("crates/generator/tests/golden/gguf/{family}.gguf"))
}

#[test]
fn a_file_is_a_base_and_a_trained_adapter_becomes_a_file() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().canonicalize().unwrap();
    let at = |name: &str| dir.join(name);
    let base = at("base.gguf");
    std::fs::copy(tiny("llama"), &base).unwrap();
    let info = json(&ok(&["info", s(&base), "--json"]));
    assert_eq!(
        (&info["architecture"], &info["layers"], &info["vocabulary"]),
        (&json!("llama"), &json!(2), &json!(360))
    );
    // Trained over the file, which the adapter names.
    let rows: String = (0..8)
        .map(|i| {
            let row = json!({"id": i.to_string(), "question": format!("what is {i}?"), "answers": [format!("it is {i}")],
                "contexts": [{"id": "p", "text": "a passage"}]});
            format!("{row}\n")
        })
        .collect();
    std::fs::write(at("r.jsonl"), rows).unwrap();
    let config = format!(
        "[run]\nseed = 3\ndevice = \"cpu\"\nmax_steps = 2\n[model]\nbase = {:?}\n[peft.lora]\nrank = 2\n[data]\ntrain = {:?}\n\
         [contexts]\ncount = 1\n[optim]\nlr = 0.01\n[batch]\ntokens = 600\n",
        s(&base),
        s(&at("r.jsonl"))
    );
    std::fs::write(at("c.toml"), config).unwrap();
    ok(&["train", "generator", "-q", "-c", s(&at("c.toml")), "--out", s(&at("run"))]);
    let adapter = at("run/best");
    let answer = |model: &str| {
        let out = at("answers.jsonl");
        let _ = std::fs::remove_file(&out);
        let records = at("r.jsonl");
        ok(&[
            "generate",
            "-q",
            "-g",
            model,
            "-i",
            s(&records),
            "-o",
            s(&out),
            "--max-new-tokens",
            "6",
            "--contexts",
            "0",
        ]);
        let text = std::fs::read_to_string(&out).unwrap();
        text.lines().map(|l| json(l)["answer"].clone()).collect::<Vec<_>>()
    };
    // As a folder and as a file: the same answers.
    let (folder, file) = (at("folder"), at("trained.gguf"));
    let said = ok(&["export", "gguf", s(&adapter), "-o", s(&file), "--type", "f32", "--name", "Tiny"]);
    assert!(said.contains("F32"), "{said}");
    assert_eq!(json(&ok(&["info", s(&file), "--json"]))["name"], "Tiny");
    ok(&["convert", s(&file), "-o", s(&folder)]);
    assert_eq!(answer(s(&folder)), answer(s(&file)));
    assert!(folder.join("model.safetensors").is_file() && folder.join("chat_template.jinja").is_file());
}

#[test]
fn what_is_no_model_is_told_with_a_remedy() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    let out = at("out");
    std::fs::write(at("x.gguf"), "<html>").unwrap();
    let e = fails(1, &["convert", s(&at("x.gguf")), "-o", s(&out)]);
    assert!(e.contains("not a GGUF file"), "{e}");
    std::fs::write(at("x.json"), "{}").unwrap();
    let e = fails(1, &["convert", s(&at("x.json")), "-o", s(&out)]);
    assert!(e.contains("ragduet data convert"), "{e}");
    let e = fails(1, &["generate", "-g", s(&at("none.gguf")), "-i", "r.jsonl", "-o", s(&at("answers"))]);
    assert!(e.contains("no such folder or GGUF file"), "{e}");
    let cut = at("cut.gguf");
    let whole = std::fs::read(tiny("qwen2")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let e = fails(1, &["convert", s(&cut), "-o", s(&out)]);
    assert!(e.contains("cut.gguf") && e.contains("cut off"), "{e}");
    assert!(!out.exists());
}
