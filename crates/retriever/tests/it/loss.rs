//! Losses against their formulas in float64, and their gradients against finite differences.

use ragduet_retriever::loss::{
    Compared, InfoNce, KlDistillation, LossBatch, LossConfig, MarginMse, Matryoshka, Relations, Triplet,
    fixed_scale, normalize,
};
use ragduet_testkit::{alone, check_gradient};
use ragduet_torch::{Device, Kind, Tensor, rng};

const DIM: usize = 6;
const SCALE: f64 = 3.0;

/// Three queries; ragged negatives; passage 1 is also relevant to query 0.
fn relations() -> Relations {
    Relations {
        positive: vec![0, 1, 2],
        negatives: vec![vec![3, 4], vec![], vec![4]],
        also_relevant: vec![(0, 1)],
        own_copies: Vec::new(),
        teacher: Some(vec![vec![2.0, 0.5, -1.0], vec![1.0], vec![0.3, 0.9]]),
    }
}

fn tensors() -> (Tensor, Tensor) {
    rng::seed(11);
    let t = |n: i64| normalize(&Tensor::randn([n, DIM as i64], (Kind::Double, Device::Cpu)));
    (t(3), t(5))
}

fn value(config: &LossConfig, q: &Tensor, p: &Tensor, r: &Relations) -> f64 {
    let scale = fixed_scale(SCALE, q);
    let loss = config.build().unwrap().loss(&LossBatch::new(
        Compared::Vectors { queries: q, passages: p },
        r,
        &scale,
    ));
    f64::try_from(loss).unwrap()
}

fn similarity(q: &Tensor, p: &Tensor) -> Vec<Vec<f64>> {
    let s = q.matmul(&p.transpose(0, 1));
    (0..q.size()[0]).map(|i| Vec::<f64>::try_from(s.get(i)).unwrap()).collect()
}

fn log_softmax_at(s: &[f64], allowed: &[usize], label: usize) -> f64 {
    let z: f64 = allowed.iter().map(|&j| (SCALE * s[j]).exp()).sum();
    SCALE * s[label] - z.ln()
}

fn info(c: InfoNce) -> LossConfig {
    LossConfig::InfoNce(c)
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} {b}");
}

#[test]
fn info_nce_is_its_formula_with_every_setting() {
    let _alone = alone();
    let (q, p) = tensors();
    let (r, s) = (relations(), similarity(&q, &p));
    let nll =
        |allowed: [&[usize]; 3]| -(0..3).map(|i| log_softmax_at(&s[i], allowed[i], i)).sum::<f64>() / 3.0;
    // Passage 1 answers query 0, too, so it is no negative of it.
    close(
        value(&info(InfoNce::default()), &q, &p, &r),
        nll([&[0, 2, 3, 4], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]]),
    );
    let own_hard = InfoNce { share_hard_negatives: false, ..InfoNce::default() };
    close(value(&info(own_hard), &q, &p, &r), nll([&[0, 2, 3, 4], &[0, 1, 2], &[0, 1, 2, 4]]));
    let own_only = InfoNce { in_batch_negatives: false, ..InfoNce::default() };
    close(value(&info(own_only), &q, &p, &r), nll([&[0, 3, 4], &[1], &[2, 4]]));

    let smooth = InfoNce { label_smoothing: 0.2, ..InfoNce::default() };
    let allowed: [&[usize]; 3] = [&[0, 2, 3, 4], &[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]];
    let even: f64 = (0..3)
        .map(|i| {
            let logs = allowed[i].iter().map(|&j| log_softmax_at(&s[i], allowed[i], j));
            -logs.sum::<f64>() / allowed[i].len() as f64
        })
        .sum::<f64>()
        / 3.0;
    close(value(&info(smooth), &q, &p, &r), 0.8 * nll(allowed) + 0.2 * even);

    let margin = 0.1;
    let masked = InfoNce { mask_above_positive_minus: Some(margin), ..InfoNce::default() };
    let kept: Vec<Vec<usize>> = (0..3)
        .map(|i| allowed[i].iter().copied().filter(|&j| j == i || s[i][j] <= s[i][i] - margin).collect())
        .collect();
    assert!(kept.iter().map(Vec::len).sum::<usize>() < 14, "the mask must bite for this to be a test");
    close(value(&info(masked), &q, &p, &r), nll([&kept[0], &kept[1], &kept[2]]));

    // Back: each positive among the queries; query 0 is also right for passage 1, so it is no negative there.
    let symmetric = InfoNce { symmetric: true, ..InfoNce::default() };
    let column = |j: usize| (0..3).map(|i| s[i][j]).collect::<Vec<_>>();
    let back = -(log_softmax_at(&column(0), &[0, 1, 2], 0)
        + log_softmax_at(&column(1), &[1, 2], 1)
        + log_softmax_at(&column(2), &[0, 1, 2], 2))
        / 3.0;
    close(value(&info(symmetric), &q, &p, &r), (nll(allowed) + back) / 2.0);
}

#[test]
fn the_others_are_their_formulas() {
    let _alone = alone();
    let (q, p) = tensors();
    let (r, s) = (relations(), similarity(&q, &p));
    let triplet = LossConfig::Triplet(Triplet { margin: 0.7, ..Triplet::default() });
    let hinge = |i: usize, n: usize| (0.7 - s[i][i] + s[i][n]).max(0.0);
    close(value(&triplet, &q, &p, &r), (hinge(0, 3) + hinge(0, 4) + hinge(2, 4)) / 3.0);

    let gap = |i: usize, n: usize, t: f64| (SCALE * (s[i][i] - s[i][n]) - t).powi(2);
    let teacher = (gap(0, 3, 1.5) + gap(0, 4, 3.0) + gap(2, 4, f64::from(0.3f32) - f64::from(0.9f32))) / 3.0;
    assert!((value(&LossConfig::MarginMse(MarginMse {}), &q, &p, &r) - teacher).abs() < 1e-6);

    let t = 2.0;
    let kl = |i: usize, columns: &[usize], scores: &[f64]| {
        let log = |v: Vec<f64>| {
            let z: f64 = v.iter().map(|x| (x / t).exp()).sum();
            v.into_iter().map(|x| x / t - z.ln()).collect::<Vec<_>>()
        };
        let want = log(scores.to_vec());
        let have = log(columns.iter().map(|&c| SCALE * s[i][c]).collect());
        want.iter().zip(&have).map(|(a, b)| a.exp() * (a - b)).sum::<f64>()
    };
    let expected =
        t * t * (kl(0, &[0, 3, 4], &[2.0, 0.5, -1.0]) + kl(1, &[1], &[1.0]) + kl(2, &[2, 4], &[0.3, 0.9]))
            / 3.0;
    let config = LossConfig::Kl(KlDistillation { temperature: t, ..KlDistillation::default() });
    assert!((value(&config, &q, &p, &r) - expected).abs() < 1e-6);

    let inner = LossConfig::InfoNce(InfoNce::default());
    let matryoshka = LossConfig::Matryoshka(Matryoshka {
        dims: vec![6, 3],
        weights: vec![1.0, 0.5],
        normalize: true,
        inner: Box::new(inner.clone()),
    });
    let cut = |x: &Tensor| normalize(&x.narrow(1, 0, 3));
    let parts = value(&inner, &q, &p, &r) + 0.5 * value(&inner, &cut(&q), &cut(&p), &r);
    close(value(&matryoshka, &q, &p, &r), parts);
}

#[test]
fn gradients_are_the_numerical_ones() {
    let _alone = alone();
    let (q, p) = tensors();
    let r = relations();
    let all = [
        info(InfoNce { symmetric: true, label_smoothing: 0.1, ..InfoNce::default() }),
        info(InfoNce { share_hard_negatives: false, ..InfoNce::default() }),
        LossConfig::Triplet(Triplet { margin: 0.7, ..Triplet::default() }),
        LossConfig::Triplet(Triplet {
            margin: 0.7,
            distance: serde_json::from_str("\"euclidean\"").unwrap(),
        }),
        LossConfig::MarginMse(MarginMse {}),
        LossConfig::Kl(KlDistillation { temperature: 1.5, ..KlDistillation::default() }),
        LossConfig::Matryoshka(Matryoshka {
            dims: vec![4, 6],
            weights: vec![],
            normalize: true,
            inner: Box::new(info(InfoNce::default())),
        }),
    ];
    let scale = Tensor::from_slice(&[SCALE]).squeeze();
    for config in all {
        let loss = config.build().unwrap();
        check_gradient(&[q.shallow_clone(), p.shallow_clone(), scale.shallow_clone()], 1e-6, |x| {
            let (queries, passages) = (normalize(&x[0]), normalize(&x[1]));
            // Keeps the scale's gradient defined for losses that do not use it.
            loss.loss(&LossBatch::new(
                Compared::Vectors { queries: &queries, passages: &passages },
                &r,
                &x[2],
            )) + &x[2] * 0.0
        });
    }
}

#[test]
fn impossible_settings_are_refused() {
    let _alone = alone();
    let e = |c: LossConfig| c.build().unwrap_err().to_string();
    assert!(e(info(InfoNce { label_smoothing: 1.0, ..InfoNce::default() })).contains("label_smoothing"));
    assert!(
        e(LossConfig::Kl(KlDistillation { temperature: 0.0, ..KlDistillation::default() }))
            .contains("temperature")
    );
    let nested =
        |inner| Matryoshka { dims: vec![2], weights: vec![], normalize: true, inner: Box::new(inner) };
    assert!(
        e(LossConfig::Matryoshka(Matryoshka { dims: vec![], ..nested(LossConfig::default()) }))
            .contains("dims")
    );
    let twice = LossConfig::Matryoshka(nested(LossConfig::Matryoshka(nested(LossConfig::default()))));
    assert!(e(twice).contains("another matryoshka"));
    assert!(LossConfig::Matryoshka(nested(LossConfig::default())).check_dim(1).is_err());
}
