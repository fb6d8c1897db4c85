//! A sparse model: trained, indexed, searched, measured; what it does not go with.

use crate::util::{config, fails, json, ok, s, slice};

#[test]
fn from_pairs_to_an_index_of_weights() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = slice(dir, 60);
    let loss = "every_steps = 0\n[temperature]\nvalue = 1.0\n[loss.sum]\nterms = [{ loss = { info_nce = {} } }, \
                { loss = { flops = { queries = 1e-3, passages = 1e-3 } } }]\n[run]\nepochs = 2.0\n";
    let toml = config(dir, &data, loss);
    let text = std::fs::read_to_string(&toml).unwrap().replacen("[model]", "[model]\nsparse = {}", 1);
    std::fs::write(&toml, text).unwrap();
    let run = dir.join("run");
    ok(&["train", "retriever", "-c", s(&toml), "--out", s(&run), "--quiet"]);
    let best = run.join("best");
    assert!(best.join("1_SpladePooling/config.json").is_file());
    assert!(std::fs::read_to_string(best.join("README.md")).unwrap().contains("SparseEncoder"));

    let corpus = data.join("corpus.jsonl");
    let index = dir.join("sparse.idx");
    let said = ok(&["index", "build", "-m", s(&best), "--corpus", s(&corpus), "-o", s(&index)]);
    assert!(said.contains("sparse index of") && said.contains("words a passage"), "{said}");
    assert_eq!(json(&ok(&["info", s(&index), "--json"]))["kind"], "index, sparse");
    let words = dir.join("words.idx");
    ok(&["index", "build", "--corpus", s(&corpus), "-o", s(&words)]);
    assert_eq!(json(&ok(&["info", s(&words), "--json"]))["kind"], "index, lexical");

    let first = json(std::fs::read_to_string(&corpus).unwrap().lines().next().unwrap());
    let question = first["text"].as_str().unwrap();
    let hits = |more: &[&str]| {
        let mut args = vec!["search", "--index", s(&index), question, "-k", "5", "--json"];
        args.extend(more);
        json(&ok(&args))[0]["hits"].as_array().unwrap().len()
    };
    assert_eq!(hits(&[]), 5);
    assert_eq!(hits(&["--index", s(&words)]), 5);

    let table = json(&ok(&[
        "eval",
        "retriever",
        "-m",
        s(&best),
        "--data",
        s(&data),
        "--index",
        "bm25,sparse,hybrid",
        "--json",
    ]));
    let systems: Vec<&str> =
        table.as_array().unwrap().iter().map(|r| r["system"].as_str().unwrap()).collect();
    assert_eq!(systems.len(), 3, "{systems:?}");

    let vectors = dir.join("vectors");
    ok(&["encode", "-m", s(&best), "-i", s(&corpus), "-o", s(&vectors)]);
    let lines = std::fs::read_to_string(vectors.join("vectors.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), std::fs::read_to_string(&corpus).unwrap().lines().count());
    assert!(json(lines.lines().next().unwrap())["vector"].as_object().unwrap().len() > 1);

    for (args, why) in [
        (
            &[
                "index",
                "build",
                "-m",
                s(&best),
                "--corpus",
                s(&corpus),
                "-o",
                s(&dir.join("x")),
                "--kind",
                "hnsw",
            ][..],
            "--kind sparse",
        ),
        (
            &["eval", "retriever", "-m", s(&best), "--data", s(&data), "--vectors", "int8"][..],
            "one dense vector",
        ),
    ] {
        let said = fails(2, args);
        assert!(said.contains(why), "{said}");
    }
}
