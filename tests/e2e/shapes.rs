//! Data in the shapes that people bring, through the binary: scored and labelled pairs, patterns, folders of documents,
//! saved data sets, statistics and conversion of data for generators.

use crate::util::{config, fails, json, ok, s};
use std::path::Path;

/// Pairs of words with a score: alike, or not.
fn pairs(path: &Path, from: usize, to: usize) {
    let names = ["harbour", "granite", "copper", "falcon", "anchor", "ember", "island", "lantern"];
    let rows: String = (from..to)
        .flat_map(|i| {
            let (a, b) = (names[i % 8], names[(i / 8 + i + 1) % 8]);
            [
                format!(
                    "{{\"sentence1\": \"the {a} {i}\", \"sentence2\": \"a {a} it is\", \"score\": 0.9}}\n"
                ),
                format!(
                    "{{\"sentence1\": \"the {a} {i}\", \"sentence2\": \"a {b} it is not\", \"score\": 0.1}}\n"
                ),
            ]
        })
        .collect();
    std::fs::write(path, rows).unwrap();
}

#[test]
fn scored_pairs_are_refused_or_learned() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let (train, dev) = (dir.join("pairs.jsonl"), dir.join("dev.jsonl"));
    pairs(&train, 0, 24);
    pairs(&dev, 24, 32);
    let toml = config(dir, &train, "every_epochs = 1\n[run]\nepochs = 2.0\n");
    let dev_is = format!("data.dev={}", s(&dev));
    let (refused, out) = (dir.join("refused"), dir.join("out"));
    let e = fails(
        1,
        &[
            "train",
            "retriever",
            "-c",
            s(&toml),
            "--set",
            &dev_is,
            "--set",
            "data.skip_bad_rows=true",
            "--out",
            s(&refused),
        ],
    );
    for words in ["pairs.jsonl:1", "min_score", "nli = true", "loss.cosent"] {
        assert!(e.contains(words), "{e}");
    }
    // The corrected command may go on in the same folder.
    for (loss, run) in [("loss.cosent={}", &out), ("loss.cosine_similarity={}", &refused)] {
        let args = [
            "train",
            "retriever",
            "-c",
            s(&toml),
            "--set",
            &dev_is,
            "--set",
            loss,
            "--out",
            s(run),
            "--quiet",
        ];
        ok(&args);
        let figures = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert!(figures.contains("spearman") && figures.contains("pearson"), "{figures}");
        assert!(run.join("best/README.md").is_file());
    }
    // A threshold makes positives and negatives.
    let to = dir.join("triplets.jsonl");
    // Without a word they are texts with a label.
    assert!(ok(&["data", "convert", s(&train), "--to", s(&to)]).contains(" texts"));
    std::fs::remove_file(&to).unwrap();
    let e = fails(1, &["data", "convert", s(&train), "--to", s(&to), "--as", "examples"]);
    assert!(e.contains("--min-score") && !to.exists(), "{e}");
    ok(&["data", "convert", s(&train), "--to", s(&to), "--min-score", "0.5"]);
    let first = json(std::fs::read_to_string(&to).unwrap().lines().next().unwrap());
    assert_eq!(first["positive_passages"][0]["text"], "a harbour it is");
    assert_eq!(first["negative_passages"][0]["text"], "a granite it is not");
    let split = dir.join("split");
    let threshold = ["--set", "data.min_score=0.5", "--set", "eval.every_epochs=0"];
    let mut args =
        vec!["train", "retriever", "-c", s(&toml), "--set", &dev_is, "--out", s(&split), "--quiet"];
    args.extend(threshold);
    ok(&args);
    assert!(std::fs::read_to_string(split.join("metrics.jsonl")).unwrap().contains("ndcg@10"));
}

#[test]
fn patterns_documents_and_saved_data_sets() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let docs = dir.join("docs");
    std::fs::create_dir_all(docs.join("in")).unwrap();
    std::fs::write(docs.join("tides.md"), "# Tides\n\nTides are caused by the moon.\n").unwrap();
    std::fs::write(docs.join("in/waves.txt"), "Waves are caused by wind.\n").unwrap();
    std::fs::write(docs.join("notes.pdf"), "%PDF").unwrap();
    let index = dir.join("docs.idx");
    ok(&["index", "build", "--kind", "lexical", "--corpus", s(&docs), "-o", s(&index)]);
    let hits = json(&ok(&["search", "--index", s(&index), "what causes tides", "-k", "1", "--json"]));
    assert_eq!(
        (&hits[0]["hits"][0]["id"], &hits[0]["hits"][0]["title"]),
        (&"tides.md".into(), &"Tides".into())
    );

    for (name, text) in [("a", "the moon"), ("b", "the wind")] {
        let row = format!("{{\"page_content\": \"{text} {name}\", \"metadata\": {{\"title\": \"T\"}}}}\n");
        std::fs::write(dir.join(format!("part-{name}.jsonl")), row).unwrap();
    }
    let pattern = dir.join("part-*.jsonl");
    let index = dir.join("parts.idx");
    ok(&["index", "build", "--kind", "lexical", "--corpus", s(&pattern), "-o", s(&index)]);
    let hits = json(&ok(&["search", "--index", s(&index), "wind", "-k", "1", "--json"]));
    assert_eq!((&hits[0]["hits"][0]["id"], &hits[0]["hits"][0]["text"]), (&"2".into(), &"the wind b".into()));

    let saved = crate::util::root().join("crates/data/tests/files/saved");
    let stats = json(&ok(&["data", "stats", s(&saved), "--json"]));
    assert_eq!(stats["splits"][0]["examples"], 2);
    let said = ok(&["data", "stats", s(&dir.join("part-a.jsonl")), s(&dir.join("part-b.jsonl"))]);
    assert!(said.contains("corpus: 2 passages, 2 with a title"), "{said}");
}

#[test]
fn records_and_preferences_are_counted_and_converted() {
    let tmp = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = tmp.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let records = put(
        "r.jsonl",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"a b\"}]}\n\
         {\"question\":\"q\",\"context\":\"it is a\",\"answers\":{\"text\":[\"a\"],\"answer_start\":[6]}}\n",
    );
    let stats = json(&ok(&["data", "stats", s(&records), "--json"]));
    assert_eq!(
        (&stats["records"], &stats["conversations"], &stats["with_contexts"]),
        (&2.into(), &1.into(), &1.into())
    );
    assert_eq!(stats["answer_in_contexts"], 1);
    let out = tmp.path().join("out.jsonl");
    assert!(ok(&["data", "convert", s(&records), "--to", s(&out)]).contains("2 records"));
    let lines = std::fs::read_to_string(&out).unwrap();
    assert_eq!(json(lines.lines().next().unwrap())["messages"][1]["content"], "a b");
    assert_eq!(json(lines.lines().nth(1).unwrap())["contexts"][0]["text"], "it is a");
    let parquet = tmp.path().join("x.parquet");
    assert!(ok(&["data", "convert", s(&records), "--to", s(&parquet)]).contains("2 records"));
    assert_eq!(json(&ok(&["data", "stats", s(&parquet), "--json"])), stats);
    let e = fails(1, &["data", "convert", s(&records), "--to", s(&tmp.path().join("x.csv"))]);
    assert!(e.contains("written as JSON Lines"), "{e}");
    // What would be ignored is refused.
    for option in [&["--format", "jsonl"][..], &["--min-score", "0.5"], &["--nli"], &["--split", "dev"]] {
        let args = [&["data", "stats", s(&records)][..], option].concat();
        let e = fails(2, &args);
        assert!(e.contains(option[0]) && e.contains("records"), "{e}");
        let e = fails(2, &[&["data", "preview", s(&records)][..], option].concat());
        assert!(e.contains(option[0]) && e.contains("records"), "{e}");
    }
    let corpus = put("c.txt", "The moon causes tides.\n\nWind causes waves.\n");
    assert!(ok(&["data", "stats", s(&corpus), "--format", "paragraphs"]).contains("2 passages"));
    let e = fails(2, &["data", "convert", s(&corpus), "--to", s(&out), "--to-format", "jsonl"]);
    assert!(e.contains("--to-format") && e.contains("corpus"), "{e}");
    for (name, row, kind) in [
        ("q.jsonl", "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":\"a\"}\n", "choices"),
        ("l.jsonl", "{\"text\":\"t\",\"label\":\"a\"}\n", "texts"),
    ] {
        let given = put(name, row);
        assert!(ok(&["data", "convert", s(&given), "--to", s(&parquet)]).contains(&format!("1 {kind}")));
        let figures = json(&ok(&["data", "stats", s(&parquet), "--json"]));
        assert_eq!(figures, json(&ok(&["data", "stats", s(&given), "--json"])), "{kind}");
    }

    let preferences =
        put("p.json", "[{\"instruction\":\"i\",\"input\":\"\",\"chosen\":\"c c\",\"rejected\":\"r\"}]");
    let stats = json(&ok(&["data", "stats", s(&preferences), "--json"]));
    assert_eq!((&stats["rows"], &stats["chosen_longer"]), (&1.into(), &1.into()));
    ok(&["data", "convert", s(&preferences), "--to", s(&out)]);
    assert_eq!(json(&std::fs::read_to_string(&out).unwrap())["prompt"][0]["content"], "i");
}

#[test]
fn texts_are_learned_without_a_prompt() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let texts = dir.join("texts.jsonl");
    let rows: String = (0..8).map(|i| format!("{{\"text\": \"the moon moves the sea {i}\"}}\n")).collect();
    std::fs::write(&texts, rows).unwrap();
    let toml = dir.join("c.toml");
    let scratch = "vocab_size = 300\nhidden_size = 32\nlayers = 1\nheads = 2\nintermediate_size = 64\nmax_positions = 128\n";
    let text =
        format!("[run]\nmax_steps = 2\n[model.scratch]\n{scratch}[data]\ntrain = [\"{}\"]\n", s(&texts));
    std::fs::write(&toml, text).unwrap();
    let out = dir.join("run");
    let train = ["train", "generator", "-c", s(&toml), "--out", s(&out)];
    let dev = format!("data.dev={}", s(&texts));
    let e = fails(1, &[&train[..], &["--set", &dev]].concat());
    assert!(e.contains("ask nothing") && e.contains("leave data.dev out"), "{e}");
    ok(&[&train[..], &["--quiet"]].concat());
    // There is nothing to answer in them.
    let answers = dir.join("answers.jsonl");
    let run =
        crate::util::ragduet(&["generate", "-g", s(&out.join("best")), "-i", s(&texts), "-o", s(&answers)]);
    let said = { run }.output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("without a question or prompt"), "{said}");
}
