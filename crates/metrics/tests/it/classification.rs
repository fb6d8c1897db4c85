//! Classification figures against scikit-learn, correlations against scipy.

use ragduet_metrics::Error;
use ragduet_metrics::classification::{ClassScores, classification, multi_label, regression};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    classes: Vec<Classes>,
    numbers: Vec<Numbers>,
    sets: Vec<Sets>,
}

#[derive(Deserialize)]
struct Sets {
    gold: Vec<Vec<u8>>,
    predicted: Vec<Vec<u8>>,
    zero_division: f64,
    accuracy: f64,
    each: [Vec<f64>; 3],
    #[serde(rename = "macro")]
    macro_average: [f64; 3],
    micro: [f64; 3],
    weighted: [f64; 3],
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
    serde_json::from_str(include_str!("../golden/classification.json")).unwrap()
}

fn close(got: f64, want: f64) -> bool {
    (got - want).abs() < 1e-9 * (1.0 + want.abs())
}

fn same(got: &ClassScores, want: [f64; 3], case: usize) {
    assert!(close(got.precision, want[0]), "case {case}: {got:?} {want:?}");
    assert!(close(got.recall, want[1]), "case {case}: {got:?} {want:?}");
    assert!(close(got.f1, want[2]), "case {case}: {got:?} {want:?}");
}

#[test]
fn sets_equal_to_scikit_learn() {
    let flags = |rows: &[Vec<u8>]| -> Vec<Vec<bool>> {
        rows.iter().map(|r| r.iter().map(|f| *f == 1).collect()).collect()
    };
    for (i, case) in golden().sets.iter().enumerate() {
        let got = multi_label(&flags(&case.gold), &flags(&case.predicted), case.zero_division).unwrap();
        assert!(close(got.subset_accuracy, case.accuracy));
        for (class, scores) in got.classes.iter().enumerate() {
            same(scores, [case.each[0][class], case.each[1][class], case.each[2][class]], i);
        }
        same(&got.macro_average, case.macro_average, i);
        same(&got.micro_average, case.micro, i);
        same(&got.weighted_average, case.weighted, i);
    }
    assert!(multi_label(&[vec![true]], &[vec![true, false]], 0.0).is_err());
}

#[test]
fn equal_to_scikit_learn() {
    for (i, case) in golden().classes.iter().enumerate() {
        let got = classification(&case.gold, &case.predicted, case.classes, case.zero_division).unwrap();
        assert!(close(got.accuracy, case.accuracy));
        assert_eq!(got.confusion, case.confusion);
        let same = |got: &ClassScores, want: [f64; 3]| same(got, want, i);
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
fn large_numbers_correlate() {
    let r = regression(&[1e308, -1e308, 0.0, 1.5e308], &[1.0, -1.0, 0.0, 1.5]).unwrap();
    assert!(close(r.pearson.unwrap(), 1.0), "{r:?}");
}

#[test]
fn bad_input_is_refused() {
    assert!(matches!(classification(&[], &[], 2, 0.0), Err(Error::NoExamples)));
    assert!(matches!(classification(&[0], &[], 2, 0.0), Err(Error::Lengths { a: 1, b: 0, .. })));
    assert!(matches!(classification(&[2], &[0], 2, 0.0), Err(Error::BadSetting { .. })));
    assert!(matches!(regression(&[1.0], &[f64::NAN]), Err(Error::BadSetting { .. })));
}
