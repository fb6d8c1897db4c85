//! The HNSW index against the exact one.

use crate::common::clustered;
use ragduet_index::{
    AuditOptions, Error, ExactConfig, ExactIndex, HnswBuilder, HnswConfig, HnswIndex, IdFilter, IdMap,
    IndexConfig, IndexKind, SearchParams, Similarity, VectorIndex, VectorIndexMut, Vectors, build, open,
    recall_against_exact,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 64;

fn view(data: &[f32]) -> Vectors<'_> {
    Vectors::new(data, DIM).unwrap()
}

fn config(builder: HnswBuilder) -> HnswConfig {
    HnswConfig { builder, ..HnswConfig::default() }
}

fn hnsw(config: &HnswConfig, similarity: Similarity, data: &[f32]) -> HnswIndex {
    let mut index = HnswIndex::new(config, similarity, DIM).unwrap();
    index.add(view(data)).unwrap();
    index
}

fn exact(similarity: Similarity, data: &[f32]) -> ExactIndex {
    let mut index = ExactIndex::new(&ExactConfig::default(), similarity, DIM).unwrap();
    index.add(view(data)).unwrap();
    index
}

fn recall(index: &HnswIndex, exact: &ExactIndex, queries: &[f32], params: &SearchParams<'_>) -> f64 {
    recall_against_exact(index, exact, view(queries), params).unwrap().recall
}

/// Rows of very different lengths.
fn unscaled(n: usize, stream: u64) -> Vec<f32> {
    let mut data = clustered(n, DIM, n / 100, stream);
    for (i, row) in data.chunks_mut(DIM).enumerate() {
        let length = 1.0 + (i % 17) as f32 / 4.0;
        row.iter_mut().for_each(|x| *x *= length);
    }
    data
}

#[test]
fn both_builders_find_the_nearest() {
    let (data, queries) = (clustered(8000, DIM, 80, 1), clustered(300, DIM, 80, 2));
    let exact = exact(Similarity::Cosine, &data);
    for builder in [HnswBuilder::Native, HnswBuilder::HnswRs, HnswBuilder::HnswRsSerial] {
        let index = hnsw(&config(builder), Similarity::Cosine, &data);
        let report = recall_against_exact(&index, &exact, view(&queries), &SearchParams::top(10)).unwrap();
        assert!(report.recall >= 0.98, "{builder:?} {report:?}");
        let audit = index.audit(&AuditOptions::default());
        assert_eq!((audit.unreachable.len(), audit.searched), (0, 8000), "{builder:?}");
        assert!(audit.self_recall() > 0.999, "{builder:?} {audit:?}");
        assert_eq!(index.audit(&AuditOptions { sample: Some(50), ..Default::default() }).searched, 50);
    }
}

#[test]
fn scattered_lengths_are_found_under_the_inner_product() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut normal = |n: usize| -> Vec<f32> {
        (0..n).map(|_| (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0).collect()
    };
    for scatter in [0.0, 0.1, 0.4] {
        let (mut data, queries) = (normal(4000 * DIM), normal(100 * DIM));
        let factors = normal(4000);
        for (row, f) in data.chunks_mut(DIM).zip(&factors) {
            let scale = (1.0 + scatter * f).max(0.05) / row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x *= scale);
        }
        let exact = exact(Similarity::Dot, &data);
        for builder in [HnswBuilder::Native, HnswBuilder::HnswRs] {
            let index = hnsw(&config(builder), Similarity::Dot, &data);
            let found = recall(&index, &exact, &queries, &SearchParams::top(10));
            // Random directions are hard at any length: 0.92 where all are the same.
            assert!(found >= 0.9, "{builder:?} {scatter} {found}");
        }
    }
}

#[test]
fn the_unscaled_inner_product_is_searched_correctly() {
    let (data, queries) = (unscaled(6000, 1), unscaled(200, 2));
    let exact = exact(Similarity::Dot, &data);
    for builder in [HnswBuilder::Native, HnswBuilder::HnswRs] {
        let index = hnsw(&config(builder), Similarity::Dot, &data);
        let found = recall(&index, &exact, &queries, &SearchParams::top(10));
        assert!(found >= 0.95, "{builder:?} {found}");
        let audit = index.audit(&AuditOptions::default());
        assert!(audit.self_recall() > 0.99, "{builder:?} {}", audit.self_recall());
        let mut index = index;
        assert_eq!(index.mend(&audit), audit.missed.len());
        let mended = index.audit(&AuditOptions::default());
        assert!(
            mended.missed.len() * 10 <= audit.missed.len(),
            "{builder:?} {} {}",
            audit.missed.len(),
            mended.missed.len()
        );
    }
}

#[test]
fn rows_can_be_added() {
    let (data, queries) = (unscaled(6000, 1), unscaled(200, 2));
    let exact = exact(Similarity::Dot, &data);
    for builder in [HnswBuilder::Native, HnswBuilder::HnswRs] {
        let mut index = HnswIndex::new(&config(builder), Similarity::Dot, DIM).unwrap();
        // Later rows are longer than the first.
        let told = std::cell::RefCell::new(Vec::new());
        for (block, expected) in view(&data).blocks(2500).zip([0..2500u32, 2500..5000, 5000..6000]) {
            let added = index.add_with_progress(block, &|done, total| told.borrow_mut().push((done, total)));
            assert_eq!(added.unwrap(), expected);
        }
        assert!(told.borrow().iter().all(|(done, total)| done <= total) && !told.borrow().is_empty());
        let found = recall(&index, &exact, &queries, &SearchParams::top(10));
        assert!(found >= 0.95, "{builder:?} {found}");
        let double: Vec<f32> = data[..DIM].iter().map(|x| x * 20.0).collect();
        assert_eq!(index.add(view(&double)).unwrap(), 6000..6001);
        assert_eq!(index.search(view(&data[..DIM]), &SearchParams::top(1)).unwrap()[0][0].id, 6000);
        assert_eq!(index.audit(&AuditOptions::default()).unreachable, [0u32; 0]);
    }
}

#[test]
fn the_native_graph_does_not_depend_on_threads() {
    let data = clustered(3000, DIM, 30, 1);
    let saved = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let index = pool
            .install(|| hnsw(&HnswConfig { seed, ..config(HnswBuilder::Native) }, Similarity::Cosine, &data));
        let dir = tempfile::tempdir().unwrap();
        index.save(&dir.path().join("i")).unwrap();
        fs_err::read(dir.path().join("i/graph.bin")).unwrap()
    };
    assert!(saved(1, 0) == saved(5, 0));
    assert!(saved(2, 0) != saved(2, 1));
}

#[test]
fn filters_hold_whatever_they_let_through() {
    let (data, queries) = (clustered(8000, DIM, 80, 1), clustered(100, DIM, 80, 2));
    let (exact, index) =
        (exact(Similarity::Cosine, &data), hnsw(&config(HnswBuilder::Native), Similarity::Cosine, &data));
    for every in [1u32, 2, 10, 1000, 7999] {
        for filter in [
            IdFilter::allow((0..8000).filter(|id| id % every == 0)),
            IdFilter::deny((0..8000).filter(|id| id % every == 0)),
        ] {
            let params = SearchParams { k: 10, filter: Some(&filter), ef: None };
            let (found, truth) = (
                index.search(view(&queries), &params).unwrap(),
                exact.search(view(&queries), &params).unwrap(),
            );
            for (found, truth) in found.iter().zip(&truth) {
                assert_eq!(found.len(), truth.len());
                assert!(found.iter().all(|hit| filter.allows(hit.id)));
            }
            assert!(recall(&index, &exact, &queries, &params) >= 0.98, "{every}");
        }
    }
}

#[test]
fn duplicates_do_not_hide_other_rows() {
    let mut data = clustered(4000, DIM, 40, 1);
    let first = data[..DIM].to_vec();
    for row in data.chunks_mut(DIM).step_by(4) {
        row.copy_from_slice(&first);
    }
    for builder in [HnswBuilder::Native, HnswBuilder::HnswRs] {
        let index = hnsw(&config(builder), Similarity::Cosine, &data);
        let audit = index.audit(&AuditOptions::default());
        assert_eq!(audit.unreachable, [0u32; 0], "{builder:?}");
        assert!(audit.self_recall() > 0.99, "{builder:?} {}", audit.self_recall());
    }
}

#[test]
fn saving_and_opening_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/index");
    for (similarity, builder) in
        [(Similarity::Dot, HnswBuilder::Native), (Similarity::Cosine, HnswBuilder::HnswRs)]
    {
        let (data, queries) = (unscaled(6000, 1), unscaled(200, 2));
        let index = hnsw(&config(builder), similarity, &data);
        let ids = IdMap::from_ids((0..6000).map(|i| format!("passage \"{i}\"\n"))).unwrap();
        index.save_with_ids(&path, Some(&ids)).unwrap();
        assert_eq!(
            IdMap::open(&path).unwrap().unwrap().iter().collect::<Vec<_>>(),
            ids.iter().collect::<Vec<_>>()
        );

        let mut opened = open(&path).unwrap();
        assert_eq!((opened.kind(), opened.similarity()), (IndexKind::Hnsw, similarity));
        let params = SearchParams::top(10);
        let before = index.search(view(&queries), &params).unwrap();
        assert!(before == opened.search(view(&queries), &params).unwrap());
        // The graph goes on growing where it was.
        assert_eq!(opened.add(view(&queries)).unwrap(), 6000..6200);
        let own = opened.search(view(&queries), &SearchParams::top(1)).unwrap();
        if similarity == Similarity::Cosine {
            let found = own.iter().zip(6000..).filter(|(hits, id)| hits[0].id == *id).count();
            assert!(found >= 199, "{found}");
        }
        // Saved without ids, and over what was there.
        opened.save(&path).unwrap();
        assert_eq!(open(&path).unwrap().len(), 6200);
        assert!(IdMap::open(&path).unwrap().is_none());
        assert!(matches!(opened.save_with_ids(&path, Some(&ids)), Err(Error::RowCount { .. })));
        assert_eq!(fs_err::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing temporary stays");

        let as_exact = ExactIndex::open(&path, &Default::default()).unwrap();
        assert_eq!((as_exact.kind(), as_exact.len()), (IndexKind::Exact, 6200));
    }
}

#[test]
fn damaged_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let data = clustered(500, DIM, 5, 1);
    let index = hnsw(&config(HnswBuilder::Native), Similarity::Cosine, &data);
    let ids = IdMap::from_ids((0..500).map(|i| i.to_string())).unwrap();
    for name in ["vectors.bin", "graph.bin", "ids.txt", "index.json"] {
        index.save_with_ids(&path, Some(&ids)).unwrap();
        let file = path.join(name);
        let whole = fs_err::read(&file).unwrap();
        let opened = || {
            let ids = IdMap::open(&path).map(drop);
            open(&path).map(drop).and(ids).unwrap_err()
        };

        fs_err::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(opened(), Error::Corrupt { path, .. } if path == file), "{name} cut");

        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x80;
        fs_err::write(&file, &flipped).unwrap();
        // A manifest with a bad byte is no UTF-8 any more.
        assert!(matches!(opened(), Error::Corrupt { .. } | Error::Io(_)), "{name} flipped");

        fs_err::remove_file(&file).unwrap();
        let message = opened().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        fs_err::write(&file, &whole).unwrap();
    }
    let manifest = fs_err::read_to_string(path.join("index.json")).unwrap();
    fs_err::write(path.join("index.json"), manifest.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(matches!(open(&path), Err(Error::Version { got: 2, expected: 1, .. })));
    fs_err::write(path.join("index.json"), "{}").unwrap();
    assert!(matches!(open(&path), Err(Error::NotAnIndex { .. })));

    // A directory of something else is not overwritten.
    let other = dir.path().join("other");
    fs_err::create_dir(&other).unwrap();
    fs_err::write(other.join("thesis.tex"), "x").unwrap();
    assert!(matches!(index.save(&other), Err(Error::NotAnIndex { .. })));
    assert!(other.join("thesis.tex").is_file());
}

#[test]
fn what_would_end_hnsw_rs_is_an_error() {
    for (bad, key) in [
        (HnswConfig { m: 256, ..config(HnswBuilder::HnswRs) }, "m"),
        (HnswConfig { m: 1, ..config(HnswBuilder::HnswRs) }, "m"),
        (HnswConfig { ef_construction: 3, ..config(HnswBuilder::HnswRs) }, "ef_construction"),
        (HnswConfig { ef_search: 0, ..config(HnswBuilder::HnswRs) }, "ef_search"),
        (HnswConfig { level_scale: 0.5, ..config(HnswBuilder::HnswRs) }, "level_scale"),
        (HnswConfig { level_scale: f64::NAN, ..config(HnswBuilder::Native) }, "level_scale"),
    ] {
        match HnswIndex::new(&bad, Similarity::Cosine, DIM) {
            Err(Error::BadConfig { key: got, .. }) => assert_eq!(got, key),
            other => panic!("{other:?}"),
        }
    }
    for builder in [HnswBuilder::Native, HnswBuilder::HnswRs] {
        let mut index = HnswIndex::new(&config(builder), Similarity::Cosine, DIM).unwrap();
        let mut data = clustered(10, DIM, 1, 1);
        for (value, zero) in [(f32::NAN, false), (f32::INFINITY, false), (0.0, true)] {
            let mut data = data.clone();
            if zero {
                data[DIM..2 * DIM].fill(0.0);
            } else {
                data[DIM + 3] = value;
            }
            let error = index.add(view(&data)).unwrap_err();
            assert!(
                matches!(error, Error::NotFinite { row: 1, .. } | Error::ZeroVector { row: 1 }),
                "{error}"
            );
            assert!(index.is_empty(), "all rows or none");
            assert!(index.search(view(&data), &SearchParams::top(1)).is_err());
        }
        let wide = [0.5; DIM + 1];
        let wide = Vectors::new(&wide, DIM + 1).unwrap();
        assert!(matches!(index.add(wide), Err(Error::Dimension { .. })));
        assert_eq!(index.add(view(&[])).unwrap(), 0..0);
        assert_eq!(index.search(view(&data[..DIM]), &SearchParams::top(3)).unwrap(), [vec![]]);

        // An empty index survives a round trip, and so does one with a single row.
        let dir = tempfile::tempdir().unwrap();
        index.save(dir.path()).unwrap();
        let mut opened = HnswIndex::open(dir.path()).unwrap();
        data.truncate(DIM);
        opened.add(view(&data)).unwrap();
        opened.save(dir.path()).unwrap();
        let opened = HnswIndex::open(dir.path()).unwrap();
        assert_eq!(opened.search(view(&data), &SearchParams::top(3)).unwrap()[0].len(), 1);
        assert_eq!(opened.audit(&AuditOptions::default()).missed, [0u32; 0]);
    }
    // Under the inner product a zero vector is a vector.
    let mut index = HnswIndex::new(&config(HnswBuilder::HnswRs), Similarity::Dot, DIM).unwrap();
    index.add(view(&[0.0; 2 * DIM])).unwrap();
    assert_eq!(index.audit(&AuditOptions::default()).unreachable, [0u32; 0]);
}

#[test]
fn configs_reject_what_they_do_not_know() {
    let parse = |text: &str| serde_json::from_str::<IndexConfig>(text);
    let parsed = parse(r#"{"hnsw": {"m": 24, "builder": "native"}}"#).unwrap();
    assert_eq!(
        parsed,
        IndexConfig::Hnsw(HnswConfig { m: 24, builder: HnswBuilder::Native, ..Default::default() })
    );
    assert!(parse(r#"{"hnsw": {"M": 24}}"#).is_err());
    assert!(parse(r#"{"exact": {"precision": "f16"}}"#).is_ok());
    assert!(parse(r#"{"flat": {}}"#).is_err());
    assert!(build(&parsed, Similarity::Cosine, 0).is_err());
    serde_json::to_string(&schemars::schema_for!(IndexConfig)).unwrap();
}

/// The default settings on a corpus of ordinary size. `cargo test --release -p ragduet-index -- --ignored`
#[test]
#[ignore = "takes a minute in a release build and many in another"]
fn defaults_reach_their_recall_on_100_000_rows() {
    let dim = 384;
    let (data, queries) = (clustered(100_000, dim, 1000, 1), clustered(1000, dim, 1000, 2));
    let (rows, queries) = (Vectors::new(&data, dim).unwrap(), Vectors::new(&queries, dim).unwrap());
    let mut exact = ExactIndex::new(&ExactConfig::default(), Similarity::Cosine, dim).unwrap();
    exact.add(rows).unwrap();
    let mut index = HnswIndex::new(&HnswConfig::default(), Similarity::Cosine, dim).unwrap();
    index.add(rows).unwrap();
    let report = recall_against_exact(&index, &exact, queries, &SearchParams::top(10)).unwrap();
    assert!(report.recall >= 0.98, "{report:?}");
    let audit = index.audit(&AuditOptions { sample: Some(5000), ..Default::default() });
    assert_eq!(audit.unreachable, [0u32; 0]);
    assert!(audit.self_recall() > 0.999, "{}", audit.self_recall());
}
