//! Data to model to index to answer.

use crate::util::{config, fails, json, ok, s, slice};
use serde_json::Value;
use std::collections::HashSet;

#[test]
fn from_data_to_search() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = slice(dir, 60);
    // Some questions have two passages, so there are fewer of them than lines.
    let qrels = std::fs::read_to_string(data.join("qrels/train.tsv")).unwrap();
    let questions: HashSet<&str> = qrels.lines().skip(1).filter_map(|l| l.split('\t').next()).collect();
    let examples = format!("{} examples", questions.len());

    let stats = ok(&["data", "stats", s(&data), "--json"]);
    assert!(json(&stats).is_object());
    let triplets = dir.join("train.jsonl.zst");
    ok(&["data", "convert", s(&data), "--split", "train", "--to", s(&triplets)]);
    let parquet = dir.join("train.parquet");
    assert!(ok(&["data", "convert", s(&triplets), "--to", s(&parquet)]).contains(&examples));

    let mining =
        "every_steps = 6\n[mining]\nwhen = { every_steps = 6 }\n[run]\nmax_steps = 12\nepochs = 9.0\n";
    let run = dir.join("run");
    let trained = json(&ok(&[
        "train",
        "retriever",
        "-c",
        s(&config(dir, &data, mining)),
        "--out",
        s(&run),
        "--json",
        "--quiet",
    ]));
    assert_eq!(trained["step"], 12);
    assert_eq!(trained["finished"], true);
    for file in [
        "config.toml",
        "config.hash",
        "environment.json",
        "metrics.jsonl",
        "best.json",
        "best/README.md",
        "best/modules.json",
        "best/1_Pooling/config.json",
        "checkpoints/step-000000012/manifest.json",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    for kind in ["train", "dev", "mining"] {
        assert!(metrics.lines().any(|l| json(l)["kind"] == kind), "{kind}");
    }

    let best = run.join("best");
    let trec = dir.join("test.trec");
    let scores = json(&ok(&[
        "eval",
        "retriever",
        "-m",
        s(&best),
        "--data",
        s(&data),
        "--split",
        "test",
        "--json",
        "--save-run",
        s(&trec),
    ]));
    let again = json(&ok(&["eval", "run", s(&trec), "--qrels", s(&data.join("qrels/test.tsv")), "--json"]));
    assert_eq!(scores["mean"], again["mean"]);

    let mined = dir.join("mined.jsonl");
    let report = json(&ok(&[
        "mine",
        "-m",
        s(&best),
        "--data",
        s(&data),
        "-o",
        s(&mined),
        "--count",
        "2",
        "--index",
        "hnsw",
        "--json",
    ]));
    assert_eq!(report["chosen"], 2 * questions.len());
    assert!(report["recall"]["recall"].as_f64().unwrap() > 0.98);
    let first = json(std::fs::read_to_string(&mined).unwrap().lines().next().unwrap());
    assert!(first.is_object());
    // What was mined is training data.
    let run2 = dir.join("run2");
    let text = std::fs::read_to_string(dir.join("config.toml")).unwrap();
    let text =
        text.replace(&format!("train = \"{}\"", data.display()), &format!("train = \"{}\"", mined.display()));
    let text = text.split("[mining]").next().unwrap().to_string() + "[run]\nmax_steps = 2\n";
    std::fs::write(dir.join("config2.toml"), text).unwrap();
    ok(&["train", "retriever", "-c", s(&dir.join("config2.toml")), "--out", s(&run2), "--quiet"]);

    let (embeddings, from_folder) = (dir.join("emb"), dir.join("folder.idx"));
    ok(&["encode", "-m", s(&best), "-i", s(&data.join("corpus.jsonl")), "-o", s(&embeddings)]);
    ok(&["index", "build", "--embeddings", s(&embeddings), "-o", s(&from_folder), "--kind", "exact"]);
    let built = dir.join("corpus.idx");
    let audit =
        ok(&["index", "build", "-m", s(&best), "--corpus", s(&data.join("corpus.jsonl")), "-o", s(&built)]);
    assert!(
        audit.contains("0 unreachable") && audit.contains("recall@10 against exact search: 1.0000"),
        "{audit}"
    );
    let corpus = std::fs::read_to_string(data.join("corpus.jsonl")).unwrap();
    let passage = json(corpus.lines().next().unwrap());
    let question = passage["text"].as_str().unwrap();
    let hits = |index: &str| json(&ok(&["search", "--index", index, question, "-k", "5", "--json"]));
    let (exact, graph) = (hits(s(&from_folder)), hits(s(&built)));
    let ids = |v: &Value| -> Vec<String> {
        v[0]["hits"].as_array().unwrap().iter().map(|h| h["id"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(ids(&exact), ids(&graph));
    assert!(graph[0]["hits"][0]["text"].is_string());
    // Fewer bytes; all of this small corpus is scored again by bytes, so the best stays the best.
    for vectors in ["int8", "binary", "pq"] {
        let smaller = dir.join(vectors);
        let said = ok(&[
            "index",
            "build",
            "--embeddings",
            s(&embeddings),
            "-o",
            s(&smaller),
            "--vectors",
            vectors,
            "--rescore",
            "int8",
            "--rescore-factor",
            "1000",
        ]);
        assert!(said.contains("exact index"), "{said}");
        assert_eq!(ids(&hits(s(&smaller)))[0], ids(&exact)[0], "{vectors}");
    }
    let graph_of_bytes = [
        "index",
        "build",
        "--embeddings",
        s(&embeddings),
        "-o",
        s(&built),
        "--kind",
        "hnsw",
        "--vectors",
        "int8",
    ];
    assert!(fails(2, &graph_of_bytes).contains("--kind exact"));

    for (path, kind) in [(&best, "model"), (&built, "index, hnsw"), (&run, "run")] {
        assert_eq!(json(&ok(&["info", s(path), "--json"]))["kind"], kind);
    }
    assert!(json(&ok(&["doctor", "--json"]))["libtorch_version"].as_str().unwrap().starts_with("2.11"));
}
