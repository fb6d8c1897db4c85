//! `index.json` holds the settings of an index as a config writes them, and each kind reads its own.

use ragduet_index::{
    CompressedIndex, CompressionConfig, ExactConfig, HnswConfig, HnswIndex, IdMap, IndexConfig, OpenOptions,
    Precision, Similarity, Vectors, build, open,
};

fn manifest(dir: &std::path::Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join("index.json")).unwrap()).unwrap()
}

/// The manifest of an index without its own checksum, as earlier versions wrote it: what else is checked shows.
pub fn without_sum(dir: &std::path::Path) -> String {
    let mut value = manifest(dir);
    assert!(value.as_object_mut().unwrap().shift_remove("crc32").is_some());
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn a_manifest_that_is_not_as_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = build(&IndexConfig::default(), Similarity::Dot, 2).unwrap();
    index.add(Vectors::new(&[1.0, 0.0, 0.5, 0.5], 2).unwrap()).unwrap();
    let ids = IdMap::from_ids(["a", "b"]).unwrap();
    index.save_with_ids(&path, Some(&ids)).unwrap();
    let good = manifest(&path);
    open(&path).unwrap();
    let write =
        |value: &serde_json::Value| std::fs::write(path.join("index.json"), value.to_string()).unwrap();
    // Without its ids, passages would have numbers for names.
    let mut without = good.clone();
    without["files"].as_object_mut().unwrap().shift_remove("ids.txt").unwrap();
    let mut other = good.clone();
    other["similarity"] = "cosine".into();
    for bad in [without, other] {
        write(&bad);
        let e = open(&path).err().unwrap().to_string();
        assert!(e.contains("index.json") && e.contains("checksum"), "{e}");
    }
    // Neither order of white space nor the lack of a sum is a fault.
    write(&good);
    open(&path).unwrap();
    std::fs::write(path.join("index.json"), without_sum(&path)).unwrap();
    open(&path).unwrap();
}

#[test]
fn settings_are_those_of_the_config() {
    let rows: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).sin()).collect();
    for config in [
        IndexConfig::Exact(ExactConfig { precision: Precision::F16 }),
        IndexConfig::Hnsw(HnswConfig { m: 5, ef_search: 77, ..HnswConfig::default() }),
        IndexConfig::Compressed(CompressionConfig { dimensions: Some(4), ..CompressionConfig::default() }),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let mut index = build(&config, Similarity::Dot, 6).unwrap();
        index.add(Vectors::new(&rows, 6).unwrap()).unwrap();
        index.save(&path).unwrap();
        let written: IndexConfig = serde_json::from_value(manifest(&path)["requested"].clone()).unwrap();
        assert_eq!(written, config);
        let again = open(&path).unwrap();
        assert_eq!((again.kind(), again.len()), (index.kind(), 10));
    }
}

#[test]
fn settings_of_another_kind_or_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&IndexConfig::default(), Similarity::Dot, 6).unwrap().save(&path).unwrap();
    let error = HnswIndex::open(&path).unwrap_err().to_string();
    assert!(error.contains("open it as an exact index"), "{error}");

    let config = IndexConfig::Compressed(CompressionConfig::default());
    build(&config, Similarity::Dot, 6).unwrap().save(&path).unwrap();
    let file = path.join("index.json");
    let text = without_sum(&path);
    for (from, to, part) in [
        ("\"form\"", "\"forms\"", "its compressed settings: unknown field `forms`"),
        ("\"compressed\": {", "\"exact\": {", "settings are of another kind"),
    ] {
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let error = CompressedIndex::open(&path, &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains("index.json") && error.contains(part), "{error}");
    }
}
