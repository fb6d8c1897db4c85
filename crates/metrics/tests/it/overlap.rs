//! ROUGE against rouge-score, BLEU and chrF against sacrebleu, stems against nltk.

use std::collections::BTreeMap;

use ragduet_metrics::rouge::{Prf, Rouge};
use ragduet_metrics::{Error, Example, bleu, chrf, porter, rouge};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    example: Example,
    plain: [[f64; 3]; 4],
    stemmed: [[f64; 3]; 4],
    bleu: f64,
    precisions: [f64; 4],
    bp: f64,
    chrf: f64,
}

#[derive(Deserialize)]
struct Corpus {
    start: usize,
    end: usize,
    bleu: f64,
    hyp: usize,
    #[serde(rename = "ref")]
    reference: usize,
    chrf: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/overlap.json")).unwrap()
}

#[track_caller]
fn close(got: f64, want: f64, of: &str) {
    assert!((got - want).abs() < 1e-9 * (1.0 + want.abs()), "{got} for {want}: {of}");
}

#[test]
fn rouge_equals_rouge_score() {
    let golden = golden();
    let examples: Vec<Example> = golden.rows.iter().map(|row| row.example.clone()).collect();
    for stemmer in [false, true] {
        let scores = rouge::corpus(&examples, stemmer).unwrap();
        let mut f1 = 0.0;
        for (row, got) in golden.rows.iter().zip(&scores.each) {
            let want = if stemmer { &row.stemmed } else { &row.plain };
            let Rouge { rouge1, rouge2, rouge_l, rouge_lsum } = *got;
            for (Prf { precision, recall, f1 }, want) in
                [rouge1, rouge2, rouge_l, rouge_lsum].into_iter().zip(want)
            {
                let of = format!("{:?} {got:?} {want:?}", row.example);
                close(precision, want[0], &of);
                close(recall, want[1], &of);
                close(f1, want[2], &of);
            }
            f1 += want[3][2];
        }
        close(scores.mean.rouge_lsum.f1, f1 / examples.len() as f64, "mean");
    }
}

#[test]
fn bleu_and_chrf_equal_sacrebleu() {
    let golden = golden();
    for row in &golden.rows {
        let of = format!("{:?}", row.example);
        let got = bleu::score(&row.example.prediction, &row.example.references);
        close(got.score, row.bleu, &of);
        close(got.brevity_penalty, row.bp, &of);
        got.precisions.iter().zip(row.precisions).for_each(|(got, want)| close(*got, want, &of));
        close(chrf::score(&row.example.prediction, &row.example.references), row.chrf, &of);
    }
    for corpus in &golden.corpora {
        let examples: Vec<Example> =
            golden.rows[corpus.start..corpus.end].iter().map(|row| row.example.clone()).collect();
        let got = bleu::corpus(&examples).unwrap();
        let of = format!("{}..{}", corpus.start, corpus.end);
        assert_eq!((got.hypothesis_len, got.reference_len), (corpus.hyp, corpus.reference), "{of}");
        close(got.score, corpus.bleu, &of);
        close(chrf::corpus(&examples).unwrap(), corpus.chrf, &of);
    }
}

#[test]
fn stems_equal_nltks() {
    let stems: BTreeMap<String, String> = serde_json::from_str(include_str!("../golden/stems.json")).unwrap();
    for (word, stem) in stems {
        assert_eq!(porter::stem(&word), stem, "{word}");
    }
}

#[test]
fn an_example_without_reference_is_an_error() {
    let bare = [Example { prediction: "x".into(), references: vec![] }];
    assert!(matches!(bleu::corpus(&bare), Err(Error::NoReference { example: 0 })));
    assert!(matches!(chrf::corpus(&bare), Err(Error::NoReference { example: 0 })));
    assert!(matches!(rouge::corpus(&bare, true), Err(Error::NoReference { example: 0 })));
}
