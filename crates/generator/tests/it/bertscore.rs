//! BERTScore against bert-score over a tiny BERT (`golden/make_bertscore.py`).

use ragduet_generator::bertscore::BertScorer;
use ragduet_metrics::Example;
use ragduet_testkit::alone;
use ragduet_torch::{Compute, Device};
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    predictions: Vec<String>,
    references: Vec<Vec<String>>,
    scores: Vec<Scores>,
}

#[derive(Deserialize)]
struct Scores {
    layer: usize,
    idf: bool,
    prf: Vec<[f64; 3]>,
}

#[test]
fn equal_to_bert_score() {
    let _alone = alone();
    let golden: Golden = serde_json::from_str(include_str!("../golden/bertscore.json")).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bertscore");
    let examples: Vec<Example> = golden
        .predictions
        .into_iter()
        .zip(golden.references)
        .map(|(prediction, references)| Example { prediction, references })
        .collect();
    for want in golden.scores {
        let scorer = BertScorer::load(&dir, Some(want.layer), Device::Cpu, Compute::F32).unwrap();
        let got = scorer.score(&examples, want.idf).unwrap();
        for (i, (g, w)) in got.iter().zip(&want.prf).enumerate() {
            for (g, w) in [g.precision, g.recall, g.f1].iter().zip(w) {
                assert!((g - w).abs() < 1e-5, "layer {} idf {} text {i}: {got:?} {w}", want.layer, want.idf);
            }
        }
    }
    let last = BertScorer::load(&dir, None, Device::Cpu, Compute::F32).unwrap();
    let same = last.score(&examples[..1], false).unwrap()[0].f1;
    assert!((same - 1.0).abs() < 1e-6, "a text is like itself: {same}");
    assert!(
        BertScorer::load(&dir, Some(4), Device::Cpu, Compute::F32)
            .unwrap_err()
            .to_string()
            .contains("layer 4")
    );
}
