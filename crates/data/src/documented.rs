//! docs/data.md is checked: the names in its tables are those that the readers know, and its example rows are read.

use crate::*;
use std::collections::BTreeMap;
use std::path::Path;

fn page() -> String {
    fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/data.md")).unwrap()
}

/// The table behind `<!-- check: name -->`: by first cell without code marks, the names in code marks of another cell.
fn table(page: &str, name: &str, cell: usize) -> BTreeMap<String, Vec<String>> {
    let mark = format!("<!-- check: {name} -->");
    let rows = page.split_once(&mark).unwrap_or_else(|| panic!("docs/data.md has no {mark}")).1;
    let rows = rows.lines().skip(1).take_while(|l| l.starts_with('|')).skip(2);
    let out: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let names = cells[cell].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (cells[0].replace('`', ""), names)
        })
        .collect();
    assert!(!out.is_empty(), "{mark} is followed by no table");
    out
}

/// What the table says of a role is what the code knows, in the same order.
fn same(table: &BTreeMap<String, Vec<String>>, role: &str, known: &[&str]) {
    let (row, names) = table
        .iter()
        .find(|(row, _)| row.starts_with(role))
        .unwrap_or_else(|| panic!("docs/data.md: no row {role}"));
    assert_eq!(names, known, "docs/data.md: row {row}");
}

#[test]
fn columns_are_those_that_the_readers_know() {
    let page = page();
    let t = table(&page, "retrieval", 1);
    same(&t, "query", &columns::QUERY);
    same(&t, "query id", &columns::QUERY_ID);
    same(&t, "positives", &[&columns::POSITIVE[..], &["answer"]].concat());
    let numbered = ["negative_1", "negative_2", "neg_1", "neg_2"];
    same(&t, "negatives", &[&columns::NEGATIVE[..], &numbered].concat());
    same(&t, "teacher scores", &[&["pos_scores", "neg_scores"][..], &columns::SCORES].concat());
    let t = table(&page, "passages", 1);
    same(&t, "id", &columns::PASSAGE_ID);
    same(&t, "text", &columns::PASSAGE_TEXT);
    let t = table(&page, "records", 1);
    same(&t, "question", &fields::QUESTION);
    same(&t, "answers", &fields::ANSWERS);
    same(&t, "passages", &[&fields::CONTEXTS[..], &["score"]].concat());
    let t = table(&page, "labelled", 1);
    same(&t, "first", &labelled::FIRST);
    same(&t, "second", &labelled::SECOND);
    same(&t, "label", &labelled::LABEL);
    same(&t, "id", &labelled::ID);
    same(&table(&page, "choices", 1), "correct", &choices::ANSWER);
}

/// docs/data.md shows the table of shapes, and each of its rows is read as what it is. `RAGDUET_WRITE=1` writes the page.
#[test]
fn shapes_are_read_and_shown() {
    let (begin, end) = ("<!-- begin: shapes -->\n", "<!-- end: shapes -->");
    let page = page();
    let (before, rest) = page.split_once(begin).unwrap_or_else(|| panic!("docs/data.md has no {begin}"));
    let (shown, after) = rest.split_once(end).unwrap_or_else(|| panic!("docs/data.md has no {end}"));
    let table = format!("{}\n", samples::markdown());
    if std::env::var_os("RAGDUET_WRITE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/data.md");
        fs_err::write(path, format!("{before}{begin}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(shown, table, "docs/data.md: RAGDUET_WRITE=1 writes its table of shapes again");
    }
    let beside = tempfile::tempdir().unwrap();
    let (corpus, queries) = (beside.path().join("corpus.jsonl"), beside.path().join("queries.jsonl"));
    fs_err::write(&corpus, "{\"id\": \"d1\", \"text\": \"p\"}\n{\"id\": \"d2\", \"text\": \"n\"}\n").unwrap();
    fs_err::write(&queries, "{\"id\": \"q1\", \"text\": \"q\"}\n").unwrap();
    for Sample { kind, shape, with, row } in SAMPLES {
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        fs_err::write(file.path(), format!("{row}\n")).unwrap();
        let said = |option: &str| {
            let mut words = with.split(' ').skip_while(|word| *word != option);
            words.next().map(|_| words.next().unwrap_or_default())
        };
        let least = said("--min-score").map(|n| n.parse().unwrap());
        let options = ReadOptions {
            format: said("--format").map(|f| f.parse().unwrap()),
            corpus: said("--corpus").map(|_| corpus.clone()),
            queries: said("--queries").map(|_| queries.clone()),
            labels: PairLabels::of(least, said("--nli").is_some()).unwrap(),
            ..ReadOptions::default()
        };
        let read: Vec<_> = kind.read(file.path(), &options, &BadRows::default()).unwrap().collect();
        let [Ok(record)] = &read[..] else { panic!("{shape}: {row}") };
        assert!(record.roles().iter().all(|(_, value)| !value.is_empty()), "{shape}");
        // Questions with answers are taken for records first: most of those that have them train generators.
        let seen = if shape.starts_with("question and answer") { Kind::Records } else { *kind };
        let detected = Kind::detect(file.path(), &options, &BadRows::default()).unwrap();
        match said("--as") {
            None => assert_eq!(detected, seen, "{shape}"),
            Some(name) => {
                assert_eq!(name.parse::<Kind>().unwrap(), *kind, "{shape}");
                assert_ne!(detected, *kind, "{shape}: --as is not needed");
            }
        }
    }
    assert!(Kind::ALL.iter().all(|kind| SAMPLES.iter().any(|sample| sample.kind == *kind)));
}

#[test]
fn formats_and_problems_are_all_there() {
    let page = page();
    let formats = table(&page, "formats", 0);
    let mut known = Format::NAMES.map(str::to_owned).to_vec();
    known.sort();
    assert_eq!(formats.into_keys().collect::<Vec<_>>(), known);
    let records = table(&page, "record_formats", 0);
    for format in [
        RecordFormat::Rag,
        RecordFormat::Chat,
        RecordFormat::PromptCompletion,
        RecordFormat::Alpaca,
        RecordFormat::Text,
    ] {
        let name = serde_json::to_value(format).unwrap();
        assert!(records.contains_key(name.as_str().unwrap()), "{name}");
    }
    assert_eq!(records.len(), 5);
    for name in table(&page, "problems", 0).keys() {
        let known: std::result::Result<Problem, _> = serde_json::from_value(name.as_str().into());
        assert!(known.is_ok(), "docs/data.md: {name} is no problem that is reported");
    }
}

/// The example rows of a section, each in a file of its own.
fn examples(page: &str, section: &str) -> Vec<(String, tempfile::NamedTempFile)> {
    let text = page.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no {section}")).1;
    let text = text.split("\n## ").next().unwrap();
    let rows: Vec<_> = text
        .lines()
        .filter_map(|l| l.strip_prefix("    {"))
        .map(|l| {
            let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
            fs_err::write(file.path(), format!("{{{l}\n")).unwrap();
            (l.to_owned(), file)
        })
        .collect();
    assert!(rows.len() > 1, "{section} shows no rows");
    rows
}

#[test]
fn example_rows_are_read() {
    let page = page();
    let bad = BadRows::default();
    let options = ReadOptions::default();
    for (row, file) in examples(&page, "Retrieval examples") {
        let read: Result<Vec<_>> = read_examples(file.path(), &options, &bad).unwrap().collect();
        assert_eq!(read.unwrap_or_else(|e| panic!("{row}: {e}")).len(), 1);
    }
    for (row, file) in examples(&page, "Generator records") {
        let read: Result<Vec<_>> = read_records(file.path(), None, &bad).unwrap().collect();
        let record = read.unwrap_or_else(|e| panic!("{row}: {e}")).remove(0);
        assert!(!record.answers.is_empty(), "{row}");
    }
    for (row, file) in examples(&page, "Preferences") {
        let read: Result<Vec<()>> = if row.contains("\"label\"") {
            read_judged(file.path(), &bad).unwrap().map(|r| r.map(drop)).collect()
        } else {
            read_preferences(file.path(), &bad).unwrap().map(|r| r.map(drop)).collect()
        };
        assert_eq!(read.unwrap_or_else(|e| panic!("{row}: {e}")).len(), 1);
    }
    for (row, file) in examples(&page, "Multiple choice") {
        let read: Result<Vec<_>> = read_choices(file.path(), &bad).unwrap().collect();
        assert_eq!(read.unwrap_or_else(|e| panic!("{row}: {e}")).len(), 1);
    }
    for (row, file) in examples(&page, "Labelled texts") {
        let read: Result<Vec<_>> = read_labelled(file.path(), true, &bad).unwrap().collect();
        assert_eq!(read.unwrap_or_else(|e| panic!("{row}: {e}")).len(), 1);
    }
}
