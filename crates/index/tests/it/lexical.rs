//! The lexical index against the formulas of BM25 in f64, and against itself.

use std::collections::HashMap;

use proptest::prelude::*;
use ragduet_index::{
    Bm25Variant, Error, Hit, IdFilter, IdMap, LexicalConfig, LexicalIndex, SearchParams, kind,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const VARIANTS: [Bm25Variant; 5] = [
    Bm25Variant::Lucene,
    Bm25Variant::Robertson,
    Bm25Variant::Atire,
    Bm25Variant::Bm25l,
    Bm25Variant::Bm25plus,
];

/// Texts of words whose frequencies fall as those of a language do.
fn texts(n: usize, words: usize, longest: usize, stream: u64) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    rng.set_stream(stream);
    let word =
        |rng: &mut ChaCha8Rng| format!("w{}", (words as f64).powf(rng.random_range(0.0..1.0)) as usize);
    (0..n)
        .map(|_| {
            let length = rng.random_range(0..=longest);
            (0..length).map(|_| word(&mut rng)).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn index(config: &LexicalConfig, texts: &[String]) -> LexicalIndex {
    let mut index = LexicalIndex::new(config).unwrap();
    index.add(texts).unwrap();
    index
}

/// Every text's score by the formulas as Kamphuis et al. print them, and whether it shares a term of some weight.
fn plain(config: &LexicalConfig, texts: &[String], query: &str) -> Vec<(f64, bool)> {
    let LexicalConfig { variant, k1, b, delta, .. } = *config;
    let counts: Vec<HashMap<&str, f64>> = texts
        .iter()
        .map(|text| {
            let mut counts = HashMap::new();
            text.split_whitespace().for_each(|word| *counts.entry(word).or_default() += 1.0);
            counts
        })
        .collect();
    let lengths: Vec<f64> = counts.iter().map(|counts| counts.values().sum()).collect();
    let n = texts.len() as f64;
    let mean = lengths.iter().sum::<f64>() / n;
    let mut scores = vec![(0.0, false); texts.len()];
    for word in query.split_whitespace() {
        let df = counts.iter().filter(|counts| counts.contains_key(word)).count() as f64;
        if df == 0.0 {
            continue;
        }
        let idf = match variant {
            Bm25Variant::Lucene => (1.0 + (n - df + 0.5) / (df + 0.5)).ln(),
            Bm25Variant::Robertson => f64::max(1.0, (n - df + 0.5) / (df + 0.5)).ln(),
            Bm25Variant::Atire => (n / df).ln(),
            Bm25Variant::Bm25l => ((n + 1.0) / (df + 0.5)).ln(),
            Bm25Variant::Bm25plus => ((n + 1.0) / df).ln(),
        };
        for (id, counts) in counts.iter().enumerate() {
            let tf = counts.get(word).copied().unwrap_or(0.0);
            let norm = if lengths[id] > 0.0 { 1.0 - b + b * lengths[id] / mean } else { 1.0 };
            let part = match variant {
                Bm25Variant::Lucene | Bm25Variant::Robertson => tf / (k1 * norm + tf),
                Bm25Variant::Atire => (k1 + 1.0) * tf / (k1 * norm + tf),
                Bm25Variant::Bm25l => (k1 + 1.0) * (tf / norm + delta) / (k1 + tf / norm + delta),
                Bm25Variant::Bm25plus => (k1 + 1.0) * tf / (k1 * norm + tf) + delta,
            };
            scores[id].0 += idf * part;
            scores[id].1 |= tf > 0.0 && idf > 0.0;
        }
    }
    scores
}

fn check(hits: &[Hit], scores: &[(f64, bool)], k: usize, allowed: impl Fn(u32) -> bool) {
    let mut sorted: Vec<f64> =
        (0..).zip(scores).filter(|(id, score)| score.1 && allowed(*id)).map(|(_, score)| score.0).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(hits.len(), k.min(sorted.len()));
    for (hit, want) in hits.iter().zip(&sorted) {
        let (own, shares) = scores[hit.id as usize];
        assert!(shares && allowed(hit.id));
        let tolerance = 1e-6 * (1.0 + own);
        assert!((f64::from(hit.score) - own).abs() < tolerance && (own - want).abs() < tolerance);
    }
    assert!(hits.windows(2).all(|pair| {
        pair[0].score > pair[1].score || (pair[0].score == pair[1].score && pair[0].id < pair[1].id)
    }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn equals_the_formulas(
        n in 1usize..5000, words in 2usize..3000, longest in 1usize..30, k in 0usize..120, variant in 0usize..5,
        k1 in 0.01f64..3.0, b in 0.0f64..1.0, delta in 0.0f64..2.0, filter in 0..3, stream: u64,
    ) {
        let texts = texts(n, words, longest, stream % 1000);
        let config =
            LexicalConfig { variant: VARIANTS[variant], k1, b, delta, ..LexicalConfig::terms_as_they_are() };
        let index = index(&config, &texts);
        let mut queries = self::texts(6, words + 2, 12, 2000);
        queries.extend(texts.iter().take(2).cloned());
        let some = (0..n as u32).filter(|id| id % 3 == 1);
        let filter = match filter { 0 => None, 1 => Some(IdFilter::allow(some)), _ => Some(IdFilter::deny(some)) };
        let params = SearchParams { k, filter: filter.as_ref(), ef: None };
        for (query, hits) in queries.iter().zip(index.search(&queries, &params).unwrap()) {
            let allowed = |id| filter.as_ref().is_none_or(|filter| filter.allows(id));
            check(&hits, &plain(&config, &texts, query), k, allowed);
        }
    }

    /// What is not searched for and what is searched for beside it change no score.
    #[test]
    fn neither_k_nor_the_batch_changes_a_score(n in 1usize..5000, stream in 0u64..100, k in 1usize..50) {
        let texts = texts(n, 400, 20, stream);
        let index = index(&LexicalConfig::terms_as_they_are(), &texts);
        let queries = self::texts(5, 400, 15, 777);
        let all = index.search(&queries, &SearchParams::top(n)).unwrap();
        for (query, all) in queries.iter().zip(&all) {
            let few = &index.search(&[query], &SearchParams::top(k)).unwrap()[0];
            prop_assert_eq!(few, &all[..k.min(all.len())]);
        }
    }

    #[test]
    fn removed_equals_never_added(
        n in 1usize..3000, stream in 0u64..100, variant in 0usize..5, kept in 0u32..6, piece in 1usize..1500,
    ) {
        let texts = texts(n, 300, 12, stream);
        let config = LexicalConfig { variant: VARIANTS[variant], ..LexicalConfig::terms_as_they_are() };
        let keep = |id: u32| id.wrapping_mul(2_654_435_761) >> 16 & 7 > kept;
        let (kept, gone): (Vec<u32>, Vec<u32>) = (0..n as u32).partition(|&id| keep(id));
        let only = index(&config, &kept.iter().map(|&id| texts[id as usize].clone()).collect::<Vec<_>>());
        let mut index = LexicalIndex::new(&config).unwrap();
        let queries = self::texts(6, 300, 8, 888);
        for (at, piece) in texts.chunks(piece).enumerate() {
            let added = index.add(piece).unwrap();
            prop_assert_eq!(added.len(), piece.len());
            if at == 0 {
                index.search(&queries, &SearchParams::top(3)).unwrap();
            }
        }
        index.remove(&gone).unwrap();
        index.remove(&gone).unwrap();
        prop_assert_eq!((index.len(), index.live()), (n, kept.len()));
        let dir = tempfile::tempdir().unwrap();
        index.save(dir.path()).unwrap();
        let opened = LexicalIndex::open(dir.path()).unwrap();
        prop_assert_eq!((opened.len(), opened.live(), opened.config()), (n, kept.len(), &config));
        let params = SearchParams::top(40);
        let want: Vec<Vec<Hit>> = only
            .search(&queries, &params)
            .unwrap()
            .into_iter()
            .map(|hits| hits.into_iter().map(|hit| Hit { id: kept[hit.id as usize], ..hit }).collect())
            .collect();
        prop_assert_eq!(&index.search(&queries, &params).unwrap(), &want);
        prop_assert_eq!(&opened.search(&queries, &params).unwrap(), &want);
    }
}

#[test]
fn an_explanation_adds_up_to_the_score() {
    let texts = texts(500, 100, 20, 3);
    for variant in VARIANTS {
        let config = LexicalConfig { variant, ..LexicalConfig::terms_as_they_are() };
        let index = index(&config, &texts);
        let query = "w3 w40 w3 nowhere";
        for hit in &index.search(&[query], &SearchParams::top(20)).unwrap()[0] {
            let parts = index.explain(query, hit.id).unwrap();
            assert_eq!(parts.iter().map(|part| part.0.as_str()).collect::<Vec<_>>(), ["w3", "w40"]);
            let sum: f64 = parts.iter().map(|part| part.1).sum();
            assert!((sum - f64::from(hit.score)).abs() < 1e-6 * sum);
        }
    }
}

#[test]
fn what_has_nothing_in_common_does_not_come_back() {
    let mut index = LexicalIndex::new(&LexicalConfig::default()).unwrap();
    let top = SearchParams::top(5);
    assert_eq!(index.search(&["cat"], &top).unwrap(), [vec![]]);
    assert_eq!(index.add(&["The cats.", "", "the", "A dog"]).unwrap(), 0..4);
    assert_eq!(index.add(&["CAT\u{2019}s"]).unwrap(), 4..5);
    let ids = |hits: &[Vec<Hit>]| hits[0].iter().map(|hit| hit.id).collect::<Vec<_>>();
    assert_eq!(ids(&index.search(&["Is that the cat?"], &top).unwrap()), [0, 4]);
    assert_eq!(index.search(&["", "the", "horse"], &top).unwrap(), vec![vec![]; 3]);
    assert!(index.search::<&str>(&[], &top).unwrap().is_empty());
    assert!(index.search(&["cat"], &SearchParams::top(0)).unwrap()[0].is_empty());
    index.remove(&[0]).unwrap();
    assert_eq!(ids(&index.search(&["cat"], &top).unwrap()), [4]);
    assert!(matches!(index.remove(&[1, 5]), Err(Error::NoSuchRow { id: 5, len: 5 })));
    assert_eq!(index.live(), 4);
    index.remove(&[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(index.search(&["cat"], &top).unwrap(), [vec![]]);
}

#[test]
fn settings_without_meaning_are_refused() {
    for config in [
        LexicalConfig { k1: f64::NAN, ..LexicalConfig::default() },
        LexicalConfig { b: 1.5, ..LexicalConfig::default() },
        LexicalConfig { delta: -1.0, ..LexicalConfig::default() },
    ] {
        assert!(matches!(LexicalIndex::new(&config), Err(Error::BadConfig { .. })));
    }
    let config: LexicalConfig = serde_json::from_str(
        r#"{"stemmer": "german", "stopwords": {"list": ["und"]}, "variant": "bm25plus"}"#,
    )
    .unwrap();
    assert_eq!(config.terms("Häuser und Haus"), ["haus", "haus"]);
    assert!(serde_json::from_str::<LexicalConfig>(r#"{"k2": 1}"#).is_err());
}

#[test]
fn a_directory_is_whole_or_an_error() {
    let texts = texts(50, 40, 10, 1);
    let index = index(&LexicalConfig::terms_as_they_are(), &texts);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let ids = IdMap::from_ids((0..50).map(|id| format!("d{id}"))).unwrap();
    index.save_with_ids(&path, Some(&ids)).unwrap();
    assert_eq!(kind(&path).unwrap(), ragduet_index::IndexKind::Lexical);
    assert_eq!(IdMap::open(&path).unwrap().unwrap().id(49), Some("d49"));
    assert!(matches!(ragduet_index::open(&path), Err(Error::NotAnIndex { .. })));
    assert!(matches!(index.save_with_ids(&path, Some(&IdMap::new())), Err(Error::RowCount { .. })));
    LexicalIndex::open(&path).unwrap();
    for name in ["documents.bin", "terms.txt"] {
        let whole = std::fs::read(path.join(name)).unwrap();
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        std::fs::write(path.join(name), &damaged).unwrap();
        assert!(matches!(LexicalIndex::open(&path), Err(Error::Corrupt { .. })));
        std::fs::write(path.join(name), &whole[..30]).unwrap();
        assert!(matches!(LexicalIndex::open(&path), Err(Error::Corrupt { .. })));
        std::fs::write(path.join(name), &whole).unwrap();
    }
    let vectors = dir.path().join("vectors");
    ragduet_index::build(&Default::default(), Default::default(), 2).unwrap().save(&vectors).unwrap();
    assert!(LexicalIndex::open(&vectors).is_err());
}
