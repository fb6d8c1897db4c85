//! Laws that hold for every ranking.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ragduet_metrics::{EvalOptions, Measure, MissingQueries, Qrels, Run, evaluate, evaluate_with};

const MEASURES: [&str; 10] =
    ["ndcg@3", "ndcg@10", "recall@5", "precision@5", "hit@2", "mrr", "mrr@3", "map", "map@5", "r_precision"];

fn measures() -> Vec<Measure> {
    MEASURES.iter().map(|name| name.parse().unwrap()).collect()
}

fn qrels_of(grades: &[(String, i32)]) -> Qrels {
    let mut qrels = Qrels::new();
    for (doc, grade) in grades {
        qrels.insert("q", doc, *grade).unwrap();
    }
    qrels
}

fn run_of(docs: Vec<(String, f32)>) -> Run {
    let mut run = Run::new();
    run.insert("q", docs).unwrap();
    run
}

type Docs = Vec<(String, f32)>;

/// Judgements, a ranking with many ties, and the ranking's lines in another order.
fn case() -> impl Strategy<Value = (Vec<(String, i32)>, Docs, Docs)> {
    let grades = btree_map("[a-h][0-3]", -1..4i32, 1..20);
    let docs = btree_map("[a-h][0-3]", (0..5i32).prop_map(|s| s as f32 / 2.0), 0..25);
    (grades, docs).prop_flat_map(|(grades, docs)| {
        let docs: Vec<_> = docs.into_iter().collect();
        (Just(grades.into_iter().collect()), Just(docs.clone()), Just(docs).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn values_lie_between_0_and_1((grades, docs, _) in case()) {
        let report = evaluate(&qrels_of(&grades), &run_of(docs), &measures());
        for (measure, value) in report.mean.iter() {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&value), "{measure} {value}");
        }
    }

    #[test]
    fn the_order_of_input_means_nothing((grades, docs, shuffled) in case()) {
        let qrels = qrels_of(&grades);
        prop_assert_eq!(
            evaluate(&qrels, &run_of(docs), &measures()),
            evaluate(&qrels, &run_of(shuffled), &measures())
        );
    }

    #[test]
    fn the_ideal_order_earns_everything(grades in btree_map("[a-h][0-3]", 0..4i32, 1..20)) {
        let grades: Vec<_> = grades.into_iter().collect();
        let docs = grades.iter().map(|(doc, grade)| (doc.clone(), *grade as f32)).collect();
        let report = evaluate(&qrels_of(&grades), &run_of(docs), &measures());
        let best = if grades.iter().any(|(_, grade)| *grade > 0) { 1.0 } else { 0.0 };
        for name in ["ndcg@3", "ndcg@10", "hit@2", "mrr", "map", "r_precision"] {
            prop_assert!((report.mean(name.parse().unwrap()).unwrap() - best).abs() < 1e-12, "{}", name);
        }
    }

    #[test]
    fn missing_queries_count_as_zero(scores in vec(0..5i32, 1..6)) {
        let mut qrels = Qrels::new();
        let mut run = Run::new();
        for (i, score) in scores.iter().enumerate() {
            qrels.insert(format!("q{i}"), "d", 1).unwrap();
            if *score > 0 {
                run.insert(format!("q{i}"), vec![("d".to_owned(), *score as f32)]).unwrap();
            }
        }
        run.insert("unjudged", vec![]).unwrap();
        let mrr = Measure::Mrr { k: None };
        let answered = run.len() - 1;
        let report = evaluate(&qrels, &run, &[mrr]);
        prop_assert_eq!(report.missing_queries, scores.len() - answered);
        prop_assert_eq!(report.unjudged_queries, 1);
        prop_assert!((report.mean(mrr).unwrap() - answered as f64 / scores.len() as f64).abs() < 1e-12);
        prop_assert_eq!(report.mean_trec.get(mrr).unwrap(), if answered > 0 { 1.0 } else { 0.0 });
        prop_assert_eq!(report.column(mrr).unwrap().len(), scores.len());

        let skipped = evaluate_with(
            &qrels, &run, &[mrr], &EvalOptions { missing: MissingQueries::Skip, ..Default::default() }
        );
        prop_assert_eq!(&skipped.mean, &report.mean_trec);
        prop_assert_eq!(skipped.per_query.len(), answered);
    }
}

#[test]
fn reports_serialise_by_name() {
    let qrels = qrels_of(&[("a".to_owned(), 1)]);
    let measures: Vec<Measure> =
        ["mrr@10", "recall@5", "mrr@10"].iter().map(|m| m.parse().unwrap()).collect();
    let report = evaluate(&qrels, &run_of(vec![("a".to_owned(), 1.0)]), &measures);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["mean"], serde_json::json!({ "mrr@10": 1.0, "recall@5": 1.0 }));
    assert_eq!(json["per_query"]["q"]["mrr@10"], 1.0);
    assert_eq!(report.mean("map".parse().unwrap()), None);
}
