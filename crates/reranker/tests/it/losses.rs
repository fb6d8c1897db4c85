//! Losses over lists against sentence-transformers' (`golden/make_cross.py`), against their formulas where lists differ in
//! length, and by finite differences.

use ragduet_reranker::loss::{Candidates, RankingLossConfig};
use ragduet_testkit::check_gradient;
use ragduet_torch::{Kind, Tensor};
use serde_json::{Value, json};

type Rows = Vec<Vec<f64>>;

fn padded(rows: &Rows, fill: f64) -> Tensor {
    let width = rows.iter().map(Vec::len).max().unwrap();
    let flat: Vec<f32> =
        rows.iter().flat_map(|r| (0..width).map(move |i| r.get(i).copied().unwrap_or(fill) as f32)).collect();
    Tensor::from_slice(&flat).view([rows.len() as i64, width as i64])
}

fn real(rows: &Rows) -> Tensor {
    let marks: Rows = rows.iter().map(|r| vec![1.0; r.len()]).collect();
    padded(&marks, 0.0).ne(0.0)
}

fn rows(v: &Value) -> Rows {
    serde_json::from_value(v.clone()).unwrap()
}

fn config(v: &Value) -> RankingLossConfig {
    serde_json::from_value(v.clone()).unwrap()
}

fn value(config: &RankingLossConfig, scores: &Rows, labels: &Rows) -> f64 {
    // What stands where there is nothing does not matter.
    let (s, y, r) = (padded(scores, 7.0), padded(labels, 2.0), real(scores));
    let loss = config.build().unwrap().loss(&Candidates { scores: &s, labels: &y, real: &r });
    f64::try_from(loss.to_kind(Kind::Double)).unwrap()
}

#[test]
fn losses_and_gradients_are_those_of_sentence_transformers() {
    let all: Vec<Value> = serde_json::from_str(include_str!("../golden/losses.json")).unwrap();
    assert!(all.len() > 30);
    for case in &all {
        let (scores, labels, c) = (rows(&case["scores"]), rows(&case["labels"]), config(&case["config"]));
        let s = padded(&scores, 7.0).set_requires_grad(true);
        let (y, r) = (padded(&labels, 2.0), real(&scores));
        let loss = c.build().unwrap().loss(&Candidates { scores: &s, labels: &y, real: &r });
        let (have, want) =
            (f64::try_from(&loss.to_kind(Kind::Double)).unwrap(), case["loss"].as_f64().unwrap());
        assert!((have - want).abs() < 1e-5 * want.abs().max(1.0), "{}: {have} {want}", case["config"]);
        loss.backward();
        let grad = s.grad();
        let want: Vec<f64> = serde_json::from_value(case["grad"].clone()).unwrap();
        let size = want.iter().map(|g| g * g).sum::<f64>().sqrt().max(1e-3);
        let mut at = want.iter();
        for (i, row) in scores.iter().enumerate() {
            for j in 0..grad.size()[1] {
                let have = grad.double_value(&[i as i64, j]);
                let want = if (j as usize) < row.len() { *at.next().unwrap() } else { 0.0 };
                assert!((have - want).abs() < 1e-4 * size, "{}: {have} {want}", case["config"]);
            }
        }
    }
}

fn log_softmax(x: &[f64]) -> Vec<f64> {
    let top = x.iter().copied().fold(f64::MIN, f64::max);
    let all = x.iter().map(|v| (v - top).exp()).sum::<f64>().ln() + top;
    x.iter().map(|v| v - all).collect()
}

#[test]
fn lists_of_different_lengths_are_their_formulas() {
    let scores: Rows = vec![vec![0.3, -1.2, 2.0, 0.1], vec![1.5], vec![-0.4, 0.9]];
    let labels: Rows = vec![vec![2.0, 0.0, 1.0, 3.0], vec![1.0], vec![0.0, 1.0]];
    // Plackett-Luce in the order of the labels.
    let mut plain = 0.0;
    let mut weighted = 0.0;
    for (s, y) in scores.iter().zip(&labels) {
        let mut order: Vec<usize> = (0..s.len()).collect();
        order.sort_by(|&a, &b| y[b].total_cmp(&y[a]));
        let sorted: Vec<f64> = order.iter().map(|&i| s[i]).collect();
        let of: Vec<f64> = (0..sorted.len()).map(|i| log_softmax(&sorted[i..])[0]).collect();
        let weights: Vec<f64> = (0..s.len()).map(|i| 2f64.powi((s.len() - i) as i32) - 1.0).collect();
        let all: f64 = weights.iter().sum();
        plain -= of.iter().sum::<f64>() / 3.0;
        weighted -= of.iter().zip(&weights).map(|(l, w)| l * w / all).sum::<f64>() / 3.0;
    }
    let close = |c: Value, want: f64| {
        let have = value(&config(&c), &scores, &labels);
        assert!((have - want).abs() < 1e-5, "{c}: {have} {want}");
    };
    close(json!({"list_mle": {}}), plain);
    close(json!({"list_mle": {"position_weights": true}}), weighted);
    // Softmax towards the gains' shares.
    let mut softmax = 0.0;
    for (s, y) in scores.iter().zip(&labels) {
        let scaled: Vec<f64> = s.iter().map(|v| v / 0.5).collect();
        let all: f64 = y.iter().sum();
        softmax -= log_softmax(&scaled).iter().zip(y).map(|(l, g)| l * g / all).sum::<f64>() / 3.0;
    }
    close(json!({"softmax": {"temperature": 0.5}}), softmax);
    // A teacher's margins.
    let mut margins = Vec::new();
    for (s, t) in scores.iter().zip(&labels) {
        margins.extend((1..s.len()).map(|j| ((s[0] - s[j]) - (t[0] - t[j])).powi(2)));
    }
    close(json!({"margin_mse": {}}), margins.iter().sum::<f64>() / margins.len() as f64);
}

fn all() -> Vec<Value> {
    vec![
        json!({"bce": {"pos_weight": 2.0}}),
        json!({"softmax": {"temperature": 0.7}}),
        json!({"list_net": {}}),
        json!({"margin_mse": {}}),
        json!({"rank_net": {}}),
        json!({"list_mle": {"position_weights": true}}),
        json!({"list_mle": {}}),
        json!({"lambda": {}}),
        json!({"lambda": {"scheme": "ndcg_loss1"}}),
    ]
}

#[test]
fn gradients_are_finite_differences() {
    let scores: Rows = vec![vec![0.3, -1.2, 2.0, 0.1], vec![-0.4, 0.9]];
    let labels: Rows = vec![vec![1.0, 0.0, 0.0, 0.0], vec![1.0, 0.0]];
    let (y, r) = (padded(&labels, 0.0), real(&scores));
    for c in all() {
        let loss = config(&c).build().unwrap();
        check_gradient(&[padded(&scores, 0.0)], 2e-3, |x| {
            let y = y.to_kind(x[0].kind());
            loss.loss(&Candidates { scores: &x[0], labels: &y, real: &r })
        });
    }
}

#[test]
fn extreme_logits_and_lists_of_one_are_finite() {
    let scores: Rows = vec![vec![1e4, -1e4, 0.0], vec![3.0]];
    let labels: Rows = vec![vec![0.0, 1.0, 0.0], vec![1.0]];
    for c in all() {
        let s = padded(&scores, 0.0).set_requires_grad(true);
        let (y, r) = (padded(&labels, 0.0), real(&scores));
        let loss = config(&c).build().unwrap().loss(&Candidates { scores: &s, labels: &y, real: &r });
        loss.backward();
        let finite = |t: &Tensor| t.isfinite().all().int64_value(&[]) == 1;
        assert!(finite(&loss) && finite(&s.grad()), "{c}");
        assert_eq!(s.grad().double_value(&[1, 1]), 0.0, "{c}: what is not there has no gradient");
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (c, key) in [
        (json!({"bce": {"pos_weight": 0.0}}), "loss.bce.pos_weight"),
        (json!({"softmax": {"temperature": -1.0}}), "loss.softmax.temperature"),
        (json!({"rank_net": {"k": 0}}), "loss.rank_net.k"),
        (json!({"lambda": {"mu": -1.0}}), "loss.lambda.mu"),
    ] {
        let e = config(&c).build().unwrap_err().to_string();
        assert!(e.contains(key), "{e}");
    }
}
