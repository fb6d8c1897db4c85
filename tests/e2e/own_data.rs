//! Own data through the binary: tables with names of their own, mapped, previewed, trained on, searched and answered.

use crate::util::{config, fails, ok, ragduet, root, s};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Both outputs of a command that must succeed.
fn said(args: &[&str]) -> (String, String) {
    let out = ragduet(args).output().unwrap();
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{args:?}: {err}");
    (String::from_utf8(out.stdout).unwrap(), err)
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

/// An FAQ as a spreadsheet writes it: a mark, semicolons, CRLF, quotes, a line break in a field, names of its own.
fn faq(dir: &Path) -> PathBuf {
    let mut text = "\u{feff}Nr;Frage;Stelle;Antwort;Quelle\r\n".to_string();
    for i in 0..24 {
        text += &format!(
            "{i};\"Where is thing {i}; really?\";\"Thing {i} is \"\"here\"\",\nin place {i}.\";place {i};page {i}\r\n"
        );
    }
    let path = dir.join("faq.csv");
    std::fs::write(&path, text).unwrap();
    path
}

const ROLES: [&str; 6] = ["--map", "query=Frage", "--map", "positives=Stelle", "--map", "answers=Antwort"];

#[test]
fn a_spreadsheet_is_previewed_counted_trained_on_and_searched() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let faq = faq(dir);
    let with = |args: &[&str]| -> Vec<String> { args.iter().chain(&ROLES).map(|a| a.to_string()).collect() };
    fn args(all: &[String]) -> Vec<&str> {
        all.iter().map(String::as_str).collect()
    }

    // Without a mapping: what was found and what is understood.
    let e = fails(1, &["data", "stats", s(&faq)]);
    has(&e, &["faq.csv", "Frage", "(of the first row)", "--as examples|", "--map"]);
    let e = fails(2, &["data", "stats", s(&faq), "--map", "frage=Frage"]);
    has(&e, &["no role is named `frage`", "retrieval examples: query, query_id, positives"]);
    let e = fails(1, &["data", "stats", s(&faq), "--map", "query=Frage", "--map", "positives=Stele"]);
    has(&e, &["`Stele`", "Nr, Frage, Stelle, Antwort, Quelle"]);

    let (out, err) = said(&args(&with(&["data", "preview", s(&faq), "-n", "2"])));
    has(&out, &["examples", "Where is thing 0; really?", "Thing 0 is \"here\",⏎in place 0.", "place 1"]);
    has(&err, &["separated by semicolons", "2 columns are not read: Nr, Quelle"]);
    let (out, _) = said(&args(&with(&["data", "stats", s(&faq), "--json"])));
    let stats: Value = serde_json::from_str(&out).unwrap();
    assert!(stats.to_string().contains("24"), "{stats}");

    // Training, by flags; the dev set by the same names. The log shows what the first example is.
    let toml = config(dir, &faq, "[run]\nmax_steps = 3\n");
    let run = dir.join("run");
    let (_, err) = said(&args(&with(&["train", "retriever", "-c", s(&toml), "--out", s(&run)])));
    has(
        &err,
        &["the first example as it is read", "query     Where is thing 0; really?", "answer    place 0"],
    );
    let resolved = std::fs::read_to_string(run.join("config.toml")).unwrap();
    has(&resolved, &["[data.columns]", "query = \"Frage\""]);
    // By the config, and by a name that the data lacks.
    let text = std::fs::read_to_string(&toml).unwrap()
        + "\n[data.columns]\nquery = \"Frage\"\npositive = \"Stelle\"\n";
    std::fs::write(&toml, &text).unwrap();
    ok(&["train", "retriever", "-q", "-c", s(&toml), "--out", s(&dir.join("run2"))]);
    std::fs::write(&toml, text.replace("Stelle", "Stele")).unwrap();
    let e = fails(1, &["train", "retriever", "-q", "-c", s(&toml), "--out", s(&dir.join("run3"))]);
    has(&e, &["`Stele`", "positive"]);
    std::fs::write(&toml, text.replace("positive = ", "positiv = ")).unwrap();
    let e = fails(2, &["train", "retriever", "-q", "-c", s(&toml), "--out", s(&dir.join("run3"))]);
    has(&e, &["config.toml", "no role is named `positiv`"]);

    let best = run.join("best");
    ok(&args(&with(&["eval", "retriever", "-m", s(&best), "--data", s(&faq)])));
    // A corpus with names of its own: the index keeps them for its texts.
    let index = dir.join("index");
    let corpus = ["--map", "id=Nr", "--map", "text=Stelle", "--map", "title=Quelle"];
    let mut build = vec!["index", "build", "-m", s(&best), "--corpus", s(&faq), "-o", s(&index)];
    build.extend(corpus);
    ok(&build);
    let found: Value =
        serde_json::from_str(&ok(&["search", "--index", s(&index), "--json", "thing 3"])).unwrap();
    let hit = &found[0]["hits"][0];
    let number: usize = hit["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(hit["text"], format!("Thing {number} is \"here\",\nin place {number}."));
    assert_eq!(hit["title"], format!("page {number}"));
    // What is no part of the passage is shown beside it, under its own name.
    let beside = serde_json::json!({
        "Frage": format!("Where is thing {number}; really?"), "Antwort": format!("place {number}"),
    });
    assert_eq!(hit["metadata"], beside);
    let mut encode = vec!["encode", "-m", s(&best), "-i", s(&faq), "-o"];
    let encoded = dir.join("encoded");
    encode.push(s(&encoded));
    encode.extend(corpus);
    ok(&encode);
    assert_eq!(std::fs::read_to_string(encoded.join("ids.jsonl")).unwrap().lines().count(), 24);
}

#[test]
fn a_generator_shows_what_it_reads_and_learns() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let faq = faq(dir);
    let toml = dir.join("sft.toml");
    let text = format!(
        "[run]\nprecision = \"fp32\"\nmax_steps = 2\n[model.scratch]\nvocab_size = 300\nhidden_size = 32\nlayers = 2\nheads = 2\n\
         kv_heads = 2\nintermediate_size = 64\n[data]\ntrain = {faq:?}\n[data.columns]\nquestion = \"Frage\"\n\
         contexts = \"Stelle\"\nanswers = \"Antwort\"\nid = \"Nr\"\n[contexts]\ncount = 1\n[batch]\ntokens = 512\n"
    );
    std::fs::write(&toml, text).unwrap();
    let run = dir.join("run");
    let (_, err) = said(&["train", "generator", "-c", s(&toml), "--out", s(&run)]);
    has(
        &err,
        &[
            "question  Where is thing 0; really?",
            "context   Thing 0 is \"here\",⏎in place 0.",
            "as the model reads it",
        ],
    );
    has(&err, &["learned", "⟦"]);
    let best = run.join("best");
    let map =
        ["--map", "question=Frage", "--map", "contexts=Stelle", "--map", "answers=Antwort", "--map", "id=Nr"];
    let mut preview = vec!["data", "preview", s(&faq), "-n", "1", "--as", "records", "-m", s(&best)];
    preview.extend(map);
    let (out, _) = said(&preview);
    has(&out, &["records; for train generator", "question  Where", "⟦", "place 0", "tokens, "]);
    // Answering and measuring take the same names.
    let answers = dir.join("answers.jsonl");
    let mut generate =
        vec!["generate", "-g", s(&best), "-i", s(&faq), "-o", s(&answers), "--max-new-tokens", "1"];
    generate.extend(map);
    let (_, err) = said(&generate);
    has(&err, &["the first prompt as the model reads it"]);
    let lines = std::fs::read_to_string(&answers).unwrap();
    assert_eq!(lines.lines().count(), 24);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((first["shown"].as_array().unwrap().len(), &first["golds"][0]), (1, &"place 0".into()));
    let mut eval = vec![
        "eval",
        "generator",
        "-g",
        s(&best),
        "--data",
        s(&faq),
        "--questions",
        "3",
        "--max-new-tokens",
        "1",
    ];
    eval.extend(map);
    ok(&eval);
}

#[test]
fn texts_of_a_table_are_classified_and_the_header_is_none() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let rows: String =
        (0..30).map(|i| format!("\"thing {i}, {0}\",{0}\n", ["red", "green"][i % 2])).collect();
    let data = dir.join("reviews.csv");
    std::fs::write(&data, format!("Review,Colour\n{rows}")).unwrap();
    let base = dir.join("base.toml");
    let records: String = (0..20)
        .map(|i| format!("{{\"question\": \"what is {i}?\", \"answers\": [\"thing {i}\"]}}\n"))
        .collect();
    std::fs::write(dir.join("records.jsonl"), records).unwrap();
    let text = format!(
        "[run]\nprecision = \"fp32\"\nmax_steps = 1\n[model.scratch]\nvocab_size = 300\nhidden_size = 32\nlayers = 2\nheads = 2\n\
         kv_heads = 2\nintermediate_size = 64\n[data]\ntrain = {:?}\n[contexts]\ncount = 0\n[batch]\ntokens = 512\n",
        dir.join("records.jsonl")
    );
    std::fs::write(&base, text).unwrap();
    ok(&["train", "generator", "-q", "-c", s(&base), "--out", s(&dir.join("base"))]);
    let shipped = root().join("configs/classifier/text.toml");
    let sets = [
        "run.precision=fp32".to_string(),
        "run.max_steps=2".into(),
        format!("model.base={:?}", dir.join("base/best")),
        format!("data.train={data:?}"),
        format!("data.dev={data:?}"),
    ];
    let run = dir.join("run");
    let mut train = vec!["train", "classifier", "--json", "-c", s(&shipped), "--out", s(&run)];
    train.extend(["--map", "text=Review", "--map", "label=Colour"]);
    sets.iter().for_each(|set| train.extend(["--set", set]));
    let (out, err) = said(&train);
    let outcome: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&outcome["texts"], outcome["labels"].as_array().unwrap().len()), (&30.into(), 2));
    has(&err, &["the first text as it is read", "text   thing 0, red", "label  red"]);
    let labels = ok(&["classify", "-m", s(&run.join("best")), "-i", s(&data), "--map", "text=Review"]);
    assert_eq!(labels.lines().count(), 30);
}
