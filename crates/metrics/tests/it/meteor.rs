//! METEOR and its WordNet reader against nltk, on the small database of `golden/wordnet`.

use std::collections::BTreeMap;

use ragduet_metrics::meteor::{self, wordpunct};
use ragduet_metrics::wordnet::WordNet;
use ragduet_metrics::{Error, Example};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
    synonyms: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    example: Example,
    tokens: Vec<String>,
    with_synonyms: f64,
    without: f64,
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wordnet");

#[test]
fn equal_to_nltk() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/meteor.json")).unwrap();
    let wordnet = WordNet::open(FOLDER).unwrap();
    for (word, want) in &golden.synonyms {
        let mut got: Vec<&str> = wordnet.synonyms(word).into_iter().collect();
        got.sort_unstable();
        assert_eq!(got, *want, "{word}");
    }
    let examples: Vec<Example> = golden.rows.iter().map(|row| row.example.clone()).collect();
    let with = meteor::corpus(&examples, Some(&wordnet)).unwrap();
    let without = meteor::corpus(&examples, None).unwrap();
    assert!(with.synonyms && !without.synonyms);
    let mut helped = 0;
    for (i, row) in golden.rows.iter().enumerate() {
        assert_eq!(wordpunct(&row.example.prediction), row.tokens);
        assert!((with.each[i] - row.with_synonyms).abs() < 1e-9, "{:?} {}", row.example, with.each[i]);
        assert!((without.each[i] - row.without).abs() < 1e-9, "{:?} {}", row.example, without.each[i]);
        helped += usize::from(row.with_synonyms > row.without);
    }
    assert!(helped > 50, "the synonym stage matters in {helped} rows only");
}

#[test]
fn a_broken_folder_is_an_error_that_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(WordNet::open(folder.path()), Err(Error::Io(_))));
    for entry in fs_err::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        fs_err::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    WordNet::open(folder.path()).unwrap();
    let index = folder.path().join("index.verb");
    fs_err::write(&index, "  1 licence\nrun v 2 0 2 0 00000001\n").unwrap();
    assert!(matches!(WordNet::open(folder.path()), Err(Error::BadLine { line: 2, .. })));
}
