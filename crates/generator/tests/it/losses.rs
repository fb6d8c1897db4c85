//! Losses against TRL's own (`golden/losses.json`), and their gradients against finite differences.

use ragduet_generator::loss::{
    PreferenceBatch, PreferenceLossConfig, PreferenceLossKind, Reference, RowLosses, SftLoss, TfewBatch,
    TfewLoss, TfewTotals, Window, best_choice, choice_sums,
};
use ragduet_testkit::check_gradient;
use ragduet_torch::{Kind, Tensor};
use serde_json::Value;

const TOLERANCE: f64 = 1e-5;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/losses.json")).unwrap()
}

fn floats(v: &Value) -> Tensor {
    Tensor::from_slice(&v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<_>>())
}

#[track_caller]
fn close(have: f64, want: &Value, what: &str) {
    let want = want.as_f64().unwrap();
    assert!((have - want).abs() <= TOLERANCE * (1.0 + want.abs()), "{what}: {have} {want}");
}

fn check_metrics(rows: &RowLosses, paired: bool, want: &Value, what: &str) {
    let m = rows.metrics(paired).unwrap();
    close(m.chosen, &want["chosen"], what);
    close(m.rejected, &want["rejected"], what);
    close(m.margin, &want["margin"], what);
    match m.accuracy {
        Some(a) => close(a, &want["accuracy"], what),
        None => assert!(want.get("accuracy").is_none(), "{what}"),
    }
}

#[test]
fn paired_losses_equal_trls() {
    let g = golden();
    let p = &g["pairs"];
    let [c, r, rc, rr, ct, rt] =
        ["chosen", "rejected", "reference_chosen", "reference_rejected", "chosen_tokens", "rejected_tokens"]
            .map(|k| floats(&p[k]));
    let nll = Tensor::from(p["nll_sum"].as_f64().unwrap() as f32);
    let tokens = p["nll_tokens"].as_u64().unwrap();
    for case in g["cases"].as_array().unwrap() {
        let what = format!("{} {}", case["name"], case["config"]);
        let config: PreferenceLossConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let built = config.build().unwrap();
        let reference = built.loss.needs_reference().then_some(Reference { chosen: &rc, rejected: &rr });
        let batch = PreferenceBatch {
            chosen: &c,
            rejected: &r,
            chosen_tokens: &ct,
            rejected_tokens: &rt,
            reference,
            mismatched: None,
        };
        let rows = built.loss.rows(&batch).unwrap();
        let window =
            Window { rows: 6, likelihood_tokens: if built.likelihood.is_some() { tokens } else { 0 } };
        let loss = built.share(&rows, Some(&nll), window).unwrap();
        close(f64::try_from(loss).unwrap(), &case["loss"], &what);
        check_metrics(&rows, built.loss.paired(), &case["metrics"], &what);
        if built.loss.needs_reference() {
            assert!(built.loss.rows(&PreferenceBatch { reference: None, ..batch }).is_err(), "{what}");
        }
        if built.likelihood.is_some() {
            assert!(built.share(&rows, None, window).is_err(), "{what}");
        }
    }
}

#[test]
fn kto_equals_trls() {
    for case in golden()["kto"].as_array().unwrap() {
        let config: PreferenceLossConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let built = config.build().unwrap();
        let [c, r, rc, rr, m] =
            ["chosen", "rejected", "reference_chosen", "reference_rejected", "mismatched"]
                .map(|k| floats(&case[k]));
        let batch = PreferenceBatch {
            chosen: &c,
            rejected: &r,
            chosen_tokens: &c,
            rejected_tokens: &r,
            reference: Some(Reference { chosen: &rc, rejected: &rr }),
            mismatched: Some(&m),
        };
        let rows = built.loss.rows(&batch).unwrap();
        let loss = built.share(&rows, None, Window { rows: 7, likelihood_tokens: 0 }).unwrap();
        close(f64::try_from(loss).unwrap(), &case["loss"], "kto");
        check_metrics(&rows, built.loss.paired(), &case["metrics"], "kto");
    }
}

#[test]
fn the_supervised_loss_equals_trls_over_a_window() {
    let g = &golden()["sft"];
    let window = g["window"].as_u64().unwrap();
    for (kind, key) in [(SftLoss::Nll, "nll_loss"), (SftLoss::Dft, "dft_loss")] {
        let total: f64 = g["nll"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| f64::try_from(kind.share(&floats(x), window)).unwrap())
            .sum();
        close(total, &g[key], key);
    }
    // DFT's weight carries no gradient: d/dx of -x * p is -p.
    let x = Tensor::from_slice(&[0.5f64, 2.0]).set_requires_grad(true);
    SftLoss::Dft.share(&x, 1).backward();
    let grad = Vec::<f64>::try_from(x.grad()).unwrap();
    assert!((grad[0] - (-0.5f64).exp()).abs() < 1e-12 && (grad[1] - (-2.0f64).exp()).abs() < 1e-12);
    assert_eq!(
        f64::try_from(SftLoss::Nll.share(&Tensor::zeros([3], (Kind::Float, x.device())), 0)).unwrap(),
        0.0
    );
}

#[test]
fn gradients_are_the_numerical_ones() {
    let t = |v: &[f64]| Tensor::from_slice(v);
    let (c, r) = (t(&[-4.0, -9.5, -2.2]), t(&[-6.0, -3.0, -8.8]));
    let (rc, rr) = (t(&[-5.0, -9.0, -2.9]), t(&[-4.5, -4.0, -7.0]));
    let (ct, rt) = (Tensor::from_slice(&[3i64, 5, 2]), Tensor::from_slice(&[4i64, 2, 6]));
    let mismatched = t(&[0.4, 0.9, -0.2]);
    for text in [
        r#"{"dpo": {"beta": 0.4}}"#,
        r#"{"dpo": {"beta": 0.4, "label_smoothing": 0.1}}"#,
        r#"{"robust": {"beta": 0.4, "label_smoothing": 0.1}}"#,
        r#"{"hinge": {"beta": 0.3}}"#,
        r#"{"ipo": {"beta": 0.4}}"#,
        r#"{"kto": {"beta": 0.4, "desirable_weight": 1.2}}"#,
        r#"{"orpo": {"beta": 0.4}}"#,
        r#"{"simpo": {"beta": 2.0, "gamma": 0.5, "label_smoothing": 0.1}}"#,
    ] {
        let loss = serde_json::from_str::<PreferenceLossKind>(text).unwrap().build().unwrap();
        check_gradient(&[c.copy(), r.copy()], 1e-6, |x| {
            let batch = PreferenceBatch {
                chosen: &x[0],
                rejected: &x[1],
                chosen_tokens: &ct,
                rejected_tokens: &rt,
                reference: Some(Reference { chosen: &rc, rejected: &rr }),
                mismatched: Some(&mismatched),
            };
            loss.rows(&batch).unwrap().losses.sum(Kind::Double)
        });
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for text in [
        r#"{"loss": {"dpo": {"beta": 0.0}}}"#,
        r#"{"loss": {"robust": {"label_smoothing": 0.5}}}"#,
        r#"{"loss": {"kto": {"desirable_weight": -1.0}}}"#,
        r#"{"loss": {"simpo": {"gamma": -0.1}}}"#,
        r#"{"loss": {"orpo": {}}, "sft_weight": 0.5}"#,
        r#"{"loss": {"simpo": {"cpo_alpha": 0.5}}, "sft_weight": 0.5}"#,
        r#"{"sft_weight": -0.5}"#,
    ] {
        let config: PreferenceLossConfig = serde_json::from_str(text).unwrap();
        assert!(config.build().is_err(), "{text}");
    }
    assert!(serde_json::from_str::<PreferenceLossConfig>(r#"{"loss": {"dpo": {"gamma": 1.0}}}"#).is_err());
    let plain: PreferenceLossConfig = toml::from_str("[loss.dpo]\nbeta = 0.2").unwrap();
    assert!(plain.build().unwrap().likelihood.is_none());
}

/// T-Few's losses by their definitions, token by token.
fn choice_losses(nll: &[f64], tokens: &[usize], records: &[(usize, usize)], power: f64) -> [f64; 3] {
    let (mut lm, mut ul, mut ln) = ((0.0, 0.0), (0.0, 0.0), 0.0);
    let (mut token, mut choice) = (0, 0);
    for &(choices, right) in records {
        let mut beta = Vec::new();
        for i in 0..choices {
            let n = tokens[choice];
            let own = &nll[token..token + n];
            if i == right {
                lm = (lm.0 + own.iter().sum::<f64>(), lm.1 + n as f64);
            } else {
                ul.0 -= own.iter().map(|x| (1.0 - (-x).exp() + 0.01).ln()).sum::<f64>();
                ul.1 += n as f64;
            }
            beta.push((-own.iter().sum::<f64>() / (n as f64).powf(power)).exp());
            (token, choice) = (token + n, choice + 1);
        }
        ln -= (beta[right] / beta.iter().sum::<f64>()).ln();
    }
    [lm.0 / lm.1, ul.0 / ul.1, ln / records.len() as f64]
}

const CHOICE_NLL: [f64; 15] = [0.3, 2.1, 1.0, 4.0, 0.02, 0.6, 3.3, 1.7, 0.9, 0.001, 2.2, 5.0, 0.4, 0.7, 1.1];
const CHOICE_TOKENS: [usize; 7] = [2, 1, 3, 2, 4, 1, 2];
const CHOICE_RECORDS: [(usize, usize); 3] = [(3, 2), (2, 0), (2, 1)];

#[test]
fn choice_losses_equal_their_formulas_and_windows_add_up() {
    for power in [0.0, 0.5, 1.0] {
        let loss = TfewLoss { length_norm: power, ..TfewLoss::default() };
        let want = choice_losses(&CHOICE_NLL, &CHOICE_TOKENS, &CHOICE_RECORDS, power);
        let window = TfewTotals::of(&CHOICE_TOKENS, &CHOICE_RECORDS);
        assert_eq!((window.right_tokens, window.wrong_tokens, window.records), (7, 8, 3));
        let shares = |tokens: std::ops::Range<usize>, choices: std::ops::Range<usize>, records| {
            let nll = Tensor::from_slice(&CHOICE_NLL[tokens]);
            let batch =
                TfewBatch { nll: &nll, tokens: &CHOICE_TOKENS[choices], records: &CHOICE_RECORDS[records] };
            let s = loss.shares(&batch, window);
            [s.language_model, s.unlikelihood, s.length_normalized].map(|t| f64::try_from(t).unwrap())
        };
        let whole = shares(0..15, 0..7, 0..3);
        let (a, b) = (shares(0..6, 0..3, 0..1), shares(6..15, 3..7, 1..3));
        for i in 0..3 {
            assert!((whole[i] - want[i]).abs() < 1e-12, "{power} {i}: {} {}", whole[i], want[i]);
            assert!((a[i] + b[i] - want[i]).abs() < 1e-12, "{power} {i}: parts");
        }
    }
}

#[test]
fn choice_gradients_are_the_numerical_ones() {
    for (w, power) in [([1.0, 1.0, 1.0], 1.0), ([0.5, 2.0, 0.0], 1.0), ([0.0, 0.0, 1.0], 0.5)] {
        let loss = TfewLoss {
            language_model: w[0],
            unlikelihood: w[1],
            length_normalized: w[2],
            length_norm: power,
        };
        check_gradient(&[Tensor::from_slice(&CHOICE_NLL)], 1e-6, |x| {
            let batch = TfewBatch { nll: &x[0], tokens: &CHOICE_TOKENS, records: &CHOICE_RECORDS };
            loss.total(&loss.shares(&batch, TfewTotals::of(&CHOICE_TOKENS, &CHOICE_RECORDS)))
        });
    }
}

#[test]
fn the_likeliest_choice_depends_on_the_power_of_its_length() {
    let (log_p, tokens) = ([-2.0, -3.0, -2.0], [1, 3, 1]);
    assert_eq!(best_choice(&log_p, &tokens, 1.0), 1);
    assert_eq!(best_choice(&log_p, &tokens, 0.0), 0, "the first of equals");
    let nll = Tensor::from_slice(&[0.5f32, 1.0, 2.0]);
    assert_eq!(choice_sums(&nll, &[1, 2]).unwrap(), [0.5, 3.0]);
    for text in [
        "unlikelihood = -1.0",
        "length_norm = -0.5",
        "language_model = 0\nunlikelihood = 0\nlength_normalized = 0",
    ] {
        let loss: TfewLoss = toml::from_str(text).unwrap();
        assert!(loss.check().is_err(), "{text}");
    }
}
