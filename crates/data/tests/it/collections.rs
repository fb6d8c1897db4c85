//! A collection is one thing, whatever its format: corpus, queries, judgements and answers are the same, also the
//! passages that nobody judged; what a judgement names in vain is a bad row; what one writes, the other reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ragduet_data::{
    BadRowPolicy, BadRows, Collection, Format, MissingPolicy, Passage, PassagePool, Problem, Query,
    ReadOptions, RetrievalExample, TrainingSet, convert, dataset_stats, read_corpus, read_examples,
    read_questions, write_examples,
};

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// What LlamaIndex's `save_json` writes.
const LLAMA_INDEX: &str = r#"{
    "queries": {
        "q1": "where is the harbour",
        "q2": "what is wind",
        "q3": "nobody knows"
    },
    "corpus": {
        "n1": "The harbour is east.",
        "n2": "Wind.",
        "n3": "Nothing asks for this."
    },
    "relevant_docs": {
        "q1": [
            "n1"
        ],
        "q2": [
            "n2",
            "n1"
        ]
    },
    "mode": "text"
}"#;

/// The same collection in four formats. Their passages have the ids n1 to n3, but in SQuAD.
fn everywhere(dir: &Path) -> Vec<(Format, PathBuf)> {
    let queries = "{\"_id\": \"q1\", \"text\": \"where is the harbour\"}\n{\"_id\": \"q2\", \"text\": \"what is wind\"}\n{\"_id\": \"q3\", \"text\": \"nobody knows\"}\n";
    let corpus = "{\"_id\": \"n1\", \"text\": \"The harbour is east.\"}\n{\"_id\": \"n2\", \"text\": \"Wind.\"}\n{\"_id\": \"n3\", \"text\": \"Nothing asks for this.\"}\n";
    write(dir, "beir/corpus.jsonl", corpus);
    write(dir, "beir/queries.jsonl", queries);
    write(dir, "beir/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\tn1\t1\nq2\tn2\t1\nq2\tn1\t2\n");
    write(dir, "mm/collection.tsv", "n1\tThe harbour is east.\nn2\tWind.\nn3\tNothing asks for this.\n");
    write(dir, "mm/queries.tsv", "q1\twhere is the harbour\nq2\twhat is wind\nq3\tnobody knows\n");
    write(dir, "mm/qrels.tsv", "q1\t0\tn1\t1\nq2\t0\tn2\t1\nq2\t0\tn1\t1\n");
    let squad = r#"{"data": [{"paragraphs": [
        {"context": "The harbour is east.", "qas": [{"id": "q1", "question": "where is the harbour", "answers": [{"text": "east"}]}]},
        {"context": "Wind.", "qas": [{"id": "q2", "question": "what is wind", "answers": [{"text": "Wind"}]},
                                     {"id": "q3", "question": "nobody knows", "is_impossible": true, "answers": []}]},
        {"context": "Nothing asks for this.", "qas": []}]}]}"#;
    vec![
        (Format::Beir, dir.join("beir")),
        (Format::MsMarco, dir.join("mm")),
        (Format::Squad, write(dir, "squad.json", squad)),
        (Format::LlamaIndex, write(dir, "dataset.json", LLAMA_INDEX)),
    ]
}

fn texts<T>(rows: impl Iterator<Item = ragduet_data::Result<T>>, text: impl Fn(T) -> String) -> Vec<String> {
    rows.map(|row| text(row.unwrap())).collect()
}

#[test]
fn every_format_gives_what_nobody_judged() {
    let dir = tempfile::tempdir().unwrap();
    let all = everywhere(dir.path());
    for (format, path) in &all {
        assert_eq!(Format::detect(path).unwrap(), *format);
        let (options, bad) = (ReadOptions::default(), BadRows::default());
        let collection = Collection::open(path, &options, &bad).unwrap();
        assert_eq!(collection.format(), *format);
        let passages = ["The harbour is east.", "Wind.", "Nothing asks for this."];
        assert_eq!(texts(collection.corpus(&bad).unwrap(), |p| p.text), passages, "{format}");
        assert_eq!(texts(read_corpus(path, &options, &bad).unwrap(), |p| p.text), passages, "{format}");
        let queries = texts(collection.queries(Some("train"), &bad).unwrap(), |q| q.text);
        let asked = if *format == Format::Squad { 2 } else { 3 };
        assert_eq!(queries, ["where is the harbour", "what is wind", "nobody knows"][..asked], "{format}");
        assert_eq!(collection.queries(None, &bad).unwrap().count(), asked);
        let qrels = texts(collection.qrels("train", &bad).unwrap(), |q| format!("{} {}", q.query, q.passage));
        let expected: &[&str] =
            if *format == Format::Squad { &["q1 0-0", "q2 0-1"] } else { &["q1 n1", "q2 n2", "q2 n1"] };
        assert_eq!(qrels, expected, "{format}");

        let pool = |pool| TrainingSet::read(path, &options, pool, &bad).unwrap();
        let (judged, whole) = (pool(PassagePool::Judged), pool(PassagePool::WholeCorpus));
        assert_eq!((judged.passages().len(), whole.passages().len()), (2, 3), "{format}");
        assert_eq!((judged.items().len(), whole.items()), (2, judged.items()), "{format}");
        assert_eq!(bad.report().bad_rows(), 0);

        let stats = dataset_stats(path, &options, &BadRows::default()).unwrap();
        assert_eq!((stats.corpus.as_ref().unwrap().passages, stats.splits.len()), (3, 1), "{format}");
        assert_eq!((stats.splits[0].examples, stats.splits[0].positives), (2, 2), "{format}");
    }
}

#[test]
fn queries_without_a_relevant_passage_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    for (format, path) in everywhere(dir.path()) {
        let bad = BadRows::default();
        assert_eq!(read_examples(&path, &ReadOptions::default(), &bad).unwrap().count(), 2);
        let report = bad.report();
        let expected = match format {
            // The query may belong to another split.
            Format::Beir => (0, 0),
            Format::Squad => (0, 1),
            _ => (1, 0),
        };
        assert_eq!((report.unjudged, report.unanswerable), expected, "{format}: {report}");
    }
}

#[test]
fn splits_are_those_with_judgements() {
    let dir = tempfile::tempdir().unwrap();
    for (format, path) in everywhere(dir.path()) {
        let collection = Collection::find(&path, &ReadOptions::default()).unwrap().unwrap();
        let expected = (format == Format::Beir).then(|| vec!["train".to_owned()]);
        assert_eq!(collection.splits().unwrap(), expected, "{format}");
    }
    write(dir.path(), "more/collection.tsv", "n1\tone\nn2\ttwo\n");
    for (split, query) in [("train", "a"), ("dev.small", "b"), ("eval", "c")] {
        write(dir.path(), &format!("more/queries.{split}.tsv"), format!("{query}\ttext {query}\n"));
        if split != "eval" {
            write(dir.path(), &format!("more/qrels.{split}.tsv"), format!("{query}\t0\tn1\t1\n"));
        }
    }
    let path = dir.path().join("more");
    let collection = Collection::find(&path, &ReadOptions::default()).unwrap().unwrap();
    assert_eq!(collection.splits().unwrap().unwrap(), ["dev.small", "train"]);
    assert_eq!(collection.queries(None, &BadRows::default()).unwrap().count(), 3);
    let stats = dataset_stats(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
    let splits: Vec<_> = stats.splits.iter().map(|s| (s.name.as_str(), s.examples)).collect();
    assert_eq!(splits, [("dev.small", 1), ("train", 1)]);
}

#[test]
fn judgements_of_nothing_are_one_rule() {
    let dir = tempfile::tempdir().unwrap();
    let all = everywhere(dir.path());
    write(dir.path(), "beir/qrels/train.tsv", "q1\tn1\t1\nq1\tn9\t1\nq9\tn1\t1\nq1\tn1\t1\n");
    write(dir.path(), "mm/qrels.tsv", "q1\t0\tn1\t1\nq1\t0\tn9\t1\nq9\t0\tn1\t1\nq1\t0\tn1\t1\n");
    let lists = LLAMA_INDEX
        .replace("\"n1\"\n        ],", "\"n1\", \"n9\", \"n1\"\n        ],\n        \"q9\": [\"n1\"],");
    let lists = lists.replace("            \"n2\",\n            \"n1\"\n", "");
    write(dir.path(), "dataset.json", lists);
    let counted: Vec<_> = all
        .iter()
        .filter(|(format, _)| *format != Format::Squad)
        .map(|(format, path)| {
            let sidecar = dir.path().join("bad.jsonl");
            let bad = BadRows::new(BadRowPolicy::Skip { sidecar: sidecar.clone() });
            let examples: Vec<_> =
                read_examples(path, &ReadOptions::default(), &bad).unwrap().map(Result::unwrap).collect();
            assert_eq!((examples.len(), examples[0].positives.len()), (1, 1), "{format}");
            let rows = std::fs::read_to_string(sidecar).unwrap();
            assert!(rows.contains("q1\\tn9\\t1") && rows.contains("q9\\tn1\\t1"), "{rows}");
            let report = bad.report();
            (report.rows, report.bad)
        })
        .collect();
    let problems = [Problem::DuplicateId, Problem::MissingPassage, Problem::MissingQuery];
    assert_eq!(counted[0].1, problems.map(|problem| (problem, 1)).into());
    assert!(counted.iter().all(|c| *c == counted[0]), "{counted:?}");

    let path = &all[3].1;
    let strict = || {
        let bad = BadRows::default();
        bad.set_missing(MissingPolicy::Error);
        bad
    };
    let first = read_examples(path, &ReadOptions::default(), &strict()).err().unwrap().to_string();
    let expected =
        "dataset.json:13: missing passage: relevant_docs[\"q1\"]: the corpus has no passage \"n9\"";
    assert!(first.contains(expected), "{first}");
    // What joint training reads is held to the same rule.
    let answers = write(dir.path(), "answers.jsonl", "{\"_id\": \"q1\", \"answers\": [\"east\"]}\n");
    let questions = read_questions(path, "train", Some(&answers), &strict()).unwrap_err().to_string();
    assert_eq!(questions, first);
    // Otherwise they are left out and counted; what was judged before is a bad row as ever.
    write(dir.path(), "beir/qrels/train.tsv", "q1\tn1\t1\nq1\tn9\t1\nq9\tn1\t1\nq9\tn2\t1\n");
    let beir = all.iter().find(|(format, _)| *format == Format::Beir).unwrap();
    let bad = BadRows::default();
    assert_eq!(read_examples(&beir.1, &ReadOptions::default(), &bad).unwrap().count(), 1);
    let report = bad.report();
    assert_eq!((report.missing_queries, report.missing_passages, report.bad_rows()), (2, 1, 0), "{report}");
}

#[test]
fn questions_with_answers() {
    let dir = tempfile::tempdir().unwrap();
    let answers = write(dir.path(), "answers.jsonl", "{\"_id\": \"q1\", \"answer\": \"east\"}\n");
    for (format, path) in everywhere(dir.path()) {
        let bad = BadRows::default();
        let given = (format != Format::Squad).then_some(answers.as_path());
        let (records, without) = read_questions(&path, "train", given, &bad).unwrap();
        let expected = match format {
            Format::Squad => (2, 0),
            Format::Beir => (1, 1),
            _ => (1, 2),
        };
        assert_eq!((records.len(), without), expected, "{format}");
        let record = &records[0];
        assert_eq!((record.id.as_str(), record.question.as_str()), ("q1", "where is the harbour"));
        assert_eq!((record.answers.as_slice(), record.gold.len()), (&["east".to_owned()][..], 1));
        if format != Format::Squad {
            let message = read_questions(&path, "train", None, &bad).unwrap_err().to_string();
            assert!(
                message.contains(&format!("this {format} data has no answers; give a file")),
                "{message}"
            );
        }
    }
    // Beside a BEIR directory's corpus they are found.
    write(dir.path(), "beir/answers.jsonl", "{\"_id\": \"q2\", \"answer\": \"air\"}\n");
    let (records, _) = read_questions(&dir.path().join("beir"), "train", None, &BadRows::default()).unwrap();
    assert_eq!((records[0].id.as_str(), records[0].gold.len()), ("q2", 2));
}

#[test]
fn examples_are_a_collection_of_their_passages() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "{\"query_id\": \"a\", \"query\": \"q\", \"positive\": {\"docid\": \"1\", \"text\": \"p\"}, \"negative\": \"n\", \"answers\": [\"x\"]}\n";
    let path = write(dir.path(), "rows.jsonl", rows);
    let (options, bad) = (ReadOptions::default(), BadRows::default());
    assert!(Collection::find(&path, &options).unwrap().is_none());
    let collection = Collection::open(&path, &options, &bad).unwrap();
    assert_eq!(texts(collection.corpus(&bad).unwrap(), |p| p.text), ["p", "n"]);
    assert_eq!(texts(collection.qrels("any", &bad).unwrap(), |q| q.query + " " + &q.passage), ["a 1"]);
    assert_eq!(collection.answers(None, &bad).unwrap()["a"], ["x"]);
    let example = collection.examples("any", &bad).unwrap().next().unwrap().unwrap();
    assert_eq!(example, read_examples(&path, &options, &bad).unwrap().next().unwrap().unwrap());
    let text = write(dir.path(), "corpus.txt", "one\n");
    let message = Collection::open(text, &options, &bad).unwrap_err().to_string();
    assert!(
        message.contains("txt holds passages, not examples") && message.contains("llama-index"),
        "{message}"
    );

    // The corpus that ids point to is mined as well.
    let corpus = write(
        dir.path(),
        "c.jsonl",
        "{\"docid\": \"1\", \"text\": \"one\"}\n{\"docid\": \"2\", \"text\": \"two\"}\n",
    );
    let ids = write(
        dir.path(),
        "ids.jsonl",
        "{\"query_id\": \"a\", \"query\": \"q\", \"positive_document_ids\": [\"1\"]}\n",
    );
    let options = ReadOptions { corpus: Some(corpus), ..ReadOptions::format(Format::Tevatron) };
    for (pool, passages) in [(PassagePool::Judged, 1), (PassagePool::WholeCorpus, 2)] {
        assert_eq!(TrainingSet::read(&ids, &options, pool, &bad).unwrap().passages().len(), passages);
    }
}

fn error(path: &Path) -> String {
    match read_examples(path, &ReadOptions::format(Format::LlamaIndex), &BadRows::default()) {
        Ok(examples) => examples.collect::<Result<Vec<_>, _>>().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_malformed_dataset_names_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    for (from, to, part) in [
        ("\"Wind.\"", "[\"Wind.\"]", "x.json:9: wrong type: corpus[\"n2\"]: expected a text, got a list"),
        ("\"Wind.\"", "\" \"", "x.json:9: empty text: corpus[\"n2\"]: the text is empty"),
        (
            "\"n2\": \"W",
            "\"n1\": \"W",
            "x.json:9: duplicate id: corpus[\"n1\"]: the id \"n1\" was used before",
        ),
        ("\"what is wind\"", "7", "x.json:4: wrong type: queries[\"q2\"]: expected a text, got the number 7"),
        ("\"what is wind\"", "what", "x.json:4: broken JSON: queries[\"q2\"]: "),
        (
            "[\n            \"n1\"\n        ]",
            "\"n1\"",
            "x.json:13: wrong type: relevant_docs[\"q1\"]: expected a list of passage ids, got a text",
        ),
        (
            "\"n2\",",
            "{},",
            "x.json:16: wrong type: relevant_docs[\"q2\"]: expected a list of passage ids, got an object",
        ),
        ("relevant_docs", "relevant", "x.json:22: missing column: the object has no key \"relevant_docs\""),
        ("\"corpus\": {", "\"corpus\": [], \"more\": {", "x.json:7: wrong type: \"corpus\" is not an object"),
        ("\"q2\": \"what", "q2: \"what", "x.json:4: broken JSON: expected a key, got 'q'"),
        ("\"text\"\n", "\"image\"\n", "x.json: its mode is \"image\"; only datasets of texts"),
    ] {
        assert!(LLAMA_INDEX.contains(from), "{from}");
        let path = write(dir.path(), "x.json", LLAMA_INDEX.replacen(from, to, 1));
        let message = error(&path);
        assert!(message.contains(part), "{message}, expected {part}");
    }
    let path = write(dir.path(), "x.json", &LLAMA_INDEX[..LLAMA_INDEX.len() - 40]);
    assert!(error(&path).contains("the file ends inside an element of the object"), "{}", error(&path));
    // Set aside, the rest is read.
    let path = write(dir.path(), "x.json", LLAMA_INDEX.replace("\"Wind.\"", "null"));
    let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
    assert_eq!(read_examples(&path, &ReadOptions::default(), &bad).unwrap().count(), 2);
    let report = bad.report();
    assert_eq!((report.bad[&Problem::WrongType], report.bad[&Problem::MissingPassage]), (1, 1), "{report}");
}

#[test]
fn a_dataset_is_known_by_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let one_line: String = LLAMA_INDEX.lines().map(str::trim).collect();
    let mode_first = one_line.replacen('{', "{\"mode\": \"text\",", 1).replace(",\"mode\": \"text\"}", "}");
    for text in [one_line.as_str(), &mode_first, &format!("\u{feff}\n{LLAMA_INDEX}")] {
        let path = write(dir.path(), "x.json", text);
        assert_eq!(Format::detect(&path).unwrap(), Format::LlamaIndex, "{text}");
        assert_eq!(read_examples(&path, &ReadOptions::default(), &BadRows::default()).unwrap().count(), 2);
    }
    let lines = write(dir.path(), "y.json", "{\"queries\": \"a row\", \"pos\": \"p\"}\n");
    assert_eq!(Format::detect(&lines).unwrap(), Format::Jsonl);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(LLAMA_INDEX.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    let whole = write(dir.path(), "z.json.gz", &gz);
    assert_eq!(Format::detect(&whole).unwrap(), Format::LlamaIndex);
    let cut = write(dir.path(), "z.json.gz", &gz[..gz.len() - 30]);
    assert!(error(&cut).contains("truncated file") && error(&cut).contains("z.json.gz"), "{}", error(&cut));
}

#[test]
fn converting_keeps_what_nobody_judged() {
    let dir = tempfile::tempdir().unwrap();
    for (format, path) in everywhere(dir.path()) {
        for (to, name) in [(Format::LlamaIndex, "to.json"), (Format::Beir, "to")] {
            let out = dir.path().join("out").join(format.name()).join(name);
            let counts = convert(&path, &ReadOptions::default(), &out, to, &BadRows::default()).unwrap();
            assert_eq!((counts.examples, counts.queries, counts.passages), (2, 2, 3), "{format} to {to}");
            assert_eq!(Format::detect(&out).unwrap(), to);
            let set = |path: &Path| {
                let bad = BadRows::default();
                let set =
                    TrainingSet::read(path, &ReadOptions::default(), PassagePool::WholeCorpus, &bad).unwrap();
                let texts: BTreeSet<String> = set.passages().iter().map(Passage::full_text).collect();
                let pairs: BTreeSet<(String, String)> = (0..set.items().len())
                    .map(|i| set.example(i))
                    .flat_map(|e| e.positives.into_iter().map(move |p| (e.query.text.clone(), p.full_text())))
                    .collect();
                (texts, pairs)
            };
            assert_eq!(set(&out), set(&path), "{format} to {to}");
        }
    }
    let text = std::fs::read_to_string(dir.path().join("out/llama-index/to.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["relevant_docs"]["q2"], serde_json::json!(["n2", "n1"]));
    assert_eq!((&value["mode"], &value["corpus"]["n3"]), (&"text".into(), &"Nothing asks for this.".into()));
}

#[test]
fn what_a_dataset_has_no_place_for_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let passage = |id: &str, title: Option<&str>| Passage {
        id: id.into(),
        title: title.map(Into::into),
        text: "text".into(),
    };
    let example = RetrievalExample {
        query: Query { id: "q".into(), text: "query".into() },
        positives: vec![passage("p", Some("Title"))],
        negatives: vec![passage("n", None)],
        scores: Some(vec![1.0, 0.5]),
        answers: vec!["a".into()],
    };
    let path = dir.path().join("x.json");
    let counts = write_examples(&path, Format::LlamaIndex, [Ok(example)]).unwrap();
    let lost =
        (counts.titles_joined, counts.negatives_unlinked, counts.scores_dropped, counts.answers_dropped);
    assert_eq!(lost, (1, 1, 1, 1));
    assert!(counts.to_string().ends_with("1 titles joined with the text"), "{counts}");
    let again =
        read_examples(&path, &ReadOptions::default(), &BadRows::default()).unwrap().next().unwrap().unwrap();
    assert_eq!(again.positives[0].full_text(), "Title text");
    assert_eq!(read_corpus(&path, &ReadOptions::default(), &BadRows::default()).unwrap().count(), 2);
}

/// Texts with what JSON has to escape, ids with what keys have to.
fn collection() -> impl Strategy<Value = Vec<RetrievalExample>> {
    let text = "[a-z\"\\\\{}\\[\\],: \té漢\n]{0,12}[a-z][\"\\\\]{0,2}";
    let passages =
        proptest::collection::btree_map("[a-z\"\\\\:{}0-9]{1,5}", (proptest::option::of(text), text), 1..8);
    let queries = proptest::collection::btree_map(
        "[a-z\"\\\\:\\[\\]0-9]{1,5}",
        (
            text,
            proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
            any::<Option<prop::sample::Index>>(),
        ),
        0..6,
    );
    (passages, queries).prop_map(|(passages, queries)| {
        let passages: Vec<Passage> =
            passages.into_iter().map(|(id, (title, text))| Passage { id, title, text }).collect();
        let queries = queries.into_iter().map(|(id, (text, positives, negative))| {
            let of = |index: &prop::sample::Index| passages[index.index(passages.len())].clone();
            let mut positives: Vec<Passage> = positives.iter().map(of).collect();
            positives.sort_by(|a, b| a.id.cmp(&b.id));
            positives.dedup();
            let negatives = negative.iter().map(of).filter(|n| !positives.contains(n)).collect();
            RetrievalExample {
                query: Query { id, text },
                positives,
                negatives,
                ..RetrievalExample::default()
            }
        });
        queries.collect()
    })
}

/// By query text, the texts of its positives.
fn judged(examples: &[RetrievalExample]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for example in examples {
        let of = all.entry(example.query.text.trim().to_owned()).or_default();
        of.extend(example.positives.iter().map(Passage::full_text));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_written_is_read_again(examples in collection(), suffix in prop::sample::select(vec!["", ".gz", ".zst"])) {
        let dir = tempfile::tempdir().unwrap();
        let mut written = 0;
        for format in Format::ALL {
            // A format that is named needs no extension but that of the compression.
            let name = match format {
                Format::Beir => "folder".to_owned(),
                Format::Parquet => "x.parquet".to_owned(),
                _ => format!("x{suffix}"),
            };
            let path = dir.path().join(format.name()).join(name);
            let Ok(counts) = write_examples(&path, format, examples.iter().cloned().map(Ok)) else { continue };
            written += 1;
            prop_assert_eq!(counts.examples, examples.len() as u64);
            let bad = BadRows::default();
            let again: Vec<_> =
                read_examples(&path, &ReadOptions::format(format), &bad).unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(judged(&again), judged(&examples), "{}", format);
            if let Some(collection) = Collection::find(&path, &ReadOptions::format(format)).unwrap() {
                let ids: Vec<_> = again.iter().map(|e| &e.query.id).collect();
                prop_assert_eq!(ids, examples.iter().map(|e| &e.query.id).collect::<Vec<_>>());
                let wanted: BTreeSet<&str> =
                    examples.iter().flat_map(|e| e.positives.iter().chain(&e.negatives)).map(|p| p.id.as_str()).collect();
                let corpus: Vec<Passage> = collection.corpus(&bad).unwrap().map(Result::unwrap).collect();
                prop_assert_eq!(corpus.iter().map(|p| p.id.as_str()).collect::<BTreeSet<_>>(), wanted);
            }
        }
        prop_assert!(written > 5);
    }
}
