//! Multi-vector indexes: the exact one against sums in `f64`, the compressed one against the exact one.

use proptest::prelude::*;
use ragduet_index::{
    CompressedMultiVectorIndex, Error, ExactConfig, ExactMultiVectorIndex, Hit, IdFilter, IdMap, IndexKind,
    MultiSearchParams, MultiVectorConfig, MultiVectorIndex, MultiVectors, OpenOptions, Precision,
    ResidualConfig, Vectors, build_multi_vector, kind, open, open_multi_vector, recall_of_multi_vectors,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 32;

/// Passages (or queries) with token vectors around common centres.
struct Sets {
    data: Vec<f32>,
    offsets: Vec<usize>,
}

impl Sets {
    /// `stream` draws other vectors around the same centres; every passage prefers a few of them, as a text does its
    /// words.
    fn new(n: usize, tokens: std::ops::Range<usize>, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(stream);
        let mut offsets = vec![0];
        for _ in 0..n {
            offsets.push(offsets.last().unwrap() + rng.random_range(tokens.clone()));
        }
        Self { data: crate::common::clustered(*offsets.last().unwrap(), DIM, 300, stream), offsets }
    }

    /// A query for every `step`-th passage: some of its vectors, blurred.
    fn queries(&self, step: usize, tokens: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let (mut data, mut offsets) = (Vec::new(), vec![0]);
        for passage in self.view().sets().step_by(step) {
            for _ in 0..tokens {
                let row = passage.row(rng.random_range(0..passage.len()));
                let mut row: Vec<f32> = row.iter().map(|x| x + rng.random_range(-0.15..0.15)).collect();
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= length);
                data.extend(row);
            }
            offsets.push(data.len() / DIM);
        }
        Self { data, offsets }
    }

    fn view(&self) -> MultiVectors<'_> {
        MultiVectors::new(&self.data, &self.offsets, DIM).unwrap()
    }

    /// Passages `from..to` on their own.
    fn part(&self, from: usize, to: usize) -> Self {
        let (start, end) = (self.offsets[from], self.offsets[to]);
        let offsets = self.offsets[from..=to].iter().map(|at| at - start).collect();
        Self { data: self.data[start * DIM..end * DIM].to_vec(), offsets }
    }
}

fn exact(sets: &Sets, precision: Precision) -> ExactMultiVectorIndex {
    let mut index = ExactMultiVectorIndex::new(&ExactConfig { precision }, DIM).unwrap();
    index.add(sets.view()).unwrap();
    index
}

fn compressed(sets: &Sets, bits: u8) -> CompressedMultiVectorIndex {
    let config = ResidualConfig { bits, ..ResidualConfig::default() };
    CompressedMultiVectorIndex::build(&config, sets.view()).unwrap()
}

fn maxsim(query: Vectors<'_>, passage: Vectors<'_>) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    query.rows().map(|q| passage.rows().map(|d| dot(q, d)).fold(f64::NEG_INFINITY, f64::max)).sum()
}

#[test]
fn the_exact_index_is_right() {
    let sets = Sets::new(400, 1..40, 1);
    let queries = Sets::new(70, 1..40, 2);
    for (precision, tolerance) in [(Precision::F32, 1e-4), (Precision::F16, 2e-2)] {
        let index = exact(&sets, precision);
        let found = index.search(queries.view(), &MultiSearchParams::top(10)).unwrap();
        for (query, hits) in queries.view().sets().zip(&found) {
            let mut scores: Vec<f64> = sets.view().sets().map(|passage| maxsim(query, passage)).collect();
            for hit in hits {
                assert!((f64::from(hit.score) - scores[hit.id as usize]).abs() < tolerance);
            }
            let ids: Vec<u32> = hits.iter().map(|hit| hit.id).collect();
            let again = index.score(query, &ids).unwrap();
            assert_eq!(again, hits.iter().map(|hit| hit.score).collect::<Vec<_>>());
            scores.sort_by(|a, b| b.total_cmp(a));
            assert!((f64::from(hits[9].score) - scores[9]).abs() < tolerance);
            assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
        }
    }
}

#[test]
fn filters_are_kept_to() {
    let sets = Sets::new(300, 1..40, 1);
    let queries = sets.queries(30, 8);
    let even = IdFilter::allow((0..300).step_by(2));
    let few = IdFilter::allow([7, 100, 250]);
    for index in [
        &exact(&sets, Precision::F16) as &dyn MultiVectorIndex,
        &exact(&sets, Precision::F32),
        &compressed(&sets, 4),
    ] {
        let params = MultiSearchParams { filter: Some(&even), ..MultiSearchParams::top(10) };
        for hits in index.search(queries.view(), &params).unwrap() {
            assert_eq!(hits.len(), 10);
            assert!(hits.iter().all(|hit| hit.id % 2 == 0));
        }
        let params = MultiSearchParams { filter: Some(&few), ..MultiSearchParams::plaid(10) };
        for hits in index.search(queries.view(), &params).unwrap() {
            let mut ids: Vec<u32> = hits.iter().map(|hit| hit.id).collect();
            ids.sort_unstable();
            assert_eq!(ids, [7, 100, 250]);
        }
    }
}

#[test]
fn more_bits_err_less() {
    let sets = Sets::new(600, 1..40, 1);
    let mut last = f64::INFINITY;
    for (bits, bytes) in [(1, 4), (2, 8), (4, 16), (8, 32)] {
        let index = compressed(&sets, bits);
        let mut error = 0.0;
        for (id, passage) in sets.view().sets().enumerate() {
            let decoded = index.passage(id as u32).unwrap();
            assert_eq!(decoded.len(), passage.data().len());
            error += decoded.iter().zip(passage.data()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            for row in decoded.chunks(DIM) {
                assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
            }
        }
        let error = error / index.tokens() as f64;
        assert!(error < last / 1.5, "{bits} bits: {error}, before {last}");
        last = error;
        // Beside code and residual: lists, lengths, centroids.
        let each = index.tokens() * (4 + bytes);
        assert!(
            index.bytes() > each && index.bytes() < each + index.tokens() * 4 + index.centroids() * DIM * 8
        );
    }
    assert!(last < 1e-3, "{last}");
}

#[test]
fn compressed_search_finds_what_exact_search_finds() {
    let sets = Sets::new(3000, 10..40, 1);
    let queries = sets.queries(40, 12);
    let exact = exact(&sets, Precision::F32);
    let recall = |index: &CompressedMultiVectorIndex, params: &MultiSearchParams<'_>| {
        recall_of_multi_vectors(index, &exact, queries.view(), params).unwrap().recall
    };
    let four = compressed(&sets, 4);
    for (bits, index, floor) in
        [(2, &compressed(&sets, 2), 0.6), (4, &four, 0.85), (8, &compressed(&sets, 8), 0.9)]
    {
        let found = recall(index, &MultiSearchParams::top(10));
        println!("{bits} bits: recall@10 {found}");
        assert!(found >= floor, "{bits} bits: recall@10 {found}");
    }
    let few = MultiSearchParams { n_docs: Some(1024), ..MultiSearchParams::top(10) };
    for (name, params, floor) in [("few", few, 0.8), ("plaid", MultiSearchParams::plaid(10), 0.3)] {
        let found = recall(&four, &params);
        println!("{name}: recall@10 {found}");
        assert!(found >= floor, "{name}: recall@10 {found}");
    }
    assert_eq!(
        recall_of_multi_vectors(&exact, &exact, queries.view(), &MultiSearchParams::top(10))
            .unwrap()
            .complete,
        75
    );
}

#[test]
fn adding_in_portions_is_building() {
    let sets = Sets::new(500, 0..30, 1);
    let config = ResidualConfig { seed: 5, ..ResidualConfig::default() };
    let whole = CompressedMultiVectorIndex::build(&config, sets.view()).unwrap();
    let mut portions = CompressedMultiVectorIndex::train(&config, sets.view(), sets.view().tokens()).unwrap();
    for (from, to) in [(0, 1), (1, 200), (200, 200), (200, 500)] {
        let ids = portions.add(sets.part(from, to).view()).unwrap();
        assert_eq!(ids, from as u32..to as u32);
    }
    let dir = tempfile::tempdir().unwrap();
    let files = |name: &str, index: &CompressedMultiVectorIndex| {
        let path = dir.path().join(name);
        index.save(&path).unwrap();
        ["index.json", "centroids.bin", "buckets.bin", "codes.bin", "residuals.bin", "lengths.bin"]
            .map(|file| fs_err::read(path.join(file)).unwrap())
    };
    assert!(files("whole", &whole) == files("portions", &portions));
}

#[test]
fn removed_passages_are_never_found() {
    let sets = Sets::new(400, 0..30, 1);
    let queries = Sets::new(20, 5..10, 2);
    let gone: Vec<u32> = (0..400).filter(|id| id % 3 == 1).collect();
    let mut removed = 0;
    for mut index in
        [Box::new(exact(&sets, Precision::F16)) as Box<dyn MultiVectorIndex>, Box::new(compressed(&sets, 4))]
    {
        let (live, tokens) = (index.live(), index.tokens());
        let before = index.search(queries.view(), &MultiSearchParams::top(400)).unwrap();
        assert!(matches!(index.remove(&[2, 400]), Err(Error::NoSuchRow { id: 400, len: 400 })));
        assert_eq!(index.live(), live);
        removed = index.remove(&gone).unwrap();
        assert_eq!((index.remove(&gone).unwrap(), index.live(), index.len()), (0, live - removed, 400));
        assert!(index.tokens() < tokens);
        let all = index.search(queries.view(), &MultiSearchParams::top(400)).unwrap();
        for (hits, before) in all.iter().zip(&before) {
            let left: Vec<Hit> = before.iter().copied().filter(|hit| hit.id % 3 != 1).collect();
            assert_eq!(hits, &left);
        }
        let params = MultiSearchParams { n_docs: Some(40), ..MultiSearchParams::top(5) };
        for hits in index.search(queries.view(), &params).unwrap() {
            assert!(hits.len() == 5 && hits.iter().all(|hit| hit.id % 3 != 1));
        }
        // What is saved has the same ids and none of the removed vectors; what is added comes behind.
        let dir = tempfile::tempdir().unwrap();
        index.save(&dir.path().join("i")).unwrap();
        let mut opened = open_multi_vector(dir.path().join("i"), &OpenOptions::default()).unwrap();
        assert_eq!(opened.search(queries.view(), &MultiSearchParams::top(400)).unwrap(), all);
        assert_eq!(
            (opened.tokens(), opened.live(), opened.bytes()),
            (index.tokens(), index.live(), index.bytes())
        );
        for index in [&mut index, &mut opened] {
            assert_eq!(index.add(queries.view()).unwrap(), 400..420);
            let hits = index.search(queries.view(), &MultiSearchParams::top(1)).unwrap();
            assert!(hits.iter().zip(400..).all(|(hits, id)| hits[0].id == id));
        }
    }
    assert!(removed > 100);
}

#[test]
fn saved_indexes_open_equal() {
    let sets = Sets::new(300, 0..30, 1);
    let queries = Sets::new(20, 5..10, 2);
    let ids = IdMap::from_ids((0..300).map(|id| format!("p{id}"))).unwrap();
    let params = MultiSearchParams { n_docs: Some(80), ..MultiSearchParams::top(10) };
    for config in [
        MultiVectorConfig::Exact(ExactConfig { precision: Precision::F32 }),
        MultiVectorConfig::Exact(ExactConfig { precision: Precision::F16 }),
        MultiVectorConfig::Compressed(ResidualConfig { bits: 2, ..ResidualConfig::default() }),
    ] {
        let index = build_multi_vector(&config, sets.view()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        index.save_with_ids(&path, Some(&ids)).unwrap();
        assert_eq!(kind(&path).unwrap(), IndexKind::MultiVector);
        assert_eq!(IdMap::open(&path).unwrap().unwrap().id(299), Some("p299"));
        assert!(matches!(open(&path), Err(Error::NotAnIndex { .. })));
        assert!(index.save_with_ids(&path, Some(&IdMap::new())).is_err());
        for on_disk in [false, true] {
            let mut opened = open_multi_vector(&path, &OpenOptions { on_disk, verify: true }).unwrap();
            assert_eq!(opened.config(), config);
            assert_eq!((opened.len(), opened.dim(), opened.tokens()), (300, DIM, index.tokens()));
            assert_eq!(
                opened.search(queries.view(), &params).unwrap(),
                index.search(queries.view(), &params).unwrap()
            );
            assert_eq!(opened.passage(299).unwrap(), index.passage(299).unwrap());
            // Saving over the very file that is being read from.
            opened.save(&path).unwrap();
            assert_eq!(opened.passage(299).unwrap(), index.passage(299).unwrap());
            assert_eq!(matches!(opened.add(sets.view()), Err(Error::ReadOnly { .. })), on_disk);
        }
    }
}

#[test]
fn damaged_files_are_errors() {
    let sets = Sets::new(60, 1..10, 1);
    for config in [MultiVectorConfig::default(), MultiVectorConfig::Exact(ExactConfig::default())] {
        let dir = tempfile::tempdir().unwrap();
        build_multi_vector(&config, sets.view()).unwrap().save(dir.path()).unwrap();
        for entry in fs_err::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("index.json") {
                continue;
            }
            let good = fs_err::read(&path).unwrap();
            let mut flipped = good.clone();
            let middle = flipped.len() / 2;
            flipped[middle] ^= 0x41;
            for bad in [&flipped[..], &good[..good.len() - 1], &[]] {
                fs_err::write(&path, bad).unwrap();
                let opened = open_multi_vector(dir.path(), &OpenOptions::default());
                assert!(opened.is_err(), "{}", path.display());
            }
            fs_err::write(&path, &good).unwrap();
        }
        // Numbers in the manifest that do not fit the files.
        let path = dir.path().join("index.json");
        let good = crate::manifest::without_sum(dir.path());
        for (key, value) in
            [("dim", "0"), ("dim", "33"), ("tokens", "7"), ("count", "61"), ("tokens", "4611686018427387904")]
        {
            let mut manifest: serde_json::Value = serde_json::from_str(&good).unwrap();
            manifest[key] = value.parse().unwrap();
            fs_err::write(&path, manifest.to_string()).unwrap();
            assert!(open_multi_vector(dir.path(), &OpenOptions::default()).is_err(), "{key} {value}");
        }
        fs_err::write(&path, good).unwrap();
        open_multi_vector(dir.path(), &OpenOptions::default()).unwrap();
    }
}

#[test]
fn odd_input() {
    let one = Sets {
        data: {
            let mut row = vec![0.0; DIM];
            row[3] = 1.0;
            row
        },
        offsets: vec![0, 0, 1, 1],
    };
    let query = one.part(1, 2);
    for mut index in
        [Box::new(exact(&one, Precision::F32)) as Box<dyn MultiVectorIndex>, Box::new(compressed(&one, 4))]
    {
        assert_eq!((index.len(), index.live(), index.tokens()), (3, 1, 1));
        let hits = index.search(query.view(), &MultiSearchParams::top(50)).unwrap();
        assert_eq!(hits, [vec![Hit { id: 1, score: 1.0 }]]);
        assert!(index.search(query.view(), &MultiSearchParams::top(0)).unwrap()[0].is_empty());
        let none = MultiVectors::new(&[], &[0, 0], DIM).unwrap();
        assert!(index.search(none, &MultiSearchParams::top(5)).unwrap()[0].is_empty());
        assert_eq!(index.score(query.view().set(0), &[0, 1]).unwrap(), [f32::NEG_INFINITY, 1.0]);
        assert!(index.score(query.view().set(0), &[3]).is_err());
        assert!(index.passage(0).unwrap().is_empty());

        let mut bad = query.data.clone();
        bad[5] = f32::NAN;
        let bad = MultiVectors::new(&bad, &[0, 1], DIM).unwrap();
        assert!(matches!(index.add(bad), Err(Error::NotFinite { row: 0, column: 5, .. })));
        assert!(matches!(index.search(bad, &MultiSearchParams::top(5)), Err(Error::NotFinite { .. })));
        let narrow = MultiVectors::new(&[1.0, 0.0], &[0, 1], 2).unwrap();
        assert!(matches!(index.add(narrow), Err(Error::Dimension { expected: DIM, got: 2 })));
        assert!(matches!(index.search(narrow, &MultiSearchParams::top(5)), Err(Error::Dimension { .. })));
        assert_eq!(index.len(), 3);
        index.remove(&[1]).unwrap();
        assert!(index.search(query.view(), &MultiSearchParams::top(5)).unwrap()[0].is_empty());
    }
    let config = ResidualConfig::default();
    let empty = MultiVectors::new(&[], &[0, 0], DIM).unwrap();
    assert!(matches!(CompressedMultiVectorIndex::build(&config, empty), Err(Error::NoTokens)));
    let long: Vec<f32> = query.data.iter().map(|x| x * 2.0).collect();
    let long = MultiVectors::new(&long, &[0, 1], DIM).unwrap();
    assert!(matches!(CompressedMultiVectorIndex::build(&config, long), Err(Error::NotUnit { row: 0, .. })));
    assert!(exact(&one, Precision::F32).add(long).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With every passage scored in full, the compressed index is exact MaxSim over what it decodes to.
    #[test]
    fn scored_in_full_is_maxsim_of_what_is_stored(seed in 0u64..1000, bits in prop::sample::select(vec![1u8, 2, 4, 8])) {
        let sets = Sets::new(40, 0..12, seed);
        prop_assume!(!sets.data.is_empty());
        let queries = Sets::new(3, 1..40, seed + 1);
        let index = compressed(&sets, bits);
        let found = index.search(queries.view(), &MultiSearchParams::top(40)).unwrap();
        for (query, hits) in queries.view().sets().zip(found) {
            prop_assert_eq!(hits.len(), index.live());
            for hit in hits {
                let passage = index.passage(hit.id).unwrap();
                let exact = maxsim(query, Vectors::new(&passage, DIM).unwrap());
                prop_assert!((exact - f64::from(hit.score)).abs() < 1e-4);
            }
        }
    }
}
