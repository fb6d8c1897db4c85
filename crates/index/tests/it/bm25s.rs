//! The lexical index against bm25s: see `golden/make_bm25.py`.

use std::path::PathBuf;

use ragduet_index::{Bm25Variant, LexicalConfig, LexicalIndex, SearchParams, Stemmer, Words};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    queries: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    variant: Bm25Variant,
    k1: f64,
    b: f64,
    delta: f64,
    /// Of each query the scores of all texts.
    scores: Vec<Vec<f32>>,
}

#[test]
fn scores_of_all_variants() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/bm25.json")).unwrap();
    let everything = SearchParams::top(golden.texts.len());
    for Case { variant, k1, b, delta, scores } in golden.cases {
        let config = LexicalConfig { variant, k1, b, delta, ..LexicalConfig::terms_as_they_are() };
        let mut index = LexicalIndex::new(&config).unwrap();
        index.add(&golden.texts).unwrap();
        let found = index.search(&golden.queries, &everything).unwrap();
        for ((hits, scores), query) in found.iter().zip(&scores).zip(&golden.queries) {
            for hit in hits {
                let want = scores[hit.id as usize];
                assert!(
                    (hit.score - want).abs() < 1e-5 * (1.0 + want),
                    "{variant:?} {query}: {hit:?} {want}"
                );
            }
            // To bm25s a text without a shared term has a score as well: 0, or what every text has.
            let found: Vec<u32> = hits.iter().map(|hit| hit.id).collect();
            let least = scores.iter().copied().fold(f32::MAX, f32::min);
            for (id, &score) in (0u32..).zip(scores) {
                assert!(found.contains(&id) || score <= least + 1e-6, "{variant:?} {query}: {id} {score}");
            }
            let mut ranking: Vec<u32> = found.clone();
            ranking.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
            assert_same_but_for_ties(&found, &ranking, |id| scores[id as usize], query);
        }
    }
}

/// Where two rankings differ, the scores are the same to within rounding.
fn assert_same_but_for_ties(found: &[u32], want: &[u32], score: impl Fn(u32) -> f32, query: &str) {
    assert_eq!(found.len(), want.len(), "{query}");
    for (&found, &want) in found.iter().zip(want) {
        let off = (score(found) - score(want)).abs();
        assert!(found == want || off < 1e-5, "{query}: {found} where bm25s has {want}, {off} apart");
    }
}

#[test]
fn the_best_passages_of_covid_qa() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = std::env::var_os("RAGDUET_DATA")
        .map_or_else(|| root.join("../shared/data"), PathBuf::from)
        .join("covid-qa");
    if !data.is_dir() {
        println!("skipped: no COVID-QA in {} (set RAGDUET_DATA)", data.display());
        return;
    }
    let rows = |name: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(data.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let string = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let passages: Vec<String> = rows("corpus.jsonl")
        .iter()
        .map(|row| format!("{} {}", string(row, "title"), string(row, "text")))
        .collect();
    let questions: Vec<String> = rows("queries.jsonl").iter().map(|row| string(row, "text")).collect();
    let golden: Vec<Vec<u32>> = serde_json::from_str(include_str!("../golden/bm25_covid_qa.json")).unwrap();
    assert_eq!(golden.len(), questions.len());

    // bm25s' own analysis: its pattern of words, its English stop words, PyStemmer.
    let config =
        LexicalConfig { words: Words::WordCharacters, stemmer: Stemmer::English, ..LexicalConfig::default() };
    let mut index = LexicalIndex::new(&config).unwrap();
    index.add(&passages).unwrap();
    let all = index.search(&questions, &SearchParams::top(passages.len())).unwrap();
    let ten = index.search(&questions, &SearchParams::top(10)).unwrap();
    for (((question, golden), hits), ten) in questions.iter().zip(&golden).zip(&all).zip(&ten) {
        assert_eq!(&hits[..10], ten);
        let score = |id: u32| hits.iter().find(|hit| hit.id == id).map_or(0.0, |hit| hit.score);
        assert_same_but_for_ties(&ten.iter().map(|hit| hit.id).collect::<Vec<_>>(), golden, score, question);
    }
}
