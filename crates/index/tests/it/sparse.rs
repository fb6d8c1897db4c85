//! A sparse index finds what the dense product finds.

use ragduet_index::{
    Error, IdFilter, IdMap, IndexKind, LexicalIndex, SearchParams, SparseIndex, SparseVectors, kind,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 300;

fn random(rng: &mut ChaCha8Rng, texts: usize, active: usize) -> (SparseVectors, Vec<Vec<f32>>) {
    let mut sparse = SparseVectors::new(DIM);
    let mut dense = Vec::new();
    for _ in 0..texts {
        let mut row = vec![0.0; DIM];
        for _ in 0..rng.random_range(0..=active) {
            // Low numbers often, as common words.
            let word = (DIM as f64 * rng.random::<f64>().powi(3)) as usize;
            row[word] = rng.random_range(0.01..2.5);
        }
        sparse.push_dense(&row).unwrap();
        dense.push(row);
    }
    (sparse, dense)
}

#[test]
fn hits_are_those_of_the_dense_product_also_over_several_windows_and_without_what_was_removed() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (texts, dense) = random(&mut rng, 9000, 40);
    let (queries, asked) = random(&mut rng, 60, 12);
    let mut index = SparseIndex::new(DIM);
    index.add(&texts).unwrap();
    let removed: Vec<u32> = (0..9000).step_by(7).collect();
    index.remove(&removed).unwrap();
    assert_eq!((index.len(), index.live()), (9000, 9000 - removed.len()));
    let filter = IdFilter::deny([1, 2, 3]);
    for (params, hidden) in [
        (SearchParams::top(20), &[][..]),
        (SearchParams { filter: Some(&filter), ..SearchParams::top(20) }, &[1, 2, 3][..]),
    ] {
        for (q, hits) in index.search(&queries, &params).unwrap().iter().enumerate() {
            let mut want: Vec<(f64, usize)> = (0..dense.len())
                .filter(|id| id % 7 != 0 && !hidden.contains(id))
                .map(|id| {
                    let score = asked[q].iter().zip(&dense[id]).map(|(a, b)| f64::from(a * b)).sum();
                    (score, id)
                })
                .filter(|(score, _)| *score > 0.0)
                .collect();
            want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            want.truncate(20);
            assert_eq!(hits.len(), want.len(), "query {q}");
            for (hit, (score, _)) in hits.iter().zip(&want) {
                assert!((f64::from(hit.score) - score).abs() < 1e-4 * score, "query {q}: {hit:?}, {score}");
                let own: f64 =
                    asked[q].iter().zip(&dense[hit.id as usize]).map(|(a, b)| f64::from(a * b)).sum();
                assert!((f64::from(hit.score) - own).abs() < 1e-4 * own, "query {q}: {hit:?} has {own}");
            }
        }
    }
}

#[test]
fn a_saved_index_finds_the_same_and_knows_what_it_is() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (texts, _) = random(&mut rng, 500, 20);
    let (queries, _) = random(&mut rng, 20, 8);
    let mut index = SparseIndex::new(DIM);
    index.add(&texts).unwrap();
    index.remove(&[3, 4]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse.idx");
    let ids = IdMap::from_ids((0..500).map(|i| format!("p{i}"))).unwrap();
    index.save_with_ids(&path, Some(&ids)).unwrap();
    assert_eq!(kind(&path).unwrap(), IndexKind::Sparse);
    let again = SparseIndex::open(&path).unwrap();
    assert_eq!((again.len(), again.live(), again.dim()), (500, 498, DIM));
    assert_eq!(IdMap::open(&path).unwrap().unwrap().id(7), Some("p7"));
    let params = SearchParams::top(10);
    assert_eq!(again.search(&queries, &params).unwrap(), index.search(&queries, &params).unwrap());

    let mut bytes = std::fs::read(path.join("weights.bin")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path.join("weights.bin"), bytes).unwrap();
    assert!(matches!(SparseIndex::open(&path), Err(Error::Corrupt { .. })));
    let words = dir.path().join("words.idx");
    let mut other = LexicalIndex::new(&Default::default()).unwrap();
    other.add(&["a cat"]).unwrap();
    other.save(&words).unwrap();
    assert!(SparseIndex::open(&words).is_err());
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut index = SparseIndex::new(DIM);
    assert!(matches!(index.add(&SparseVectors::new(7)), Err(Error::Dimension { .. })));
    assert!(matches!(
        index.search(&SparseVectors::new(7), &SearchParams::top(1)),
        Err(Error::Dimension { .. })
    ));
    assert!(matches!(index.remove(&[0]), Err(Error::NoSuchRow { .. })));
    let mut query = SparseVectors::new(DIM);
    query.push([(1, 1.0)]).unwrap();
    assert!(index.search(&query, &SearchParams::top(5)).unwrap()[0].is_empty());
}
