//! Arrow as other libraries write it: `tests/files/make_arrow.py` makes the files with datasets 5.2 and pandas 3.1.

use ragduet_data::{
    BadRowPolicy, BadRows, Format, Kind, ReadOptions, RetrievalExample, corpus_stats, read_corpus,
    read_examples, read_preferences, read_rag,
};
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn read(path: impl AsRef<Path>, split: Option<&str>) -> Result<Vec<RetrievalExample>, String> {
    let options = ReadOptions { split: split.map(str::to_owned), ..ReadOptions::default() };
    let rows = read_examples(path, &options, &BadRows::default()).map_err(|e| e.to_string())?;
    rows.collect::<Result<_, _>>().map_err(|e| e.to_string())
}

fn queries(rows: Vec<RetrievalExample>) -> Vec<String> {
    rows.into_iter().map(|row| row.query.text).collect()
}

const BOTH: [&str; 2] = ["where is the mill", "who keeps the ferry"];

#[test]
fn saved_data_sets_and_feather_files() {
    let rows = read(file("saved"), None).unwrap();
    assert_eq!(rows[0].positives[0].text, "The mill stands by the ford.");
    assert_eq!(rows[0].negatives.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(queries(rows), BOTH);
    for name in ["pandas-lz4.feather", "pyarrow-zstd.feather"] {
        assert_eq!(queries(read(file(name), None).unwrap()), BOTH, "{name}");
    }
    assert_eq!(Format::detect(&file("saved")).unwrap(), Format::Arrow);
    // One file of it alone.
    assert_eq!(queries(read(file("saved/data-00001-of-00002.arrow"), None).unwrap()), [BOTH[1]]);
    let e = read(file("version-1.feather"), None).unwrap_err();
    assert!(e.contains("Feather version 1 is not read"), "{e}");
}

#[test]
fn splits_by_name_and_as_folders() {
    let saved = file("saved-splits");
    for (split, want) in [(None, 0), (Some("train"), 0), (Some("validation"), 1), (Some("dev"), 1)] {
        assert_eq!(queries(read(&saved, split).unwrap()), [BOTH[want]], "{split:?}");
    }
    assert_eq!(queries(read(saved.join("validation"), None).unwrap()), [BOTH[1]]);
    let e = read(&saved, Some("test")).unwrap_err();
    assert!(e.contains("has the splits train, validation"), "{e}");
    // Records have no splits: the folder of one is named.
    let e = read_rag(&saved, &BadRows::default()).err().unwrap().to_string();
    assert!(e.contains("name one as a folder, such as"), "{e}");
}

#[test]
fn damaged_files_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(file("saved/data-00000-of-00002.arrow")).unwrap();
    let path = dir.path().join("x.arrow");
    for (bytes, words) in [
        (&whole[..whole.len() - 8], "cut off"),
        (&whole[..whole.len() / 2], "Arrow"),
        (&whole[..3], "Arrow"),
        (&b""[..], "empty"),
        (&b"this is not arrow at all, but text"[..], "Arrow"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let e = read(&path, None).unwrap_err();
        assert!(e.contains("x.arrow") && e.contains(words), "{words}: {e}");
    }
    // A file that the data set names and that is not there.
    let saved = dir.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    for name in ["state.json", "dataset_info.json", "data-00000-of-00002.arrow"] {
        std::fs::copy(file("saved").join(name), saved.join(name)).unwrap();
    }
    let e = read(&saved, None).unwrap_err();
    assert!(e.contains("data-00001-of-00002.arrow: not found"), "{e}");
}

#[test]
fn patterns_and_lists_are_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    for (i, text) in ["a", "b", "c"].iter().enumerate() {
        let row = format!("{{\"query\": \"{text}\", \"positive\": \"p {text}\", \"text\": \"{text}\"}}\n");
        std::fs::write(dir.path().join(format!("part-{i}.jsonl")), row).unwrap();
    }
    let at = |pattern: &str| dir.path().join(pattern);
    assert_eq!(queries(read(at("part-*.jsonl"), None).unwrap()), ["a", "b", "c"]);
    assert_eq!(queries(read(at("{part-2,part-0}.jsonl"), None).unwrap()), ["c", "a"]);
    let corpus = read_corpus(at("part-[01].jsonl"), &ReadOptions::default(), &BadRows::default()).unwrap();
    // Ids run on over the files.
    assert_eq!(corpus.map(|p| p.unwrap().id).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(queries(read(at("part-1*"), None).unwrap()), ["b"]);
    std::fs::copy(file("saved/data-00000-of-00002.arrow"), at("part-3.arrow")).unwrap();
    let e = read(at("part-*"), None).unwrap_err();
    assert!(e.contains("is jsonl and") && e.contains("is arrow"), "{e}");
    let e = read(at("none-*.jsonl"), None).unwrap_err();
    assert!(e.contains("nothing matches") && e.contains("part-0.jsonl"), "{e}");
}

#[test]
fn kinds_of_saved_data() {
    let options = ReadOptions::default();
    for name in ["saved", "saved-splits", "pandas-lz4.feather"] {
        assert_eq!(
            Kind::detect(&file(name), &options, &BadRows::default()).unwrap(),
            Kind::Examples,
            "{name}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let docs = dir.path().join("docs");
    std::fs::create_dir(&docs).unwrap();
    std::fs::write(docs.join("a.md"), "# T\n\ntext").unwrap();
    assert_eq!(Kind::detect(&docs, &options, &BadRows::default()).unwrap(), Kind::Corpus);
    let bad = BadRows::new(BadRowPolicy::Fail);
    let stats = corpus_stats(read_corpus(&docs, &options, &bad).unwrap()).unwrap();
    assert_eq!((stats.passages, stats.with_title), (1, 1));
    let path = dir.path().join("p.jsonl");
    std::fs::write(&path, "{\"system\":\"s\",\"question\":\"q\",\"chosen\":\"c\",\"rejected\":\"r\"}\n")
        .unwrap();
    assert_eq!(Kind::detect(&path, &options, &BadRows::default()).unwrap(), Kind::Preferences);
    assert_eq!(read_preferences(&path, &bad).unwrap().count(), 1);
}
