//! CSV and TSV: headers are never examples, names count and positions do not, and what is broken is placed.

use ragduet_data::{
    BadRowPolicy, BadRows, Error, Format, Label, Problem, ReadOptions, RetrievalExample, convert,
    dataset_stats, read_corpus, read_examples, read_labelled, read_records,
};
use std::path::{Path, PathBuf};

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn examples(path: &Path) -> Result<Vec<RetrievalExample>, Error> {
    read_examples(path, &ReadOptions::default(), &BadRows::default())?.collect()
}

fn texts(e: &RetrievalExample) -> (&str, &str, Vec<&str>) {
    (&e.query.text, &e.positives[0].text, e.negatives.iter().map(|p| p.text.as_str()).collect())
}

#[test]
fn quotes_commas_line_breaks_marks_and_line_ends() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\u{feff}positive,\"anchor\",negative,note\r\n\"Tides, he said, are \"\"caused\"\"\r\n\r\nby the moon.\",what causes tides?,\"a, b\",\r\n\r\np2,q2,n2,x\r\n";
    let path = file(dir.path(), "t.csv", text);
    let read = examples(&path).unwrap();
    let want = "Tides, he said, are \"caused\"\n\nby the moon.";
    assert_eq!(texts(&read[0]), ("what causes tides?", want, vec!["a, b"]));
    assert_eq!(texts(&read[1]), ("q2", "p2", vec!["n2"]));
    assert_eq!(read.len(), 2);
    // Compressed, and by all that reads.
    let gz = dir.path().join("t.csv.zst");
    std::fs::write(&gz, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    assert_eq!(examples(&gz).unwrap(), read);
    let stats = dataset_stats(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
    assert!(stats.to_string().contains('2'), "{stats}");
    let to = dir.path().join("t.jsonl");
    let options = ReadOptions::default();
    assert_eq!(convert(&path, &options, &to, Format::Jsonl, &BadRows::default()).unwrap().examples, 2);
    assert_eq!(
        examples(&to).unwrap().iter().map(texts).collect::<Vec<_>>(),
        read.iter().map(texts).collect::<Vec<_>>()
    );
}

#[test]
fn a_header_of_tsv_is_never_an_example() {
    let dir = tempfile::tempdir().unwrap();
    let read = examples(&file(dir.path(), "a.tsv", "positive\tanchor\np1\tq1\n\"p2\"\tq2\n")).unwrap();
    assert_eq!(read.iter().map(texts).collect::<Vec<_>>(), [("q1", "p1", vec![]), ("q2", "p2", vec![])]);
    // MS MARCO's triples have none, and quote nothing.
    let read = examples(&file(dir.path(), "b.tsv", "q1\t\"p1\" said\tn1\nq2\t\"p2\tn2\n")).unwrap();
    assert_eq!(
        read.iter().map(texts).collect::<Vec<_>>(),
        [("q1", "\"p1\" said", vec!["n1"]), ("q2", "\"p2", vec!["n2"])]
    );
    // A quotation mark at the beginning of a text, under a header.
    let text = "query\tpositive\nq1\t\"Well\" he said\nq2\t\"open\nq3\tp3 \"x\"\nq4\t\"a\"\"b\"\nq5\t\"two\nlines\"\n";
    let read = examples(&file(dir.path(), "c.tsv", text)).unwrap();
    let want = ["\"Well\" he said", "\"open", "p3 \"x\"", "a\"b", "two\nlines"];
    assert_eq!(read.iter().map(|e| texts(e).1).collect::<Vec<_>>(), want);

    let corpus = |name: &str, text: &str| -> Vec<(String, Option<String>, String)> {
        let path = file(dir.path(), name, text);
        let read = read_corpus(path, &ReadOptions::default(), &BadRows::default()).unwrap();
        read.map(|p| p.unwrap()).map(|p| (p.id, p.title, p.text)).collect()
    };
    let one = |id: &str, title: &str, text: &str| (id.to_string(), Some(title.to_string()), text.to_string());
    let want = [one("d1", "T", "x y")];
    // Names, not positions.
    assert_eq!(corpus("d.tsv", "id\ttitle\ttext\nd1\tT\tx y\n"), want);
    assert_eq!(corpus("e.tsv", "id\ttext\ttitle\nd1\tx y\tT\n"), want);
    assert_eq!(corpus("f.csv", "text,title,doc type,docid\nx y,T,z,d1\n"), want);
    // Without a header by position, as ever.
    assert_eq!(corpus("g.tsv", "d1\tx y\tT\n"), want);
}

#[test]
fn what_a_first_row_lacks_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let e = examples(&file(dir.path(), "a.csv", "Was ist das?,Ein Beispiel.\n")).unwrap_err().to_string();
    for words in ["a.csv", "found Was ist das?, Ein Beispiel.", "header", "query (anchor, query", "--map"] {
        assert!(e.contains(words), "{words}: {e}");
    }
    let e = examples(&file(dir.path(), "b.csv", "query,positive,query\na,b,c\n")).unwrap_err().to_string();
    assert!(e.contains("names `query` twice"), "{e}");
    let e = examples(&file(dir.path(), "c.csv", "query,text\na,b\n")).unwrap_err().to_string();
    assert!(e.contains("no column for the positive") && e.contains("found query, text"), "{e}");
    let e = examples(&file(dir.path(), "d.tsv", "a\tb\tc\td\n")).unwrap_err().to_string();
    assert!(e.contains("got 4 columns") && e.contains("header"), "{e}");
    assert_eq!(examples(&file(dir.path(), "e.csv", "")).unwrap(), []);
    assert_eq!(examples(&file(dir.path(), "f.csv", "query,positive\n")).unwrap(), []);
}

#[test]
fn names_of_a_header_in_other_spelling_and_other_delimiters() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.csv", "Query ID,Query,Positive\n007,q,p\n"),
        ("b.csv", "query-id;query;positive\n007;q;p\n"),
        ("c.csv", "query_id\tquery\tpositive\n007\tq\tp\n"),
        ("d.csv", ",query_id,query,positive\n0,007,q,p\n"),
        ("e.csv", "query_id,query,positive\n007,q,p,\n"),
    ] {
        let read = examples(&file(dir.path(), name, text)).unwrap();
        assert_eq!((read[0].query.id.as_str(), texts(&read[0])), ("007", ("q", "p", vec![])), "{name}");
    }
}

#[test]
fn cells_are_lists_numbers_and_texts_as_their_roles_want() {
    let dir = tempfile::tempdir().unwrap();
    let text = "query,positive,negatives,label\n12,[1],\"['it''s', \"\"b\"\"]\",\"[2.5, 1, 0]\"\n";
    let path = file(dir.path(), "a.csv", &text.replace("''", "\\'"));
    let read = examples(&path).unwrap();
    assert_eq!((read[0].query.text.as_str(), read[0].negatives[0].text.as_str()), ("12", "it's"));
    assert_eq!(read[0].scores.as_deref(), Some(&[2.5, 1.0, 0.0][..]));
    let path = file(dir.path(), "b.csv", "text,label\n[\"x\"],1\nb,0\n");
    let read: Vec<_> = read_labelled(&path, true, &BadRows::default()).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!((read[0].text.as_str(), &read[0].label), ("[\"x\"]", &Some(Label::Number(1.0))));
    let path = file(
        dir.path(),
        "c.csv",
        "question,contexts,answers\nq,\"[{'id': 'd', 'text': 'x'}, 'y']\",\"[\"\"a\"\", \"\"b\"\"]\"\nr,one text,a\n",
    );
    let read: Vec<_> = read_records(&path, None, &BadRows::default()).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!((read[0].contexts.len(), read[0].contexts[0].passage.id.as_str()), (2, "d"));
    assert_eq!((read[0].answers.len(), read[1].contexts[0].passage.text.as_str()), (2, "one text"));
    // Brackets and braces that are no passages, answers or messages are a text.
    let text = "prompt,completion\n\"{'city': 'Rome'}\",\"[1, 2]\"\n";
    let path = file(dir.path(), "d.csv", text);
    let read: Vec<_> = read_records(&path, None, &BadRows::default()).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!(
        (read[0].question.as_str(), &*read[0].answers),
        ("{'city': 'Rome'}", &["[1, 2]".to_string()][..])
    );
    let text = "question,context,answer\nq,\"[1, 2]\",\"{'a': 1}\"\nr,(see 1),\"['x', 'y']\"\n";
    let path = file(dir.path(), "e.csv", text);
    let read: Vec<_> = read_records(&path, None, &BadRows::default()).unwrap().map(|r| r.unwrap()).collect();
    assert_eq!(
        (read[0].contexts[0].passage.text.as_str(), read[0].answers[0].as_str()),
        ("[1, 2]", "{'a': 1}")
    );
    assert_eq!((read[1].contexts[0].passage.text.as_str(), read[1].answers.len()), ("(see 1)", 2));
}

#[test]
fn broken_rows_are_placed_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let text = "query,positive\nq1,p1\nq2,p2, and more\nq3\n\"q4\n5\",p4\nquery,positive\nq6,\"open\nq7,p7\n";
    let path = file(dir.path(), "a.csv", text);
    let e = examples(&path).unwrap_err().to_string();
    assert!(e.contains("a.csv:3: broken table row: 3 fields where the header names 2"), "{e}");
    let sidecar = dir.path().join("bad.jsonl");
    let bad = BadRows::new(BadRowPolicy::Skip { sidecar: sidecar.clone() });
    let read: Vec<_> =
        read_examples(&path, &ReadOptions::default(), &bad).unwrap().collect::<Result<_, _>>().unwrap();
    let queries: Vec<&str> = read.iter().map(|e| e.query.text.as_str()).collect();
    assert_eq!(queries, ["q1", "q4\n5", "q7"]);
    assert_eq!(bad.report().bad[&Problem::BrokenTable], 4);
    let rows = std::fs::read_to_string(&sidecar).unwrap();
    for words in ["\"line\":3,", "\"line\":4,", "\"line\":7,", "\"line\":8,", "is not closed", "header again"]
    {
        assert!(rows.contains(words), "{words}: {rows}");
    }
}
