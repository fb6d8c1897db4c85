//! T-Few through the binary: a mixture, a few examples from there, a table by task.

use crate::util::{fails, ok, root, s};
use serde_json::{Value, json};

#[test]
fn from_a_mixture_to_a_few_examples_to_a_table() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for (name, words) in [("colour", ["red", "green"]), ("size", ["small", "very large"])] {
        let rows = (0..12).map(|i| {
            let context = json!({"id": format!("{i}"), "text": format!("Thing {i} is {}.", words[i % 2])});
            let asked = format!("What {name} is thing {i}?");
            let row =
                json!({"question": asked, "contexts": [context], "choices": words, "answer": words[i % 2]});
            format!("{row}\n")
        });
        std::fs::write(dir.join(format!("{name}.train.jsonl")), rows.collect::<String>()).unwrap();
    }
    let task = |name: &str, more: &str| {
        format!("{{ name = {name:?}, train = {:?}{more} }}", s(&dir.join(format!("{name}.train.jsonl"))))
    };
    let sizes =
        "vocab_size = 300, hidden_size = 32, layers = 2, heads = 2, kv_heads = 2, intermediate_size = 64";
    let config = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let run = |file: &std::path::Path, out: &str, sets: &[&str]| {
        let out = dir.join(out);
        let mut args = vec!["train", "tfew", "--quiet", "-c", s(file), "--out", s(&out)];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        ok(&args);
        out.join("best")
    };
    let text = format!(
        "[run]\nprecision = \"fp32\"\nmax_steps = 4\n[model]\nscratch = {{ {sizes} }}\n[data]\ntasks = [{}, {}]\n\
         [contexts]\ncount = 1\n",
        task("colour", ", weight = 1.0"),
        task("size", ", weight = 2.0"),
    );
    let base = run(&config("base.toml", text), "base", &[]);

    // The shipped configs, on this data: vectors over the mixture, then one task from them.
    let shipped = |name: &str| root().join("configs/generator").join(name);
    let tasks = format!("data.tasks=[{}, {}]", task("colour", ""), task("size", ""));
    let model = format!("model.base={:?}", s(&base));
    let short = "run.max_steps=3";
    let vectors = run(&shipped("tfew-pretrain.toml"), "pretrained", &[&model, &tasks, short]);
    let few =
        [format!("model.base={:?}", s(&vectors)), format!("data.tasks=[{}]", task("size", ", shots = 8"))];
    let adapted = run(&shipped("tfew.toml"), "tfew", &[&few[0], &few[1], short]);
    assert!(
        adapted.join("adapter_model.safetensors").is_file() && !adapted.join("model.safetensors").exists()
    );
    let prompt = run(&shipped("tfew-example-prompt.toml"), "prompt", &[&model, &few[1], short]);
    assert!(prompt.join("adapter_model.safetensors").is_file());

    let data = [dir.join("colour.train.jsonl"), dir.join("size.train.jsonl")];
    let saved = dir.join("chosen.jsonl");
    let args = ["eval", "choices", "-g", s(&adapted), "--data", s(&data[0]), s(&data[1])];
    let table = ok(&args);
    assert!(["task", "colour", "size", "mean"].iter().all(|w| table.contains(w)), "{table}");
    let scores: Value =
        serde_json::from_str(&ok(&[&args[..], &["--json", "--save", s(&saved)]].concat())).unwrap();
    assert_eq!((&scores["tasks"][1]["task"], &scores["mean"]["questions"]), (&json!("size"), &json!(24)));
    assert_eq!(std::fs::read_to_string(saved).unwrap().lines().count(), 24);

    let file = s(&dir.join("base.toml")).to_string();
    let out = s(&dir.join("no")).to_string();
    let e = fails(2, &["train", "tfew", "-c", &file, "--out", &out, "--set", "loss.unlikely=1.0"]);
    assert!(e.contains("unlikely"), "{e}");
    std::fs::write(&data[0], "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"], \"answer\": 2}\n").unwrap();
    let e = fails(1, &["eval", "choices", "-g", s(&adapted), "--data", s(&data[0])]);
    assert!(e.contains("colour.train.jsonl:1") && e.contains("no index"), "{e}");
}
