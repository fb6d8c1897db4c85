//! Names of columns: mapped in every reader, and what is not read is named.

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use ragduet_data::{
    BadRows, Columns, Kind, Label, Prompt, ReadOptions, TrainingSet, read_choices, read_corpus,
    read_examples, read_judged, read_labelled, read_preferences, read_questions, read_records,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

fn map(pairs: &[&str]) -> BadRows {
    let pairs: Vec<String> = pairs.iter().map(|s| s.to_string()).collect();
    BadRows::default().with_columns(Columns::parse(&pairs).unwrap())
}

/// A table as JSON Lines, a JSON array, CSV, TSV and Parquet.
fn everywhere(dir: &Path, names: &[&str], rows: &[&[&str]]) -> Vec<PathBuf> {
    let object = |row: &&[&str]| {
        let cells = names.iter().zip(*row).map(|(n, v)| (n.to_string(), serde_json::Value::from(*v)));
        serde_json::Value::Object(cells.collect()).to_string()
    };
    let objects: Vec<String> = rows.iter().map(object).collect();
    let table = |delimiter: &str| {
        let quoted = |cells: &[&str]| {
            cells
                .iter()
                .map(|c| format!("\"{}\"", c.replace('"', "\"\"")))
                .collect::<Vec<_>>()
                .join(delimiter)
        };
        let lines: Vec<String> = [names].iter().chain(rows).map(|row| quoted(row)).collect();
        lines.join("\n") + "\n"
    };
    let mut files = Vec::new();
    for (name, text) in [
        ("r.jsonl", objects.join("\n")),
        ("r.json", format!("[{}]", objects.join(",\n"))),
        ("r.csv", table(",")),
        ("r.tsv", table("\t")),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
        files.push(dir.join(name));
    }
    let columns = names.iter().enumerate().map(|(i, name)| {
        let cells: Vec<&str> = rows.iter().map(|row| row[i]).collect();
        (*name, Arc::new(StringArray::from(cells)) as ArrayRef)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = dir.join("r.parquet");
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    files.push(path);
    files
}

#[test]
fn every_reader_takes_mapped_columns_from_every_kind_of_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    // The usual names are there as well, and hold something else.
    let names = ["Frage", "Antwort", "Stelle", "Nr", "query", "answer", "text", "context"];
    let rows: [&[&str]; 2] =
        [&["q1", "a1", "p1", "n1", "x", "x", "x", "x"], &["q2", "a2", "p2", "n2", "y", "y", "y", "y"]];
    for file in everywhere(dir.path(), &names, &rows) {
        let at = file.display();
        let bad = map(&["query=Frage", "positives=Stelle", "answers=Antwort", "query_id=Nr"]);
        let read: Vec<_> = read_examples(&file, &options, &bad).unwrap().collect::<Result<_, _>>().unwrap();
        let e = &read[1];
        let got = (e.query.id.as_str(), e.query.text.as_str(), e.positives[0].text.as_str(), &*e.answers);
        assert_eq!((read.len(), got), (2, ("n2", "q2", "p2", &["a2".to_string()][..])), "{at}");
        assert!(bad.unmet_columns().is_empty());

        let bad = map(&["id=Nr", "text=Stelle", "title=Frage"]);
        let p = read_corpus(&file, &options, &bad).unwrap().next().unwrap().unwrap();
        assert_eq!((p.id.as_str(), p.title.as_deref(), p.text.as_str()), ("n1", Some("q1"), "p1"), "{at}");

        let bad = map(&["question=Frage", "contexts=Stelle", "answers=Antwort", "id=Nr"]);
        let r = read_records(&file, None, &bad).unwrap().next().unwrap().unwrap();
        let got = (r.id.as_str(), r.question.as_str(), r.contexts[0].passage.text.as_str(), &*r.answers);
        assert_eq!(got, ("n1", "q1", "p1", &["a1".to_string()][..]), "{at}");
        if file.extension().is_some_and(|e| e == "jsonl") {
            let (records, _) = read_questions(&file, "train", None, &bad).unwrap();
            assert_eq!((records[1].question.as_str(), &*records[1].answers), ("q2", &["a2".to_string()][..]));
        }

        let bad = map(&["prompt=Frage", "chosen=Antwort", "rejected=Stelle"]);
        let r = read_preferences(&file, &bad).unwrap().next().unwrap().unwrap();
        let got = (r.prompt, r.chosen.content(), r.rejected.content());
        assert_eq!(got, (Prompt::Text("q1".into()), "a1", "p1"), "{at}");

        let bad = map(&["text=Frage", "text_pair=Stelle", "label=Antwort"]);
        let r = read_labelled(&file, true, &bad).unwrap().next().unwrap().unwrap();
        let label = Some(Label::Name("a1".into()));
        assert_eq!((r.text.as_str(), r.pair.as_deref(), r.label), ("q1", Some("p1"), label), "{at}");
    }
    let names = ["Frage", "Wahl", "Richtig", "gut"];
    let rows: [&[&str]; 1] = [&["q", "[\"a\", \"b\"]", "b", "True"]];
    for file in everywhere(dir.path(), &names, &rows) {
        let bad = map(&["prompt=Frage", "completion=Richtig", "label=gut"]);
        let r = read_judged(&file, &bad).unwrap().next().unwrap().unwrap();
        assert_eq!((r.completion.content(), r.good), ("b", true), "{}", file.display());
        // Lists are lists where a file has them.
        if ["csv", "tsv"].iter().any(|e| file.extension().is_some_and(|x| x == *e)) {
            let bad = map(&["prompt=Frage", "choices=Wahl", "answer=Richtig"]);
            let r = read_choices(&file, &bad).unwrap().next().unwrap().unwrap();
            assert_eq!((r.choices.len(), r.answer, r.record.question.as_str()), (2, 1, "q"));
        }
    }
}

#[test]
fn a_mapped_column_that_no_row_has_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let rows: [&[&str]; 1] = [&["q", "p"]];
    for file in everywhere(dir.path(), &["query", "positive"], &rows) {
        let bad = map(&["positives=nope"]);
        let read = read_examples(&file, &ReadOptions::default(), &bad);
        let e = match read {
            Err(e) => e,
            Ok(rows) => rows.collect::<Result<Vec<_>, _>>().unwrap_err(),
        };
        let e = e.to_string();
        assert!(e.contains("`nope`") && e.contains("positives"), "{}: {e}", file.display());
        assert!(e.contains("the columns are query, positive"), "{}: {e}", file.display());
    }
    let file = dir.path().join("r.jsonl");
    // A row that lacks what it needs says what was mapped.
    std::fs::write(&file, "{\"frage\": \"q\", \"positive\": \"p\"}\n{\"positive\": \"p\"}\n").unwrap();
    let bad = map(&["query=frage"]);
    let read: Result<Vec<_>, _> = read_examples(&file, &ReadOptions::default(), &bad).unwrap().collect();
    let e = read.unwrap_err().to_string();
    assert!(
        e.contains("r.jsonl:2") && e.contains("`frage`, which query is mapped to, is not in this row"),
        "{e}"
    );
    // A second pass over the same file knows the mapping.
    std::fs::write(&file, "{\"frage\": \"q\", \"positive\": \"p\"}\n").unwrap();
    let set = TrainingSet::read(
        &file,
        &ReadOptions::default(),
        ragduet_data::PassagePool::WholeCorpus,
        &map(&["query=frage"]),
    );
    assert_eq!(set.unwrap().queries()[0].text, "q");
    // Roles of other data are errors, roles of data beside are not.
    let e = read_labelled(&file, true, &map(&["negatives=x"])).err().unwrap().to_string();
    assert!(
        e.contains("labelled texts have no `negatives`; their roles are text, text_pair, label, id"),
        "{e}"
    );
    let bad = map(&["query=frage", "title=name"]);
    assert_eq!(read_examples(&file, &ReadOptions::default(), &bad).unwrap().count(), 1);
    assert_eq!(bad.unmet_columns(), ["title=name"]);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged while something runs.
fn logged(run: impl FnOnce()) -> String {
    let log = Log::default();
    let to = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_writer(move || to.clone()).with_ansi(false).without_time().finish();
    tracing::subscriber::with_default(subscriber, run);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn what_is_not_read_is_named_once_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.jsonl");
    let row = |i: u32| {
        format!(
            "{{\"question\": \"q{i}\", \"answer\": \"a{i}\", \"context\": \"c{i}\", \"negatvies\": [\"n\"], \"url\": \"u\", \"page\": {i}, \"empty\": \"\"}}\n"
        )
    };
    std::fs::write(&file, (0..50).map(row).collect::<String>()).unwrap();
    let read = |bad: &BadRows| {
        let rows: Vec<_> =
            read_examples(&file, &ReadOptions::default(), bad).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), 50);
    };
    let log = logged(|| read(&BadRows::default()));
    assert_eq!(log.matches("WARN").count(), 2, "{log}");
    assert!(log.contains("`context` is not read; map it with --map positives=context"), "{log}");
    assert!(
        log.contains(
            "`negatvies` is not read; if it is the negatives, map it with --map negatives=negatvies"
        ),
        "{log}"
    );
    assert!(log.contains("2 columns are not read: url, page"), "{log}");
    // Mapped, they are read, and the answer is an answer.
    let log = logged(|| read(&map(&["positives=context", "negatives=negatvies"])));
    assert!(!log.contains("WARN") && log.contains("answer    a0"), "{log}");
    assert_eq!(logged(|| read(&map(&["positives=context"]).silenced())), "");
    // A reader that reads all of them says nothing of them.
    let log = logged(|| {
        let rows: Vec<_> = read_records(&file, None, &BadRows::default()).unwrap().collect();
        assert_eq!(rows.len(), 50);
    });
    assert!(!log.contains("`context`") && !log.contains("`negatvies`"), "{log}");
    assert!(log.contains("context   c0") && log.contains("question  q0"), "{log}");
}

#[test]
fn mapped_columns_are_not_named_as_unread() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.jsonl");
    std::fs::write(&file, "{\"d\": {\"q\": \"q\", \"x\": 1}, \"gold_answer\": \"a\", \"Context\": \"c\"}\n")
        .unwrap();
    let read = |bad: &BadRows| read_records(&file, None, bad).unwrap().collect::<Result<Vec<_>, _>>();
    let all = ["question=d.q", "answers=gold_answer", "contexts=Context"];
    let log = logged(|| assert_eq!(read(&map(&all)).unwrap()[0].answers, ["a"]));
    assert!(!log.contains("not read"), "{log}");
    // A row that lacks the question says what is not mapped only.
    let e = read(&map(&["question=d.p", "answers=gold_answer"])).unwrap_err().to_string();
    assert!(
        e.contains("`d.p`, which question is mapped to") && !e.contains("`gold_answer` is not read"),
        "{e}"
    );
    assert!(e.contains("--map contexts=Context"), "{e}");
}

#[test]
fn a_file_of_which_no_row_can_be_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    for (name, bytes, says) in [
        ("a.csv", &b"query,positive\nsch\xf6n,p\n"[..], "UTF-8"),
        ("b.jsonl", b"{\"query\"\n", "broken JSON"),
        ("c.jsonl", b"", "no row"),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let e = Kind::detect(&file, &options, &BadRows::default()).unwrap_err().to_string();
        assert!(e.contains(says), "{name}: {e}");
    }
}

#[test]
fn what_a_pipe_holds_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    // Nobody writes to it: opening it would wait for ever.
    for name in ["rows", "rows.jsonl", "rows.csv", "rows.tsv"] {
        let pipe = dir.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let e = Kind::detect(&pipe, &options, &BadRows::default()).unwrap_err().to_string();
        assert!(e.contains(name) && e.contains("can be read once") && e.contains("--as"), "{e}");
    }
}

#[test]
fn an_empty_or_rare_mapped_column_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let rows: [&[&str]; 1] = [&["q", "p", ""]];
    let bad = || map(&["negatives=n"]);
    for file in everywhere(dir.path(), &["query", "positive", "n"], &rows)
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "csv" || e == "tsv"))
    {
        assert_eq!(read_examples(file, &ReadOptions::default(), &bad()).unwrap().count(), 1, "{file:?}");
        assert!(read_examples(file, &ReadOptions::default(), &bad()).unwrap().all(|row| row.is_ok()));
    }
    let file = dir.path().join("rare.jsonl");
    let row = |i: u32| match i {
        1500 => "{\"query\": \"q\", \"positive\": \"p\", \"n\": \"x\"}\n".to_string(),
        _ => format!("{{\"query\": \"q{i}\", \"positive\": \"p{i}\"}}\n"),
    };
    std::fs::write(&file, (0..2000).map(row).collect::<String>()).unwrap();
    let read: Result<Vec<_>, _> = read_examples(&file, &ReadOptions::default(), &bad()).unwrap().collect();
    assert_eq!(read.unwrap().iter().map(|e| e.negatives.len()).sum::<usize>(), 1);
}

#[test]
fn unread_columns_of_parquet_are_named_though_they_are_not_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let rows: [&[&str]; 1] = [&["q", "a", "c", "u"]];
    for file in everywhere(dir.path(), &["question", "answer", "context", "url"], &rows) {
        let log = logged(|| {
            assert_eq!(
                read_examples(&file, &ReadOptions::default(), &BadRows::default()).unwrap().count(),
                1
            );
        });
        assert!(log.contains("`context` is not read"), "{}: {log}", file.display());
        assert!(log.contains("1 column is not read: url"), "{}: {log}", file.display());
    }
}

#[test]
fn kinds_are_seen_by_columns_mapped_ones_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    for (names, pairs, kind) in [
        (&["Question", "Answer"][..], &[][..], Some(Kind::Records)),
        (&["frage", "stelle"], &["query=frage", "positives=stelle"], Some(Kind::Examples)),
        (&["id", "body"], &[], Some(Kind::Corpus)),
        (&["instruction", "query", "pos", "neg"], &[], Some(Kind::Examples)),
        (&["query", "pos", "neg", "prompt"], &[], Some(Kind::Examples)),
        (&["instruction", "question", "document", "output"], &[], Some(Kind::Records)),
        (&["prompt", "query"], &[], Some(Kind::Records)),
        (&["review", "stars"], &["text=review", "label=stars"], Some(Kind::Texts)),
        (&["review", "stars"], &[], None),
    ] {
        let cells = vec!["x"; names.len()];
        for file in everywhere(dir.path(), names, &[&cells]) {
            if names[0] == "review" && pairs.is_empty() && file.extension().is_some_and(|e| e == "tsv") {
                continue;
            }
            let found = Kind::detect(&file, &options, &map(pairs));
            match kind {
                Some(kind) => assert_eq!(found.unwrap(), kind, "{}", file.display()),
                None => {
                    assert!(found.unwrap_err().to_string().contains("review, stars"), "{}", file.display())
                }
            }
        }
    }
}

#[test]
fn a_name_of_several_readers_goes_to_the_file_whose_own_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
    };
    write("beir/corpus.jsonl", "{\"_id\": \"d1\", \"text\": \"x\", \"body_text\": \"p\"}\n");
    write("beir/queries.jsonl", "{\"_id\": \"q1\", \"text\": \"y\", \"frage\": \"q\"}\n");
    write("beir/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n");
    for pairs in [["query=frage", "text=body_text"], ["text=body_text", "query=frage"]] {
        let bad = map(&pairs);
        let read = read_examples(dir.path().join("beir"), &ReadOptions::default(), &bad).unwrap();
        let read: Vec<_> = read.collect::<Result<_, _>>().unwrap();
        assert_eq!(
            (read[0].query.text.as_str(), read[0].positives[0].text.as_str()),
            ("q", "p"),
            "{pairs:?}"
        );
        assert!(bad.unmet_columns().is_empty());
    }
    // Examples have no `nr`; the corpus has.
    write("examples.jsonl", "{\"query\": \"q\", \"positive\": \"p\"}\n");
    write("examples.csv", "query,positive\nq,p\n");
    write("corpus.csv", "nr,text\nd7,p\n");
    for name in ["examples.jsonl", "examples.csv"] {
        let bad = map(&["id=nr"]);
        let read = read_examples(dir.path().join(name), &ReadOptions::default(), &bad).unwrap();
        assert_eq!(read.map(Result::unwrap).count(), 1, "{name}");
        // Nothing that was read had it.
        assert_eq!(bad.unmet_columns(), ["id=nr"]);
        let corpus = read_corpus(dir.path().join("corpus.csv"), &ReadOptions::default(), &bad).unwrap();
        assert_eq!(corpus.map(|p| p.unwrap().id).collect::<Vec<_>>(), ["d7"]);
        assert!(bad.unmet_columns().is_empty());
    }
}

#[test]
fn of_several_files_one_may_lack_a_mapped_column() {
    let dir = tempfile::tempdir().unwrap();
    for (first, second) in [
        ("query,positive\nq,p\n", "frage,positive\nr,p\n"),
        ("frage,positive\nr,p\n", "query,positive\nq,p\n"),
    ] {
        std::fs::write(dir.path().join("a.csv"), first).unwrap();
        std::fs::write(dir.path().join("b.csv"), second).unwrap();
        let read = |pairs: &[&str]| -> Result<Vec<_>, _> {
            read_examples(dir.path(), &ReadOptions::default(), &map(pairs)).unwrap().collect()
        };
        let log = logged(|| assert_eq!(read(&["query=frage"]).unwrap().len(), 2));
        assert!(log.contains("1 of 2 rows have no `frage`"), "{log}");
        let e = read(&["query=nope"]).unwrap_err().to_string();
        assert!(
            e.contains("no row has a column `nope`") || e.contains("is mapped to, is not in this row"),
            "{e}"
        );
    }
}
