//! Equal to trec_eval: every case of `golden/retrieval.json`, which `golden/make_retrieval.py` made.

use std::collections::BTreeMap;

use ragduet_metrics::{EvalOptions, Measure, MissingQueries, Qrels, Run, evaluate_with};

#[derive(serde::Deserialize)]
struct Case {
    qrels: BTreeMap<String, BTreeMap<String, i32>>,
    run: BTreeMap<String, BTreeMap<String, f64>>,
    level: i32,
    want: BTreeMap<String, BTreeMap<Measure, f64>>,
}

#[test]
fn equals_pytrec_eval() {
    let text = include_str!("../golden/retrieval.json");
    let cases: Vec<Case> = serde_json::from_str(text).expect("the golden file is well formed");
    assert!(cases.len() > 20);
    let mut compared = 0;
    for (number, case) in cases.iter().enumerate() {
        let mut qrels = Qrels::new();
        for (query, docs) in &case.qrels {
            for (doc, grade) in docs {
                qrels.insert(query, doc, *grade).expect("no grade contradicts another");
            }
        }
        let mut run = Run::new();
        for (query, docs) in &case.run {
            let docs = docs.iter().map(|(doc, score)| (doc.clone(), *score as f32)).collect();
            run.insert(query, docs).expect("no document comes twice");
        }
        let measures: Vec<Measure> =
            case.want.values().next().expect("a case has queries").keys().copied().collect();
        let options = EvalOptions { missing: MissingQueries::Skip, relevance_level: case.level };
        let got = evaluate_with(&qrels, &run, &measures, &options);

        assert!(got.per_query.keys().eq(case.want.keys()), "case {number}: other queries");
        for (query, want) in &case.want {
            for (&measure, &want) in want {
                let got = got.per_query[query].get(measure).expect("every measure is computed");
                assert!(
                    (got - want).abs() < 1e-6,
                    "case {number} query {query} {measure}: {got}, not {want}"
                );
                compared += 1;
            }
        }
        for &measure in &measures {
            let want = case.want.values().map(|w| w[&measure]).sum::<f64>() / case.want.len() as f64;
            let (mean, trec) = (got.mean.get(measure).unwrap(), got.mean_trec.get(measure).unwrap());
            assert!(
                (mean - want).abs() < 1e-6 && (trec - want).abs() < 1e-6,
                "case {number} mean of {measure}"
            );
        }
    }
    assert!(compared > 3_000, "{compared}");
}
