//! The exact index against the plainest possible scan.

use crate::common::clustered;
use proptest::prelude::*;
use ragduet_index::{
    ExactConfig, ExactIndex, Hit, IdFilter, OpenOptions, Precision, SearchParams, Similarity, VectorIndex,
    VectorIndexMut, Vectors,
};

fn plain(data: &[f32], query: &[f32], cosine: bool) -> Vec<(u32, f64)> {
    let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    data.chunks(query.len())
        .enumerate()
        .map(|(id, row)| {
            let dot: f64 = row.iter().zip(query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (id as u32, if cosine { dot / length(row) / length(query) } else { dot })
        })
        .collect()
}

fn index(data: &[f32], dim: usize, similarity: Similarity, precision: Precision) -> ExactIndex {
    let mut index = ExactIndex::new(&ExactConfig { precision }, similarity, dim).unwrap();
    index.add(Vectors::new(data, dim).unwrap()).unwrap();
    index
}

fn check(found: &[Hit], scores: &[(u32, f64)], k: usize, tolerance: f64) {
    let mut sorted: Vec<f64> = scores.iter().map(|score| score.1).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(found.len(), k.min(sorted.len()));
    for (hit, want) in found.iter().zip(&sorted) {
        let own = scores.iter().find(|score| score.0 == hit.id).expect("only allowed rows come back").1;
        assert!((f64::from(hit.score) - own).abs() < tolerance && (own - want).abs() < tolerance);
    }
    assert!(found.windows(2).all(|pair| {
        pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].id < pair[1].id)
    }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_a_plain_scan(
        rows in 1usize..700, queries in 1usize..150, dim in 1usize..40, k in 0usize..60, cosine: bool, half: bool,
        filter in 0..3,
    ) {
        let data: Vec<f32> = clustered(rows, dim, 5, 1).iter().map(|x| x * 3.0).collect();
        let queries = clustered(queries, dim, 5, 2);
        let similarity = if cosine { Similarity::Cosine } else { Similarity::Dot };
        let precision = if half { Precision::F16 } else { Precision::F32 };
        let index = index(&data, dim, similarity, precision);
        let some = (0..rows as u32).filter(|id| id % 3 == 1);
        let filter = match filter { 0 => None, 1 => Some(IdFilter::allow(some)), _ => Some(IdFilter::deny(some)) };
        let params = SearchParams { k, filter: filter.as_ref(), ef: None };
        let found = index.search(Vectors::new(&queries, dim).unwrap(), &params).unwrap();
        for (query, found) in queries.chunks(dim).zip(&found) {
            let mut scores = plain(&data, query, cosine);
            scores.retain(|(id, _)| filter.as_ref().is_none_or(|filter| filter.allows(*id)));
            check(found, &scores, k, if half { 1e-2 } else { 1e-5 });
        }
    }
}

#[test]
fn equal_scores_come_in_the_order_of_ids() {
    let data = [1.0f32, 0.0].repeat(1000);
    let index = index(&data, 2, Similarity::Cosine, Precision::F32);
    let hits = index.search(Vectors::new(&[1.0, 1.0], 2).unwrap(), &SearchParams::top(5)).unwrap();
    assert_eq!(hits[0].iter().map(|hit| hit.id).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_batch_and_a_disk_change_nothing() {
    let dim = 24;
    let (data, queries) = (clustered(5000, dim, 20, 1), clustered(300, dim, 20, 2));
    let queries = Vectors::new(&queries, dim).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for precision in [Precision::F32, Precision::F16] {
        let index = index(&data, dim, Similarity::Dot, precision);
        let params = SearchParams::top(17);
        let all = index.search(queries, &params).unwrap();
        for (query, hits) in queries.blocks(1).zip(&all) {
            assert_eq!(&index.search(query, &params).unwrap()[0], hits);
        }
        let path = dir.path().join("index");
        index.save(&path).unwrap();
        for on_disk in [false, true] {
            let mut opened = ExactIndex::open(&path, &OpenOptions { on_disk, verify: true }).unwrap();
            assert_eq!(opened.search(queries, &params).unwrap(), all);
            assert_eq!(opened.row(4999).unwrap(), index.row(4999).unwrap());
            let deny = IdFilter::deny(all[0].iter().map(|hit| hit.id));
            let params = SearchParams { filter: Some(&deny), ..params };
            assert_eq!(opened.search(queries, &params).unwrap(), index.search(queries, &params).unwrap());
            assert_eq!(opened.add(queries).is_err(), on_disk);
        }
        // Saving over the very file that is being read from.
        let opened = ExactIndex::open(&path, &OpenOptions { on_disk: true, verify: false }).unwrap();
        opened.save(&path).unwrap();
        assert_eq!(opened.search(queries, &params).unwrap(), all);
        assert_eq!(ragduet_index::open(&path).unwrap().search(queries, &params).unwrap(), all);
    }
}

#[test]
fn empty_indexes_and_queries_have_no_hits() {
    let mut index = ExactIndex::new(&ExactConfig::default(), Similarity::Cosine, 3).unwrap();
    let query = Vectors::new(&[1.0, 0.0, 0.0], 3).unwrap();
    assert_eq!(index.search(query, &SearchParams::top(5)).unwrap(), [vec![]]);
    assert_eq!(index.add(query).unwrap(), 0..1);
    assert_eq!(index.add(query).unwrap(), 1..2);
    assert!(index.search(Vectors::new(&[], 3).unwrap(), &SearchParams::top(5)).unwrap().is_empty());
    assert_eq!(index.search(query, &SearchParams::top(5)).unwrap()[0].len(), 2);
    let none = IdFilter::allow([]);
    let params = SearchParams { k: 5, filter: Some(&none), ef: None };
    assert_eq!(index.search(query, &params).unwrap(), [vec![]]);
    let dir = tempfile::tempdir().unwrap();
    let empty = ExactIndex::new(&ExactConfig::default(), Similarity::Cosine, 3).unwrap();
    empty.save(dir.path()).unwrap();
    assert!(ragduet_index::open(dir.path()).unwrap().is_empty());
}
