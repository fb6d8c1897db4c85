//! Indexes of vectors in a file: the same bytes as those built in memory.

use crate::common::clustered;
use ragduet_index::{
    BinaryConfig, CompressionConfig, Error, ExactConfig, ExactMultiVectorIndex, Form, HnswBuilder,
    HnswConfig, IdMap, IndexConfig, MultiSearchParams, MultiVectorConfig, MultiVectorIndex, MultiVectors,
    PqConfig, Precision, RescoreConfig, RescoreRows, ResidualConfig, Similarity, VectorFile, VectorSpool,
    Vectors, build, build_multi_vector, write_index, write_multi_vector_index,
};
use std::path::Path;

/// So many numbers that the rows below are more than a block of a file.
const DIM: usize = 1024;
const ROWS: usize = 2500;

fn spooled(data: &[f32]) -> VectorFile {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = VectorSpool::create(dir.path(), DIM).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
    data.chunks(700 * DIM).for_each(|part| spool.push(part).unwrap());
    spool.finish().unwrap()
}

/// Rows of different lengths, so that scaling shows.
fn rows() -> Vec<f32> {
    let mut data = clustered(ROWS, DIM, 25, 1);
    for (i, row) in data.chunks_mut(DIM).enumerate() {
        row.iter_mut().for_each(|x| *x *= 1.0 + (i % 5) as f32);
    }
    data
}

fn ids() -> IdMap {
    IdMap::from_ids((0..ROWS).map(|i| format!("d{i}"))).unwrap()
}

fn same_files(a: &Path, b: &Path, of: &str) {
    let names = |dir: &Path| -> Vec<_> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b), "{of}");
    for name in names(a) {
        let (a, b) = (std::fs::read(a.join(&name)).unwrap(), std::fs::read(b.join(&name)).unwrap());
        assert!(a == b, "{of}: {} differs", name.display());
    }
}

fn compressed(form: Form, dimensions: Option<usize>, rows: Option<RescoreRows>) -> IndexConfig {
    let rescore = rows.map(|rows| RescoreConfig { rows, factor: 4 });
    IndexConfig::Compressed(CompressionConfig { form, dimensions, rescore })
}

#[test]
fn indexes_of_a_file_are_those_of_memory() {
    let (data, ids, dir) = (rows(), ids(), tempfile::tempdir().unwrap());
    let pq = Form::Pq(PqConfig { parts: 8, rounds: 1, seed: 3 });
    let graph =
        HnswConfig { m: 4, ef_construction: 8, builder: HnswBuilder::Native, ..HnswConfig::default() };
    let configs = [
        IndexConfig::Exact(ExactConfig { precision: Precision::F32 }),
        IndexConfig::Exact(ExactConfig { precision: Precision::F16 }),
        compressed(Form::F16, Some(40), None),
        compressed(Form::Int8, None, None),
        compressed(Form::Binary(BinaryConfig::default()), Some(100), Some(RescoreRows::Int8)),
        compressed(pq, Some(64), Some(RescoreRows::F32)),
        IndexConfig::Hnsw(graph),
    ];
    for similarity in [Similarity::Cosine, Similarity::Dot] {
        for config in &configs {
            let mut index = build(config, similarity, DIM).unwrap();
            index.add(Vectors::new(&data, DIM).unwrap()).unwrap();
            let (memory, file) = (dir.path().join("memory"), dir.path().join("file"));
            index.save_with_ids(&memory, Some(&ids)).unwrap();
            let done = std::cell::Cell::new(0);
            let progress = |n: usize, of: usize| {
                assert!(n <= of);
                done.set(n);
            };
            let bytes =
                write_index(&file, config, similarity, &spooled(&data), Some(&ids), &progress).unwrap();
            assert_eq!((bytes, done.get()), (index.bytes(), ROWS), "{config:?}");
            same_files(&memory, &file, &format!("{config:?}"));
        }
    }
}

#[test]
fn multi_vector_indexes_of_a_file_are_those_of_memory() {
    let (data, dir) = (clustered(ROWS, DIM, 25, 1), tempfile::tempdir().unwrap());
    let mut lengths = vec![7u32; ROWS / 7];
    lengths.extend([0, (ROWS % 7) as u32]);
    let offsets: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |at, &n| {
            *at += n as usize;
            Some(*at)
        }))
        .collect();
    let passages = MultiVectors::new(&data, &offsets, DIM).unwrap();
    let residual =
        ResidualConfig { bits: 2, centroids: Some(32), iterations: 1, ..ResidualConfig::default() };
    for config in [
        MultiVectorConfig::Exact(ExactConfig { precision: Precision::F16 }),
        MultiVectorConfig::Compressed(residual.clone()),
        MultiVectorConfig::Compressed(ResidualConfig { sample: Some(300), ..residual }),
    ] {
        let index = build_multi_vector(&config, passages).unwrap();
        let (memory, file) = (dir.path().join("memory"), dir.path().join("file"));
        index.save(&memory).unwrap();
        write_multi_vector_index(&file, &config, &spooled(&data), &lengths, None, &|_, _| ()).unwrap();
        same_files(&memory, &file, &format!("{config:?}"));
    }
    let left = ExactMultiVectorIndex::of_file(spooled(&data), &lengths).unwrap();
    let exact = MultiVectorConfig::Exact(ExactConfig { precision: Precision::F32 });
    let held = build_multi_vector(&exact, passages).unwrap();
    let query = MultiVectors::new(&data[..3 * DIM], &[0, 3], DIM).unwrap();
    let top = MultiSearchParams::top(5);
    assert_eq!(left.search(query, &top).unwrap(), held.search(query, &top).unwrap());
}

#[test]
fn faults_name_the_row_of_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("index");
    let exact = IndexConfig::default();
    let write = |data: &[f32], config: &IndexConfig, ids: Option<&IdMap>| {
        write_index(&target, config, Similarity::Cosine, &spooled(data), ids, &|_, _| ())
    };
    let mut data = rows();
    data[2300 * DIM..2301 * DIM].fill(0.0);
    for config in [&exact, &compressed(Form::Int8, None, None)] {
        assert!(matches!(write(&data, config, None), Err(Error::ZeroVector { row: 2300 })));
    }
    data[2400 * DIM + 7] = f32::NAN;
    data[2300 * DIM] = 1.0;
    let pq = compressed(Form::Pq(PqConfig { parts: 8, rounds: 1, seed: 3 }), None, None);
    assert!(matches!(write(&data, &pq, None), Err(Error::NotFinite { row: 2400, column: 7, .. })));
    let few = IdMap::from_ids(["a"]).unwrap();
    assert!(matches!(write(&rows(), &exact, Some(&few)), Err(Error::RowCount { .. })));
    let late = MultiVectorConfig::Compressed(ResidualConfig::default());
    let lengths = [ROWS as u32];
    let file = spooled(&rows());
    let unscaled = write_multi_vector_index(&target, &late, &file, &lengths, None, &|_, _| ());
    assert!(matches!(unscaled, Err(Error::NotUnit { .. })), "{unscaled:?}");
    let short = write_multi_vector_index(&target, &late, &file, &[7], None, &|_, _| ());
    assert!(matches!(short, Err(Error::Offsets { .. })));
    let none = spooled(&[]);
    let nothing = write_multi_vector_index(&target, &late, &none, &[], None, &|_, _| ());
    assert!(matches!(nothing, Err(Error::NoTokens)));
    assert!(!target.exists(), "what fails leaves nothing");
    write(&[], &exact, None).unwrap();
    assert!(target.is_dir());
}

/// In a process of its own, whose peak of memory is counted: the vectors are not in it.
#[test]
fn vectors_larger_than_a_block_are_not_held() {
    const ALONE: &str = "RAGDUET_TEST_PEAK";
    if std::env::var_os(ALONE).is_none() {
        let test = "filed::vectors_larger_than_a_block_are_not_held";
        let exe = std::env::current_exe().unwrap();
        let done =
            std::process::Command::new(exe).args(["--exact", test, "--nocapture"]).env(ALONE, "1").output();
        let done = done.unwrap();
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let field = |name: &str| -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    let dir = tempfile::tempdir().unwrap();
    let some = clustered(1000, DIM, 10, 1);
    let mut spool = VectorSpool::create(dir.path(), DIM).unwrap();
    (0..40).for_each(|_| spool.push(&some).unwrap());
    let vectors = spool.finish().unwrap();
    let bytes = (vectors.len() * DIM * 4) as u64;
    let int8 = compressed(Form::Int8, None, Some(RescoreRows::F16));
    for config in [IndexConfig::default(), int8] {
        let before = field("VmRSS");
        write_index(&dir.path().join("index"), &config, Similarity::Cosine, &vectors, None, &|_, _| ())
            .unwrap();
        let more = field("VmHWM").saturating_sub(before);
        println!("{bytes} bytes of vectors, {more} bytes of memory");
        assert!(more < bytes / 2, "{config:?}: {more} of {bytes}");
    }
}
