//! BERTScore's matching and idf against bert-score, on given vectors.

use ragduet_metrics::Error;
use ragduet_metrics::bertscore::{self, Idf, Tokens, plain_weights};
use ragduet_metrics::rouge::Prf;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    dim: usize,
    special: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prediction: Vec<u32>,
    vectors: Vec<f32>,
    references: Vec<Reference>,
    plain: [f64; 3],
    idf: [f64; 3],
}

#[derive(Deserialize)]
struct Reference {
    ids: Vec<u32>,
    vectors: Vec<f32>,
}

#[test]
fn equal_to_bert_score() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/bertscore.json")).unwrap();
    let idf = Idf::new(golden.cases.iter().flat_map(|case| &case.references).map(|r| r.ids.as_slice()));
    for with_idf in [false, true] {
        let weigh =
            |ids: &[u32]| if with_idf { idf.weights(ids) } else { plain_weights(ids, &golden.special) };
        for (i, case) in golden.cases.iter().enumerate() {
            let weights: Vec<Vec<f64>> = case.references.iter().map(|r| weigh(&r.ids)).collect();
            let references: Vec<Tokens> = case
                .references
                .iter()
                .zip(&weights)
                .map(|(r, weights)| Tokens { vectors: &r.vectors, weights })
                .collect();
            let prediction = Tokens { vectors: &case.vectors, weights: &weigh(&case.prediction) };
            let got = bertscore::corpus(&[(prediction, references)], golden.dim).unwrap()[0];
            let want = if with_idf { case.idf } else { case.plain };
            for (got, want) in [got.precision, got.recall, got.f1].into_iter().zip(want) {
                assert!((got - want).abs() < 1e-9, "case {i}, idf {with_idf}: {got} for {want}");
            }
        }
    }
}

#[test]
fn rescaling_maps_the_baseline_to_zero() {
    let baseline = Prf { precision: 0.5, recall: 0.8, f1: 0.75 };
    assert_eq!(bertscore::rescale(baseline, baseline), Prf::default());
    let one = Prf { precision: 1.0, recall: 1.0, f1: 1.0 };
    assert_eq!(bertscore::rescale(one, baseline), one);
    assert_eq!(bertscore::rescale(Prf::default(), baseline).precision, -1.0);
}

#[test]
fn bad_input_is_refused() {
    let good = Tokens { vectors: &[1.0, 0.0], weights: &[1.0] };
    let score = |p, dim| bertscore::score(p, &[good], dim);
    assert!(matches!(score(Tokens { vectors: &[1.0], ..good }, 2), Err(Error::Lengths { a: 1, b: 2, .. })));
    assert!(matches!(score(good, 0), Err(Error::BadSetting { .. })));
    assert!(matches!(score(Tokens { vectors: &[f32::NAN, 0.0], ..good }, 2), Err(Error::BadSetting { .. })));
    assert!(matches!(score(Tokens { weights: &[-1.0], ..good }, 2), Err(Error::BadSetting { .. })));
    assert!(matches!(bertscore::corpus(&[], 2), Err(Error::NoExamples)));
    assert!(matches!(bertscore::corpus(&[(good, vec![])], 2), Err(Error::NoReference { example: 0 })));
}
