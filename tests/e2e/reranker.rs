//! A cross-encoder trained through the binary on what a first stage finds, and re-ranking wherever something is searched;
//! and what goes wrong.

use crate::util::{config, fails, ok, s, slice};
use serde_json::Value;
use std::path::Path;

fn cross(dir: &Path, base: &Path, data: &Path) -> std::path::PathBuf {
    let file = dir.join("cross.toml");
    let text = format!(
        r#"
[run]
seed = 1
device = "cpu"
precision = "fp32"
max_steps = 3
[model]
base = "{0}"
[data]
train = "{1}"
dev = "{1}"
[first_stage]
model = "{0}"
[loss.lambda]
[batch]
size = 6
negatives_per_query = 3
[eval]
depth = 8
"#,
        base.display(),
        data.display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn from_a_first_stage_to_a_ranking_in_another_order() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = slice(dir, 24);
    let first = dir.join("first");
    let c = config(dir, &data, "[run]\nmax_steps = 2\n");
    ok(&["train", "retriever", "-q", "-c", s(&c), "--out", s(&first)]);
    let base = first.join("best");
    let c = cross(dir, &base, &data);
    let run = dir.join("cross");
    let said = ok(&["train", "cross-encoder", "-q", "-c", s(&c), "--out", s(&run)]);
    assert!(said.contains("first stage") && said.contains("best") && said.contains("pairs/s"), "{said}");
    let model = run.join("best");
    for name in
        ["config.toml", "metrics.jsonl", "best.json", "first-stage/negatives.json", "first-stage/dev.trec"]
    {
        assert!(run.join(name).is_file(), "{name}");
    }

    // The same ranking three ways: measured, from a run file, and searched.
    let trec = |name: &str| dir.join(name);
    let (found, again, direct) = (trec("first.trec"), trec("again.trec"), trec("direct.trec"));
    let common = ["-m", s(&base), "--data", s(&data), "--precision", "fp32"];
    ok(&[&["eval", "retriever", "--save-run", s(&found), "--depth", "20"][..], &common[..]].concat());
    let rerank = ["--rerank", s(&model), "--rerank-depth", "10"];
    let measured = ok(&[
        &["eval", "retriever", "--save-run", s(&direct), "--depth", "20", "--json"][..],
        &common[..],
        &rerank[..],
    ]
    .concat());
    let measured: Value = serde_json::from_str(&measured).unwrap();
    assert!(measured["compared"]["ndcg@10"]["test"]["p_value"].as_f64().is_some(), "{measured}");
    let said = ok(&[
        &["rerank", "--run", s(&found), "--data", s(&data), "-o", s(&again), "--precision", "fp32"][..],
        &rerank[..],
    ]
    .concat());
    assert!(said.contains("before") && said.contains("after"), "{said}");
    let read = |p: &Path| std::fs::read_to_string(p).unwrap();
    assert_eq!(read(&again), read(&direct));
    assert_ne!(read(&again), read(&found), "the order changes");
    let index = dir.join("idx");
    ok(&[
        "index",
        "build",
        "-q",
        "-m",
        s(&base),
        "--corpus",
        s(&data.join("corpus.jsonl")),
        "-o",
        s(&index),
        "--precision",
        "fp32",
    ]);
    let line = read(&again).lines().next().unwrap().to_string();
    let query = line.split_whitespace().next().unwrap();
    let question = read(&data.join("queries.jsonl"))
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .find(|q| q["_id"] == query)
        .unwrap()["text"]
        .as_str()
        .unwrap()
        .to_string();
    let hits =
        ok(
            &[
                &[
                    "search",
                    "--index",
                    s(&index),
                    &question,
                    "-k",
                    "3",
                    "--json",
                    "--search-precision",
                    "fp32",
                ][..],
                &rerank[..],
            ]
            .concat(),
        );
    let hits: Value = serde_json::from_str(&hits).unwrap();
    let hits = hits[0]["hits"].as_array().unwrap();
    assert_eq!((hits.len(), hits[0]["id"].as_str().unwrap()), (3, line.split_whitespace().nth(2).unwrap()));

    // What goes wrong names the place.
    let e = fails(1, &[&["eval", "retriever", "--rerank", s(&base)][..], &common[..]].concat());
    assert!(e.contains("cannot load the cross-encoder"), "{e}");
    let e = fails(2, &["rerank", "--run", s(&found), "--data", s(&data), "-o", s(&again)]);
    assert!(e.contains("--rerank"), "{e}");
    let e = fails(
        1,
        &[
            "train",
            "cross-encoder",
            "-q",
            "-c",
            s(&c),
            "--out",
            s(&trec("x")),
            "--set",
            "first_stage.model=nowhere/at-all",
        ],
    );
    assert!(e.contains("nowhere/at-all"), "{e}");
}
