//! Compressed indexes against exact ones and against sums in f64.

use crate::common::clustered;
use ragduet_index::{
    BinaryConfig, BinaryQuery, CompressedIndex, CompressionConfig, Error, ExactConfig, ExactIndex, Form,
    IdFilter, IdMap, IndexConfig, IndexKind, OpenOptions, PqConfig, RescoreConfig, RescoreRows, SearchParams,
    Similarity, VectorIndex, VectorIndexMut, Vectors, build, open, open_with, recall_against_exact,
};

/// No multiple of anything: words, lanes and parts all have a rest.
const DIM: usize = 91;

fn view(data: &[f32]) -> Vectors<'_> {
    Vectors::new(data, DIM).unwrap()
}

fn binary(query: BinaryQuery) -> Form {
    Form::Binary(BinaryConfig { query })
}

fn pq(parts: usize) -> Form {
    Form::Pq(PqConfig { parts, ..PqConfig::default() })
}

fn plain(form: Form) -> CompressionConfig {
    CompressionConfig { form, ..CompressionConfig::default() }
}

fn rescored(form: Form, rows: RescoreRows) -> CompressionConfig {
    CompressionConfig { rescore: Some(RescoreConfig { rows, factor: 4 }), ..plain(form) }
}

fn forms() -> [Form; 6] {
    [Form::F32, Form::F16, Form::Int8, binary(BinaryQuery::Numbers), binary(BinaryQuery::Signs), pq(20)]
}

fn index(config: &CompressionConfig, similarity: Similarity, data: &[f32]) -> CompressedIndex {
    let mut index = CompressedIndex::new(config, similarity, DIM).unwrap();
    index.add(view(data)).unwrap();
    index
}

fn exact(similarity: Similarity, data: &[f32]) -> ExactIndex {
    let mut index = ExactIndex::new(&ExactConfig::default(), similarity, DIM).unwrap();
    index.add(view(data)).unwrap();
    index
}

/// Rows of different lengths.
fn unscaled(n: usize, stream: u64) -> Vec<f32> {
    let mut data = clustered(n, DIM, n.div_ceil(100), stream);
    for (i, row) in data.chunks_mut(DIM).enumerate() {
        row.iter_mut().for_each(|x| *x *= 1.0 + (i % 17) as f32 / 8.0);
    }
    data
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn scores_are_products_with_what_is_stored() {
    let (data, queries) = (unscaled(700, 1), unscaled(5, 2));
    for form in forms() {
        let index = index(&plain(form.clone()), Similarity::Dot, &data);
        for (query, hits) in
            queries.chunks(DIM).zip(index.search(view(&queries), &SearchParams::top(700)).unwrap())
        {
            assert_eq!(hits.len(), 700);
            assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for hit in &hits {
                let stored = index.row(hit.id).unwrap();
                // What a query loses by being rounded: nothing, half of 1/31 of its greatest number, or its sizes.
                let query: Vec<f32> = match form {
                    Form::Binary(BinaryConfig { query: BinaryQuery::Signs }) => {
                        let size = query.iter().map(|x| x.abs()).sum::<f32>() / DIM as f32;
                        query.iter().map(|x| if *x > 0.0 { size } else { -size }).collect()
                    }
                    _ => query.to_vec(),
                };
                let greatest = query.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                let tolerance = match form {
                    Form::Binary(BinaryConfig { query: BinaryQuery::Numbers }) => {
                        f64::from(greatest) / 62.0 * stored.iter().map(|x| f64::from(x.abs())).sum::<f64>()
                    }
                    _ => 1e-3,
                };
                let want = product(&query, &stored);
                assert!((f64::from(hit.score) - want).abs() <= tolerance, "{form:?} {} {want}", hit.score);
            }
        }
    }
}

#[test]
fn bytes_are_within_half_a_step() {
    let data = unscaled(300, 1);
    let index = index(&plain(Form::Int8), Similarity::Dot, &data);
    for (id, row) in data.chunks(DIM).enumerate() {
        let step = row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
        for (got, want) in index.row(id as u32).unwrap().iter().zip(row) {
            assert!((got - want).abs() <= step * 0.501, "{got} {want} {step}");
        }
    }
}

#[test]
fn recall_is_what_the_form_allows() {
    for similarity in [Similarity::Cosine, Similarity::Dot] {
        let (data, queries) = match similarity {
            Similarity::Cosine => (clustered(3000, DIM, 30, 1), clustered(100, DIM, 30, 2)),
            Similarity::Dot => (unscaled(3000, 1), unscaled(100, 2)),
        };
        let exact = exact(similarity, &data);
        let recall = |config: &CompressionConfig| {
            let index = index(config, similarity, &data);
            // Scores of compressed rows are not those of exact ones: hits are compared by ids.
            let found = index.search(view(&queries), &SearchParams::top(10)).unwrap();
            let truth = exact.search(view(&queries), &SearchParams::top(10)).unwrap();
            let right = found.iter().zip(&truth).map(|(found, truth)| {
                found.iter().filter(|hit| truth.iter().any(|other| other.id == hit.id)).count()
            });
            right.sum::<usize>() as f64 / 1000.0
        };
        for (config, floor) in [
            (plain(Form::F32), 0.999),
            (plain(Form::F16), 0.99),
            (plain(Form::Int8), 0.96),
            (plain(binary(BinaryQuery::Numbers)), 0.35),
            (plain(binary(BinaryQuery::Signs)), 0.2),
            (plain(pq(45)), 0.4),
            (rescored(Form::Int8, RescoreRows::F32), 0.999),
            (rescored(binary(BinaryQuery::Numbers), RescoreRows::Int8), 0.7),
            (rescored(binary(BinaryQuery::Signs), RescoreRows::F16), 0.5),
            (rescored(pq(45), RescoreRows::F32), 0.8),
        ] {
            let found = recall(&config);
            assert!(found >= floor, "{similarity:?} {config:?} {found}");
        }
    }
}

#[test]
fn all_rows_scored_again_are_the_exact_search() {
    let (data, queries) = (unscaled(900, 1), unscaled(40, 2));
    let exact = exact(Similarity::Dot, &data);
    for form in forms() {
        let index = index(&rescored(form, RescoreRows::F32), Similarity::Dot, &data);
        let params = SearchParams { ef: Some(900), ..SearchParams::top(10) };
        let report = recall_against_exact(&index, &exact, view(&queries), &params).unwrap();
        assert_eq!(report.recall, 1.0);
        assert_eq!(
            index.search(view(&queries), &params).unwrap(),
            exact.search(view(&queries), &params).unwrap()
        );
    }
}

#[test]
fn a_cut_is_the_index_of_the_first_numbers() {
    let (data, queries) = (unscaled(800, 1), unscaled(30, 2));
    let cut = |data: &[f32]| data.chunks(DIM).flat_map(|row| row[..40].to_vec()).collect::<Vec<f32>>();
    let (cut_data, cut_queries) = (cut(&data), cut(&queries));
    let params = SearchParams::top(10);
    for similarity in [Similarity::Cosine, Similarity::Dot] {
        for form in forms() {
            let config = CompressionConfig { dimensions: Some(40), ..plain(form.clone()) };
            let short = index(&config, similarity, &data);
            assert_eq!(short.dim(), DIM);
            let mut own = CompressedIndex::new(&plain(form), similarity, 40).unwrap();
            own.add(Vectors::new(&cut_data, 40).unwrap()).unwrap();
            let own = own.search(Vectors::new(&cut_queries, 40).unwrap(), &params).unwrap();
            for (short, own) in short.search(view(&queries), &params).unwrap().iter().zip(&own) {
                // Lengths are taken of whole rows first, which may differ in the last bit.
                assert!(short.iter().zip(own).all(|(a, b)| (a.score - b.score).abs() < 2e-3));
            }
            let row = short.row(3).unwrap();
            assert!(row.len() == DIM && row[40..].iter().all(|x| *x == 0.0));
        }
    }
    // Rescoring sees all numbers.
    let config = CompressionConfig { dimensions: Some(40), ..rescored(Form::Int8, RescoreRows::F32) };
    let index = index(&config, Similarity::Cosine, &data);
    let params = SearchParams { ef: Some(800), ..params };
    assert_eq!(
        index.search(view(&queries), &params).unwrap(),
        exact(Similarity::Cosine, &data).search(view(&queries), &params).unwrap()
    );
    assert_eq!((index.row_bytes().scanned, index.row_bytes().rescored), (44, DIM * 4));
}

#[test]
fn filters_and_batches_change_nothing_else() {
    let (data, queries) = (clustered(900, DIM, 9, 1), clustered(60, DIM, 9, 2));
    for form in forms() {
        let index = index(&plain(form), Similarity::Cosine, &data);
        let all = index.search(view(&queries), &SearchParams::top(900)).unwrap();
        for (query, all) in view(&queries).blocks(1).zip(&all) {
            assert_eq!(index.search(query, &SearchParams::top(7)).unwrap()[0], all[..7]);
        }
        let some = || (0..900).filter(|id| id % 7 == 3);
        for filter in [IdFilter::allow(some()), IdFilter::deny(some()), IdFilter::allow([])] {
            let params = SearchParams { filter: Some(&filter), ..SearchParams::top(9) };
            for (hits, all) in index.search(view(&queries), &params).unwrap().iter().zip(&all) {
                let want: Vec<_> = all.iter().filter(|hit| filter.allows(hit.id)).take(9).copied().collect();
                assert_eq!(*hits, want);
            }
        }
    }
}

#[test]
fn saving_opening_and_adding_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let (data, queries) = (unscaled(1500, 1), unscaled(60, 2));
    let (first, later) = data.split_at(1000 * DIM);
    let params = SearchParams::top(12);
    let ids = IdMap::from_ids((0..1500).map(|id| id.to_string())).unwrap();
    let mut configs: Vec<_> = forms().into_iter().map(plain).collect();
    configs.extend([RescoreRows::F32, RescoreRows::F16, RescoreRows::Int8].map(|rows| CompressionConfig {
        dimensions: Some(50),
        ..rescored(binary(BinaryQuery::Numbers), rows)
    }));
    configs.push(rescored(Form::F16, RescoreRows::F32));
    for config in configs {
        let mut index = index(&config, Similarity::Cosine, first);
        assert_eq!(index.add(view(later)).unwrap(), 1000..1500);
        let want = index.search(view(&queries), &params).unwrap();
        index.save_with_ids(&path, Some(&ids)).unwrap();
        assert_eq!(IdMap::open(&path).unwrap().unwrap().len(), 1500);
        for on_disk in [false, true] {
            let opened = open_with(&path, &OpenOptions { on_disk, verify: true }).unwrap();
            assert_eq!((opened.kind(), opened.len(), opened.dim()), (IndexKind::Compressed, 1500, DIM));
            assert!(opened.search(view(&queries), &params).unwrap() == want, "{config:?}");
            assert_eq!(opened.row(1499).unwrap(), index.row(1499).unwrap());
            opened.save(&path).unwrap();
        }
        let mut opened = open(&path).unwrap();
        assert_eq!(opened.add(view(later)).unwrap(), 1500..2000);
        index.add(view(later)).unwrap();
        assert_eq!(
            opened.search(view(&queries), &params).unwrap(),
            index.search(view(&queries), &params).unwrap()
        );
        assert!(matches!(ExactIndex::open(&path, &OpenOptions::default()), Err(Error::NotAnIndex { .. })));
        assert!(matches!(opened.row(2000), Err(Error::NoSuchRow { .. })));
    }
}

#[test]
fn centroids_do_not_depend_on_threads() {
    let data = clustered(2000, DIM, 20, 1);
    let codes = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let index = pool.install(|| index(&plain(pq(13)), Similarity::Cosine, &data));
        index.save(&dir.path().join("i")).unwrap();
        fs_err::read(dir.path().join("i/codes.bin")).unwrap()
    };
    assert!(codes(1) == codes(3));
}

#[test]
fn damaged_files_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let data = clustered(400, DIM, 4, 1);
    for form in forms() {
        let index = index(&rescored(form, RescoreRows::Int8), Similarity::Cosine, &data);
        for name in ["codes.bin", "rescore.bin"] {
            index.save(&path).unwrap();
            let file = path.join(name);
            let whole = fs_err::read(&file).unwrap();
            fs_err::write(&file, &whole[..whole.len() - 1]).unwrap();
            assert!(matches!(open(&path).map(drop), Err(Error::Corrupt { path, .. }) if path == file));
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            fs_err::write(&file, &flipped).unwrap();
            assert!(matches!(open(&path).map(drop), Err(Error::Corrupt { path, .. }) if path == file));
        }
        // A manifest of other rows, with the sums of the files as they are.
        index.save(&path).unwrap();
        let manifest = crate::manifest::without_sum(&path);
        for (from, to) in [("\"count\": 400", "\"count\": 401"), ("\"dim\": 91", "\"dim\": 180")] {
            assert!(manifest.contains(from));
            fs_err::write(path.join("index.json"), manifest.replace(from, to)).unwrap();
            assert!(matches!(open(&path).map(drop), Err(Error::Corrupt { .. })), "{from}");
        }
    }
}

#[test]
fn what_cannot_be_indexed_is_an_error_and_changes_nothing() {
    let mut bad = clustered(10, DIM, 1, 1);
    bad[DIM + 3] = f32::NAN;
    let mut long = clustered(10, DIM, 1, 1);
    long[5 * DIM] = 1e6;
    for form in forms() {
        let mut config = rescored(form, RescoreRows::F16);
        config.dimensions = Some(60);
        let mut index = CompressedIndex::new(&config, Similarity::Dot, DIM).unwrap();
        assert!(matches!(index.add(view(&bad)), Err(Error::NotFinite { row: 1, column: 3, .. })));
        assert!(matches!(index.add(view(&long)), Err(Error::TooLarge { row: 5, .. })));
        assert!(index.is_empty());
        assert_eq!(index.search(view(&long), &SearchParams::top(3)).unwrap(), vec![vec![]; 10]);
        assert!(index.search(view(&bad), &SearchParams::top(3)).is_err());
        assert_eq!(index.add(view(&[])).unwrap(), 0..0);
        // Zeros are a vector under the inner product; an index of one row and one of none survive a round trip.
        let dir = tempfile::tempdir().unwrap();
        index.save(dir.path()).unwrap();
        let mut opened = open(dir.path()).unwrap();
        assert_eq!(opened.add(view(&[0.0; DIM])).unwrap(), 0..1);
        opened.save(dir.path()).unwrap();
        let hits = open(dir.path()).unwrap().search(view(&long), &SearchParams::top(3)).unwrap();
        assert!(hits.iter().all(|hits| hits.len() == 1 && hits[0].score == 0.0));
    }
    let mut index = CompressedIndex::new(&plain(Form::Int8), Similarity::Cosine, DIM).unwrap();
    assert!(matches!(index.add(view(&[0.0; DIM])), Err(Error::ZeroVector { row: 0 })));
    let wide = [0.5; DIM + 1];
    assert!(matches!(index.add(Vectors::new(&wide, DIM + 1).unwrap()), Err(Error::Dimension { .. })));
}

#[test]
fn configs_reject_what_has_no_meaning() {
    let parse = |text: &str| serde_json::from_str::<IndexConfig>(text);
    let parsed = parse(
        r#"{"compressed": {"form": {"pq": {"parts": 8}}, "dimensions": 64, "rescore": {"rows": "f16"}}}"#,
    )
    .unwrap();
    assert_eq!(
        parsed,
        IndexConfig::Compressed(CompressionConfig {
            form: pq(8),
            dimensions: Some(64),
            rescore: Some(RescoreConfig { rows: RescoreRows::F16, factor: 4 }),
        })
    );
    assert!(build(&parsed, Similarity::Cosine, 64).is_ok());
    assert!(parse(r#"{"compressed": {"form": "int8"}}"#).is_ok());
    assert!(parse(r#"{"compressed": {"form": {"binary": {"query": "signs"}}}}"#).is_ok());
    assert!(parse(r#"{"compressed": {"form": "int4"}}"#).is_err());
    assert!(parse(r#"{"compressed": {"form": {"pq": {"m": 8}}}}"#).is_err());
    for (config, key) in [
        (plain(pq(0)), "parts"),
        (plain(pq(DIM + 1)), "parts"),
        (CompressionConfig { dimensions: Some(10), ..plain(pq(11)) }, "parts"),
        (plain(Form::Pq(PqConfig { rounds: 0, parts: 4, seed: 0 })), "rounds"),
        (CompressionConfig { dimensions: Some(0), ..plain(Form::Int8) }, "dimensions"),
        (CompressionConfig { dimensions: Some(DIM + 1), ..plain(Form::Int8) }, "dimensions"),
        (
            CompressionConfig {
                rescore: Some(RescoreConfig { factor: 0, ..RescoreConfig::default() }),
                ..plain(Form::Int8)
            },
            "factor",
        ),
    ] {
        match CompressedIndex::new(&config, Similarity::Cosine, DIM) {
            Err(Error::BadConfig { key: got, .. }) => assert_eq!(got, key),
            other => panic!("{other:?}"),
        }
    }
}
