//! Classification figures against scikit-learn, correlations against scipy.

use ragduet_metrics::Error;
use ragduet_metrics::classification::{ClassScores, classification, regression};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    classes: Vec<Classes>,
    numbers: Vec<Numbers>,
}

#[derive(Deserialize)]
struct Classes {
    gold: Vec<usize>,
    predicted: Vec<usize>,
    classes: usize,
    zero_division: f64,
    accuracy: f64,
    each: [Vec<f64>; 3],
    #[serde(rename = "macro")]
    macro_average: [f64; 3],
    micro: [f64; 3],
    weighted: [f64; 3],
    confusion: Vec<Vec<usize>>,
}

#[derive(Deserialize)]
struct Numbers {
    gold: Vec<f64>,
    predicted: Vec<f64>,
    mse: f64,
    mae: f64,
    pearson: Option<f64>,
    spearman: Option<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/classification.json")).unwrap()
}

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() < 1e-9 * (1.0 + want.abs())
}

#[test]
fn equal_to_scikit_learn() {
    for (i, case) in golden().classes.iter().enumerate() {
        let got = classification(&case.gold, &case.predicted, case.classes, case.zero_division).unwrap();
        assert!(close(got.accuracy, case.accuracy));
        assert_eq!(got.confusion, case.confusion);
        let same = |got: &ClassScores, want: [f64; 3]| {
            assert!(close(got.precision, want[0]), "case {i}: {got:?} {want:?}");
            assert!(close(got.recall, want[1]), "case {i}: {got:?} {want:?}");
            assert!(close(got.f1, want[2]), "case {i}: {got:?} {want:?}");
        };
        for (class, scores) in got.classes.iter().enumerate() {
            same(scores, [case.each[0][class], case.each[1][class], case.each[2][class]]);
        }
        same(&got.macro_average, case.macro_average);
        same(&got.micro_average, case.micro);
        same(&got.weighted_average, case.weighted);
    }
}

#[test]
fn equal_to_scipy() {
    for (i, case) in golden().numbers.iter().enumerate() {
        let got = regression(&case.gold, &case.predicted).unwrap();
        assert!(close(got.mse, case.mse) && close(got.mae, case.mae), "case {i}");
        for (got, want) in [(got.pearson, case.pearson), (got.spearman, case.spearman)] {
            match (got, want) {
                (Some(got), Some(want)) => assert!(close(got, want), "case {i}: {got} {want}"),
                (got, want) => assert_eq!(got, want, "case {i}"),
            }
        }
    }
}

#[test]
fn bad_input_is_refused() {
    assert!(matches!(classification(&[], &[], 2, 0.0), Err(Error::NoExamples)));
    assert!(matches!(classification(&[0], &[], 2, 0.0), Err(Error::Lengths { a: 1, b: 0, .. })));
    assert!(matches!(classification(&[2], &[0], 2, 0.0), Err(Error::BadSetting { .. })));
    assert!(matches!(regression(&[1.0], &[f64::NAN]), Err(Error::BadSetting { .. })));
}
