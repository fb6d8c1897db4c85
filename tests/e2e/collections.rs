//! A job does not depend on the format of its data: LlamaIndex's dataset gives what the BEIR folder gives.

use crate::util::{config, fails, json, ok, s, slice};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A run's folder, and the ids of the negatives that its model mines of the data.
fn job(dir: &Path, train: &Path, dev: &Path) -> (PathBuf, Vec<Value>) {
    std::fs::create_dir_all(dir).unwrap();
    let (config, run) = (config(dir, train, "[mining]\nwhen = \"start\"\n"), dir.join("run"));
    let dev = format!("data.dev={}", dev.display());
    ok(&["train", "retriever", "-c", s(&config), "--set", &dev, "--out", s(&run), "--quiet"]);
    let mined = dir.join("mined.jsonl");
    ok(&["mine", "-m", s(&run.join("best")), "--data", s(train), "-o", s(&mined), "--count", "3"]);
    let negatives = std::fs::read_to_string(mined).unwrap();
    let ids = |line: &str| {
        let row = json(line);
        let of = row["negative_passages"].as_array().unwrap();
        of.iter().map(|p| p["docid"].clone()).collect()
    };
    (run, negatives.lines().map(ids).collect())
}

#[test]
fn llama_index_gives_what_beir_gives() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let beir = slice(dir, 12);
    let file = |split: &str| dir.join(format!("{split}.json"));
    for split in ["train", "dev", "test"] {
        let to = ["--split", split, "--to-format", "llama-index", "--to", s(&file(split))].map(String::from);
        let args: Vec<&str> =
            ["data", "convert", s(&beir)].into_iter().chain(to.iter().map(String::as_str)).collect();
        assert!(ok(&args).contains(" passages"), "{args:?}");
    }
    let stats = |path: &Path| json(&ok(&["data", "stats", s(path), "--split", "train", "--json"]));
    let (folder, dataset) = (stats(&beir), stats(&file("train")));
    assert_eq!(dataset["corpus"]["passages"], folder["corpus"]["passages"]);
    assert_eq!(dataset["splits"], folder["splits"]);

    let (of_beir, mined) = job(&dir.join("a"), &beir, &beir);
    let (of_file, same) = job(&dir.join("b"), &file("train"), &file("dev"));
    let weights = |run: &Path| std::fs::read(run.join("best/model.safetensors")).unwrap();
    assert!(weights(&of_beir) == weights(&of_file), "the runs differ");
    assert_eq!(mined, same);
    assert!(mined.iter().any(|ids| !ids.as_array().unwrap().is_empty()));

    let model = of_beir.join("best");
    let scores = |data: &Path| {
        json(&ok(&["eval", "retriever", "-m", s(&model), "--data", s(data), "--split", "test", "--json"]))["mean"]
            .clone()
    };
    assert_eq!(scores(&file("test")), scores(&beir));
    let index = dir.join("index");
    ok(&["index", "build", "-m", s(&model), "--corpus", s(&file("train")), "-o", s(&index)]);
    let count = json(&std::fs::read_to_string(index.join("index.json")).unwrap())["count"].clone();
    assert_eq!(count, dataset["corpus"]["passages"]);

    let text = std::fs::read_to_string(file("train")).unwrap();
    std::fs::write(file("train"), text.replacen("\"relevant_docs\"", "\"relevant\"", 1)).unwrap();
    let said = fails(1, &["data", "stats", s(&file("train"))]);
    assert!(said.contains("train.json:") && said.contains("no key \"relevant_docs\""), "{said}");
}
