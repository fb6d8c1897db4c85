//! Every format is read as it is found in the wild; what one writes, the other reads; bad rows are named.

use std::io::Write;
use std::path::{Path, PathBuf};

use ragduet_data::{
    BadRowPolicy, BadRows, BeirWriter, Collection, Format, Passage, PassagePool, Problem, QrelsLayout, Query,
    ReadOptions, RetrievalExample, TrainingSet, convert, read_corpus, read_examples, write_corpus,
    write_examples, write_qrels,
};

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn read(path: &Path, options: &ReadOptions) -> Vec<RetrievalExample> {
    read_examples(path, options, &BadRows::default()).unwrap().collect::<Result<_, _>>().unwrap()
}

fn error(path: &Path, options: &ReadOptions) -> String {
    match read_examples(path, options, &BadRows::default()) {
        Ok(examples) => examples.collect::<Result<Vec<_>, _>>().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

fn brief(example: &RetrievalExample) -> (&str, Vec<&str>, Vec<&str>) {
    (
        &example.query.text,
        example.positives.iter().map(|p| p.text.as_str()).collect(),
        example.negatives.iter().map(|p| p.text.as_str()).collect(),
    )
}

fn beir(dir: &Path) -> PathBuf {
    write(
        dir,
        "beir/corpus.jsonl",
        "{\"_id\": \"d1\", \"title\": \"T\", \"text\": \"one\"}\n{\"_id\": \"d2\", \"title\": \"\", \"text\": \"two\"}\n{\"_id\": \"d3\", \"text\": \"three\"}\n",
    );
    write(
        dir,
        "beir/queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"first\"}\n{\"_id\": \"q2\", \"text\": \"second\"}\n",
    );
    write(dir, "beir/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td3\t2\nq2\td2\t0\n");
    write(dir, "beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq2\td2\t1\n");
    dir.join("beir")
}

#[test]
fn beir_directories() {
    let dir = tempfile::tempdir().unwrap();
    let path = beir(dir.path());
    let bad = BadRows::default();
    let examples: Vec<_> =
        read_examples(&path, &ReadOptions::default(), &bad).unwrap().map(Result::unwrap).collect();
    assert_eq!(examples.len(), 1);
    assert_eq!(brief(&examples[0]), ("first", vec!["one", "three"], vec![]));
    assert_eq!(examples[0].positives[0].full_text(), "T one");
    assert_eq!(bad.report().unjudged, 1);
    let beir = Collection::open(&path, &ReadOptions::default(), &bad).unwrap();
    assert_eq!(beir.splits().unwrap().unwrap(), ["test", "train"]);
    assert_eq!(beir.qrels("train", &bad).unwrap().count(), 3);
    let missing = error(&path, &ReadOptions { split: Some("dev".into()), ..ReadOptions::default() });
    assert!(missing.ends_with("qrels/dev.tsv: not found; the splits are test, train"), "{missing}");

    let options = ReadOptions { split: Some("test".into()), ..ReadOptions::default() };
    let set = TrainingSet::read(&path, &options, PassagePool::WholeCorpus, &bad).unwrap();
    assert_eq!((set.passages().len(), set.items().len()), (3, 1));
    assert_eq!(set.passage_by_id("d2"), Some(set.items()[0].positives[0]));
}

#[test]
fn judgements_of_nothing_are_bad_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = beir(dir.path());
    write(dir.path(), "beir/qrels/train.tsv", "q1\td9\t1\nq9\td1\t1\nq1\td1\t1\nq1\td1\t1\nq1\td2\tx\n");
    let first = error(&path, &ReadOptions::default());
    assert!(first.contains("train.tsv:5: wrong type: grade \"x\" is no whole number"), "{first}");
    let sidecar = dir.path().join("out/bad.jsonl");
    let bad = BadRows::new(BadRowPolicy::Skip { sidecar: sidecar.clone() });
    let examples: Vec<_> =
        read_examples(&path, &ReadOptions::default(), &bad).unwrap().map(Result::unwrap).collect();
    assert_eq!(examples[0].positives.len(), 1);
    let report = bad.report();
    for (problem, count) in [
        (Problem::MissingPassage, 1),
        (Problem::MissingQuery, 1),
        (Problem::DuplicateId, 1),
        (Problem::WrongType, 1),
    ] {
        assert_eq!(report.bad.get(&problem), Some(&count), "{report}");
    }
    let lines = std::fs::read_to_string(sidecar).unwrap();
    assert_eq!(lines.lines().count(), 4);
    assert!(lines.contains(r#""problem":"missing_passage""#) && lines.contains("d9"), "{lines}");
}

#[test]
fn jsonl_shards_and_compression() {
    let dir = tempfile::tempdir().unwrap();
    let row = |n: u32| format!("{{\"query\": \"q{n}\", \"pos\": [\"p{n}\"], \"neg\": [\"n{n}\"]}}\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all((row(1) + "\n" + &row(2)).as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    // Two members, as `cat a.gz b.gz` makes them.
    write(dir.path(), "shards/b.jsonl.gz", [gz.as_slice(), gz.as_slice()].concat());
    write(dir.path(), "shards/a.jsonl.zst", zstd::encode_all(row(0).as_bytes(), 3).unwrap());
    write(dir.path(), "shards/c.jsonl", format!("\u{feff}{}", row(9).replace('\n', "\r\n")));
    let queries: Vec<String> =
        read(&dir.path().join("shards"), &ReadOptions::default()).into_iter().map(|e| e.query.text).collect();
    assert_eq!(queries, ["q0", "q1", "q2", "q1", "q2", "q9"]);
}

#[test]
fn a_truncated_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String =
        (0..2000).map(|n| format!("{{\"query\": \"{n}\", \"pos\": \"p{}\"}}\n", n * 7919)).collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(rows.as_bytes()).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(rows.as_bytes(), 3).unwrap();
    for (name, bytes) in [("a.jsonl.gz", &gz), ("a.jsonl.zst", &zst)] {
        let path = write(dir.path(), name, &bytes[..bytes.len() / 2]);
        let message = error(&path, &ReadOptions::default());
        assert!(message.contains("truncated file") && message.contains(name), "{message}");
        let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
        let read = read_examples(&path, &ReadOptions::default(), &bad).unwrap().filter(Result::is_ok).count();
        assert!(read < 2000);
        assert_eq!(bad.report().bad[&Problem::TruncatedFile], 1);
    }
}

#[test]
fn bad_rows_have_a_place_and_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let good = "{\"query\": \"q\", \"positive\": \"p\"}\n";
    for (row, part) in [
        (&b"{\"query\": \"q\", "[..], "x.jsonl:2: broken JSON: "),
        (b"{\"quary\": \"q\", \"positive\": \"p\"}", "x.jsonl:2: missing column: no column for the query"),
        (b"{\"query\": \"\", \"positive\": \"p\"}", "x.jsonl:2: empty text: column \"query\" is empty"),
        (
            b"{\"query\": \"q\", \"positive\": 7}",
            "x.jsonl:2: wrong type: column \"positive\": expected a text",
        ),
        (b"{\"query\": \"q\xff\", \"positive\": \"p\"}", "x.jsonl:2: invalid UTF-8: byte 13 of the line"),
    ] {
        let path = write(dir.path(), "x.jsonl", [good.as_bytes(), row, b"\n", good.as_bytes()].concat());
        let message = error(&path, &ReadOptions::default());
        assert!(message.contains(part) && message.ends_with("; mend the row"), "{message}");
        let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
        assert_eq!(
            read_examples(&path, &ReadOptions::default(), &bad).unwrap().filter(Result::is_ok).count(),
            2
        );
        assert_eq!((bad.report().rows, bad.report().bad_rows()), (2, 1));
    }
}

#[test]
fn dpr_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        dir.path(),
        "nq.json",
        r#"[
    {"dataset": "nq", "question": "who", "answers": ["me", "I"],
     "positive_ctxs": [{"title": "T", "text": "p", "score": 1000, "passage_id": "7"}],
     "negative_ctxs": [{"title": "", "text": "easy"}], "hard_negative_ctxs": [{"title": "", "text": "hard"}]},
    {"question": "none", "answers": [], "positive_ctxs": [], "negative_ctxs": [], "hard_negative_ctxs": []}
]"#,
    );
    let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
    let examples: Vec<_> =
        read_examples(&path, &ReadOptions::default(), &bad).unwrap().map(Result::unwrap).collect();
    assert_eq!(examples.len(), 1);
    assert_eq!(brief(&examples[0]), ("who", vec!["p"], vec!["hard", "easy"]));
    assert_eq!((examples[0].positives[0].id.as_str(), examples[0].answers.len()), ("7", 2));
    let message = error(&path, &ReadOptions::default());
    assert!(message.contains("nq.json:5: no relevant passage"), "{message}");
}

#[test]
fn squad_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        dir.path(),
        "dev-v2.0.json",
        r#"{"version": "v2.0", "data": [
{"title": "Some_Title", "paragraphs": [{"context": "c", "qas": [
  {"id": "a", "question": "q?", "is_impossible": false, "answers": [{"text": "x", "answer_start": 0}, {"text": "x", "answer_start": 0}]},
  {"id": "b", "question": "r?", "is_impossible": true, "answers": []},
  {"id": 12, "question": "s?", "answers": [{"text": "y", "answer_start": 1}]}]}]},
{"title": "Other", "paragraphs": [{"context": " ", "qas": []}]}]}"#,
    );
    let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
    let examples: Vec<_> =
        read_examples(&path, &ReadOptions::default(), &bad).unwrap().map(Result::unwrap).collect();
    assert_eq!(examples.len(), 2);
    assert_eq!(
        (examples[0].answers.as_slice(), examples[0].positives[0].id.as_str()),
        (&["x".to_owned()][..], "0-0")
    );
    assert_eq!(
        (examples[0].positives[0].title.as_deref(), examples[1].query.id.as_str()),
        (Some("Some Title"), "12")
    );
    let report = bad.report();
    assert_eq!((report.rows, report.unanswerable, report.bad_rows()), (2, 1, 1));

    let out = dir.path().join("beir");
    let bad = BadRows::new(BadRowPolicy::Skip { sidecar: dir.path().join("bad.jsonl") });
    let counts = convert(&path, &ReadOptions::default(), &out, Format::Beir, &bad).unwrap();
    assert_eq!((counts.queries, counts.passages, counts.answers_dropped), (2, 1, 2));
    assert_eq!(read(&out, &ReadOptions::default()).len(), 2);
}

#[test]
fn tevatron_with_ids() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = write(
        dir.path(),
        "corpus.jsonl",
        "{\"docid\": \"1\", \"document_text\": \"one\"}\n{\"docid\": \"2\", \"title\": \"T\", \"text\": \"two\"}\n",
    );
    let rows = "{\"query_id\": \"a\", \"query_text\": \"q\", \"positive_document_ids\": [\"1\"], \"negative_document_ids\": [2]}\n";
    let path = write(dir.path(), "train.jsonl", rows);
    let options = ReadOptions { corpus: Some(corpus), ..ReadOptions::format(Format::Tevatron) };
    let examples = read(&path, &options);
    assert_eq!(brief(&examples[0]), ("q", vec!["one"], vec!["two"]));
    let message = error(&path, &ReadOptions::format(Format::Tevatron));
    assert!(message.contains("give the corpus"), "{message}");
    let path = write(dir.path(), "train.jsonl", rows.replace("\"1\"", "\"5\""));
    assert!(
        error(&path, &options).contains("train.jsonl:1: missing passage: the corpus has no passage \"5\"")
    );
}

#[test]
fn ms_marco() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "mm/collection.tsv", "0\tzero\n1\tone\n2\ttwo\n");
    let queries = write(dir.path(), "mm/queries.train.tsv", "10\tten\n11\televen\n");
    write(dir.path(), "mm/qrels.train.tsv", "10\t0\t1\t1\n11\t0\t2\t1\n");
    let mm = dir.path().join("mm");
    assert_eq!(Format::detect(&mm).unwrap(), Format::MsMarco);
    let examples = read(&mm, &ReadOptions::default());
    assert_eq!(brief(&examples[1]), ("eleven", vec!["two"], vec![]));
    let corpus = read_corpus(&mm, &ReadOptions::default(), &BadRows::default()).unwrap();
    assert_eq!(corpus.map(|p| p.unwrap().id).collect::<Vec<_>>(), ["0", "1", "2"]);

    let ids = write(dir.path(), "triples.tsv", "10\t1\t0\n");
    let options = ReadOptions {
        corpus: Some(mm.join("collection.tsv")),
        queries: Some(queries),
        ..ReadOptions::default()
    };
    assert_eq!(brief(&read(&ids, &options)[0]), ("ten", vec!["one"], vec!["zero"]));
    assert!(error(&ids, &ReadOptions::default()).contains("give the corpus and the queries"));
    let text = write(dir.path(), "text.tsv", "who is\tpos text\tneg text\n");
    assert_eq!(
        brief(&read(&text, &ReadOptions::default())[0]),
        ("who is", vec!["pos text"], vec!["neg text"])
    );
}

#[test]
fn blank_lines_part_paragraphs() {
    let dir = tempfile::tempdir().unwrap();
    let read = |path: &Path| -> Vec<(String, String)> {
        let options = ReadOptions::format(Format::Paragraphs);
        let passages = read_corpus(path, &options, &BadRows::default()).unwrap();
        passages.map(|p| p.unwrap()).map(|p| (p.id, p.text)).collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let one = write(dir.path(), "book/1.txt", "\n  one\nand a half\r\n\n \t\n\ntwo");
    assert_eq!(read(&one), [pair("1", "one and a half"), pair("2", "two")]);
    // A border of files is one of passages, also where the line numbers go on.
    write(dir.path(), "book/2.txt", "\n\n\n\n\n\nthree\n");
    write(dir.path(), "book/3.txt", "\n\n");
    let all = read(&dir.path().join("book"));
    assert_eq!(all, [pair("1", "one and a half"), pair("2", "two"), pair("3", "three")]);
}

#[test]
fn plain_corpora() {
    let dir = tempfile::tempdir().unwrap();
    let ids = |name: &str, text: &str| -> Vec<(String, String)> {
        let path = write(dir.path(), name, text);
        let passages = read_corpus(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
        passages.map(|p| p.unwrap()).map(|p| (p.id.clone(), p.full_text())).collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(ids("a.txt", "one\n\ntwo\n"), [pair("1", "one"), pair("2", "two")]);
    assert_eq!(ids("a.tsv", "id\ttext\ttitle\n7\tbody\tHead\n"), [pair("7", "Head body")]);
    assert_eq!(
        ids("a.jsonl", "{\"text\": \"same\"}\n{\"text\": \"same\"}\n"),
        [pair("1", "same"), pair("2", "same")]
    );
    let path =
        write(dir.path(), "b.jsonl", "{\"_id\": 1, \"text\": \"a\"}\n{\"_id\": \"1\", \"text\": \"b\"}\n");
    let stream = read_corpus(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
    let message = stream.collect::<Result<Vec<_>, _>>().unwrap_err().to_string();
    assert!(message.contains("b.jsonl:2: duplicate id"), "{message}");
}

fn sample() -> Vec<RetrievalExample> {
    let passage = |id: &str, title: Option<&str>, text: &str| Passage {
        id: id.into(),
        title: title.map(str::to_owned),
        text: text.into(),
    };
    vec![
        RetrievalExample {
            query: Query { id: "q1".into(), text: "wörds \"and\" 漢字".into() },
            positives: vec![passage("p1", Some("T"), "line\nbreak"), passage("p2", None, "tab\there")],
            negatives: vec![passage("n1", None, "no")],
            scores: Some(vec![2.5, 1.0, -0.25]),
            answers: vec!["a".into()],
        },
        RetrievalExample {
            query: Query { id: "q2".into(), text: "plain".into() },
            positives: vec![passage("p2", None, "tab\there")],
            ..RetrievalExample::default()
        },
    ]
}

#[test]
fn what_is_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for (name, format) in [
        ("a.jsonl", Format::Jsonl),
        ("a.jsonl.gz", Format::Tevatron),
        ("a.jsonl.zst", Format::Jsonl),
        ("a.parquet", Format::Parquet),
    ] {
        let path = dir.path().join(name);
        let counts = write_examples(&path, format, sample().into_iter().map(Ok)).unwrap();
        assert_eq!((counts.examples, counts.positives, counts.negatives), (2, 3, 1));
        assert_eq!(read(&path, &ReadOptions::format(format)), sample(), "{name}");
    }
    for (name, format) in [("f.jsonl", Format::FlagEmbedding), ("d.json.gz", Format::Dpr)] {
        let path = dir.path().join(name);
        write_examples(&path, format, sample().into_iter().map(Ok)).unwrap();
        let again = read(&path, &ReadOptions::default());
        assert_eq!(again.len(), 2, "{name}");
        assert_eq!(again[0].positives[0].full_text(), "T line\nbreak");
        assert_eq!(again[0].scores.is_some(), format == Format::FlagEmbedding);
    }
    let empty = dir.path().join("e.json");
    write_examples(&empty, Format::Dpr, []).unwrap();
    assert!(read(&empty, &ReadOptions::default()).is_empty());
    let refused = write_examples(dir.path().join("s.json"), Format::Squad, []).unwrap_err().to_string();
    assert!(refused.contains("not written as squad"), "{refused}");
}

#[test]
fn a_failed_write_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = write(dir.path(), "in.jsonl", "{\"query\": \"q\", \"pos\": \"p\"}\nbroken\n");
    for (name, format) in
        [("out.jsonl", Format::Jsonl), ("out.parquet", Format::Parquet), ("out", Format::Beir)]
    {
        let to = dir.path().join("target").join(name);
        convert(&source, &ReadOptions::default(), &to, format, &BadRows::default()).unwrap_err();
        let mut stack = vec![dir.path().join("target")];
        while let Some(folder) = stack.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                assert!(path.is_dir(), "{} is left", path.display());
                stack.push(path);
            }
        }
    }
}

#[test]
fn beir_writer_keeps_ids_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = BeirWriter::create(dir.path(), "train").unwrap();
    for example in &sample() {
        writer.push(example).unwrap();
    }
    let mut other = sample().remove(1);
    other.positives[0].text = "another text under an old id".into();
    writer.push(&other).unwrap();
    let counts = writer.finish().unwrap();
    assert_eq!(
        (counts.queries, counts.passages, counts.ids_changed, counts.negatives_unlinked),
        (2, 4, 1, 1)
    );
    let examples = read(dir.path(), &ReadOptions::default());
    assert_eq!(examples.len(), 2);
    assert_eq!(examples[1].positives.len(), 2);
    assert_eq!(examples[0].positives[0], sample()[0].positives[0]);
}

#[test]
fn corpora_and_judgements() {
    let dir = tempfile::tempdir().unwrap();
    let passages = || sample().remove(0).positives;
    for name in ["c.jsonl", "c.jsonl.zst", "c.parquet"] {
        let path = dir.path().join(name);
        assert_eq!(write_corpus(&path, passages().into_iter().map(Ok)).unwrap(), 2);
        let again = read_corpus(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
        assert_eq!(again.collect::<Result<Vec<_>, _>>().unwrap(), passages(), "{name}");
    }
    let qrel = ragduet_data::Qrel { query: "q".into(), passage: "d".into(), grade: 2 };
    let path = dir.path().join("qrels.txt");
    write_qrels(&path, QrelsLayout::Trec, [Ok(qrel)]).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "q 0 d 2\n");
}

#[test]
fn a_parquet_file_without_the_columns_names_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.parquet");
    write_corpus(&path, sample().remove(0).positives.into_iter().map(Ok)).unwrap();
    let message = error(&path, &ReadOptions::default());
    assert!(
        message.contains("c.parquet:1: missing column") && message.contains("found _id, title, text"),
        "{message}"
    );
    let broken = write(dir.path(), "x.parquet", "not parquet");
    assert!(error(&broken, &ReadOptions::default()).contains("cannot be read as Parquet"));
}
