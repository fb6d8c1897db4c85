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

/// Files as those in trec_eval's own folder of tests have them: comments at the top, in the middle and beside ids with
/// `#`, tabs and runs of spaces, ranks that say nothing, junk behind the run's name, queries of one file alone. The values
/// are those that trec_eval 10 prints for them.
#[test]
fn files_as_trec_eval_takes_them_come_to_what_it_prints() {
    let qrels = "# judged by two\nq1 0 d1 1\nq1 0 d#2 0\n# the middle\nq1\t0\td3\t2\nq2 0 d1 -1\nq2 0   d4 1\nq3 0 d1 1\n\
                 q4 0 d9 0\n";
    let run = "q2 Q0 d4 9 0.5 run\nq1\tQ0\td1\t104\t  2.129133\tSTANDARD more junk at\nq1 Q0 d#2 7 2.129133 run\n\
               # not a query\nq1 Q0 d3 1 1.5 run\nq2 Q0 d1 1 1e0 run reserved for\nq2 Q0 d7 1 -3 run\n\
               q4 Q0 d9 1 1 run\nq5 Q0 d1 1 1 run\n";
    let dir = tempfile::tempdir().unwrap();
    let (qrels_file, run_file) = (dir.path().join("qrels.test"), dir.path().join("results.test"));
    std::fs::write(&qrels_file, qrels).unwrap();
    std::fs::write(&run_file, run).unwrap();
    let (qrels, run) = (Qrels::read(&qrels_file).unwrap(), Run::read_trec(&run_file).unwrap());
    assert_eq!((qrels.len(), qrels.judgements(), run.len()), (4, 7, 4));
    assert_eq!((qrels.grade("q1", "d#2"), qrels.grade("q2", "d1")), (Some(0), Some(-1)));
    let names = ["map", "mrr", "precision@1", "precision@2", "recall@2", "ndcg@2"];
    let measures: Vec<Measure> = names.iter().map(|name| name.parse().unwrap()).collect();
    let options = EvalOptions { missing: MissingQueries::Skip, relevance_level: 1 };
    let got = evaluate_with(&qrels, &run, &measures, &options);
    for (query, want) in
        [("q1", [0.8333, 1.0, 1.0, 0.5, 0.5, 0.3801]), ("q2", [0.5, 0.5, 0.0, 0.5, 1.0, 0.6309])]
    {
        for (&measure, want) in measures.iter().zip(want) {
            let got = got.per_query[query].get(measure).unwrap();
            assert!((got - want).abs() < 1e-4, "{query} {measure}: {got}, not {want}");
        }
    }
    // `-c`: queries that the run lacks count as 0.
    let options = EvalOptions { missing: MissingQueries::CountAsZero, relevance_level: 1 };
    let mean = evaluate_with(&qrels, &run, &measures, &options).mean;
    assert!((mean.get(measures[0]).unwrap() - 0.3333).abs() < 1e-4, "{mean:?}");
}
