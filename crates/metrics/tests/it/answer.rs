//! Exact match and token F1 against SQuAD's script.

use ragduet_metrics::{Error, Example, answer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    example: Example,
    normalised: String,
    exact: f64,
    f1: f64,
}

#[test]
fn equal_to_squads_script() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("../golden/squad.json")).unwrap();
    let examples: Vec<Example> = rows.iter().map(|row| row.example.clone()).collect();
    let scores = answer::corpus(&examples).unwrap();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(answer::normalise(&row.example.prediction), row.normalised, "{:?}", row.example);
        assert_eq!(scores.exact_each[i], row.exact, "{:?}", row.example);
        assert!((scores.f1_each[i] - row.f1).abs() < 1e-9, "{:?}", row.example);
    }
    let mean = rows.iter().map(|row| row.f1).sum::<f64>() / rows.len() as f64;
    assert!((scores.f1 - mean).abs() < 1e-9);
    assert!(matches!(answer::corpus(&[]), Err(Error::NoExamples)));
}
