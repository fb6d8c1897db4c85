//! `ragduet report` over runs as they lie on disk, and `ragduet info` over a folder of adapters.

use crate::util::{fails, ok, root, s};
use serde_json::{Value, json};
use std::path::Path;

fn run(dir: &Path, lr: f64) {
    std::fs::create_dir_all(dir).unwrap();
    let line = |step: u64, kind: &str, name: &str, x: f64| {
        json!({"step": step, "kind": kind, "time": 1.0, name: x}).to_string() + "\n"
    };
    let curve: String = (1..50).map(|i| line(i, "train", "loss", 1.0 / i as f64)).collect();
    std::fs::write(dir.join("metrics.jsonl"), curve + &line(49, "dev", "f1", lr)).unwrap();
    std::fs::write(dir.join("config.toml"), format!("seed = 1\n[optim]\nlr = {lr}\n")).unwrap();
}

#[test]
fn runs_become_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, out) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("page.html"));
    run(&a, 0.25);
    run(&b, 0.5);
    let said = ok(&["report", s(&a), s(&b), "-o", s(&out)]);
    assert!(said.contains("2 runs"), "{said}");
    let html = std::fs::read_to_string(&out).unwrap();
    let data = html.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["differences"], json!([{"key": "optim.lr", "values": ["0.25", "0.5"]}]));
    assert_eq!(data["runs"][1]["sections"][1]["metrics"][0]["highest"], json!([49.0, 0.5]));
    // Again, in its place.
    ok(&["report", s(&a), "-o", s(&out)]);
    let e = fails(1, &["report", s(&dir.path().join("none")), "-o", s(&out)]);
    assert!(e.contains("metrics.jsonl"), "{e}");
}

#[test]
fn a_folder_of_adapters_is_listed() {
    let said = ok(&["info", s(&root().join("crates/nn/tests/golden/peft")), "--json"]);
    let all: Value = serde_json::from_str(&said).unwrap();
    let find = |name: &str| all.as_object().unwrap().iter().find(|(k, _)| k.ends_with(name)).unwrap().1;
    assert_eq!(find("/lora_llama")["method"], "LORA");
    assert_eq!(find("/bn_houlsby_t5")["method"], "BOTTLENECK");
    assert_eq!(find("/prefix_t5")["base"], "lm/t5");
    assert!(find("/ia3_t5")["parameters"].as_u64().unwrap() > 0);
}
