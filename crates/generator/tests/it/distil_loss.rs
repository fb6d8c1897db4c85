//! The losses of distillation: TRL's and PyTorch's values (`golden/distil.json`), formulas in f64, finite differences,
//! and that neither chunks nor the tokens left out of a teacher's distribution change what they should not.

use ragduet_generator::loss::DistilLoss;
use ragduet_generator::loss::distil::{
    CHUNK, Distilled, Divergence, JsdConfig, KlConfig, Projection, Taught, TopK, distil, top_k,
};
use ragduet_testkit::alone;
use ragduet_torch::{Compute, Device, Kind, Tensor, no_grad, rng};
use serde_json::Value;

/// Of some rows: hidden states, weight and bias of a student, hidden states and weight of a teacher, targets.
struct Case {
    student: [Tensor; 3],
    teacher: [Tensor; 2],
    targets: Tensor,
    scale: f64,
    compute: Compute,
}

/// `vocab`: of student and teacher.
fn case(n: i64, vocab: (i64, i64), kind: Kind) -> Case {
    let new = |shape: &[i64], size: f64| Tensor::randn(shape, (Kind::Double, Device::Cpu)) * size;
    let leaf = |shape: &[i64], size: f64| new(shape, size).to_kind(kind).set_requires_grad(true);
    let student = [leaf(&[n, 6], 1.0), leaf(&[vocab.0, 6], 0.8), leaf(&[vocab.0], 0.5)];
    let teacher = [new(&[n, 10], 1.0).to_kind(kind), new(&[vocab.1, 10], 1.0).to_kind(kind)];
    let targets = Tensor::randint(vocab.0.min(vocab.1), [n], (Kind::Int64, Device::Cpu));
    Case { student, teacher, targets, scale: 0.7, compute: Compute::F32 }
}

impl Case {
    fn own(&self) -> Projection<'_> {
        let [hidden, weight, bias] = &self.student;
        Projection { hidden, weight, bias: Some(bias), scale: self.scale, cap: None, compute: self.compute }
    }

    fn other(&self) -> Projection<'_> {
        let [hidden, weight] = &self.teacher;
        Projection { hidden, weight, bias: None, scale: 1.0, cap: None, compute: self.compute }
    }

    fn whole(&self, loss: DistilLoss, chunk: i64) -> Distilled {
        distil(self.own(), Taught::Whole(self.other()), &self.targets, loss, 7, chunk)
    }

    fn top(&self, top: &TopK, loss: DistilLoss, chunk: i64) -> Distilled {
        distil(self.own(), Taught::TopK(top), &self.targets, loss, 7, chunk)
    }

    /// The definition, with autograd, in f64: of all tokens that both know, or of the k likeliest and the rest.
    fn plain(&self, loss: DistilLoss, k: Option<i64>) -> Tensor {
        let [h, w, b] = self.student.each_ref().map(|t| t.to_kind(Kind::Double));
        let [th, tw] = self.teacher.each_ref().map(|t| t.to_kind(Kind::Double));
        let (z, said) = ((h.matmul(&w.tr()) + b) * self.scale, th.matmul(&tw.tr()));
        let width = w.size()[0].min(tw.size()[0]);
        let t = loss.divergence.temperature();
        let soft = |z: &Tensor| (z.narrow(1, 0, width) / t).softmax(-1, Kind::Double);
        let (mut q, mut p) = (soft(&z), soft(&said));
        if let Some(k) = k {
            let (best, at) = p.topk(k, 1, true, true);
            let seen = q.gather(1, &at, false);
            let rest = q.sum_dim_intlist(1, true, Kind::Double) - seen.sum_dim_intlist(1, true, Kind::Double);
            q = Tensor::cat(&[seen, rest], 1);
            p = Tensor::cat(
                &[best.shallow_clone(), best.sum_dim_intlist(1, true, Kind::Double).neg() + 1.0],
                1,
            );
        }
        let kl = |a: &Tensor, b: &Tensor| (a * (a / b).log()).sum(Kind::Double);
        let d = match loss.divergence {
            Divergence::ForwardKl(_) => kl(&p, &q) * t * t,
            Divergence::ReverseKl(_) => kl(&q, &p) * t * t,
            Divergence::GeneralizedJsd(JsdConfig { beta, .. }) => {
                let m = &p * beta + &q * (1.0 - beta);
                kl(&p, &m) * beta + kl(&q, &m) * (1.0 - beta)
            }
        };
        let nll = z
            .log_softmax(-1, Kind::Double)
            .gather(1, &self.targets.unsqueeze(1), false)
            .sum(Kind::Double)
            .neg();
        (d * loss.weight + nll * (1.0 - loss.weight)) / 7.0
    }

    /// Takes the gradients of the student's leaves.
    fn grads(&self) -> Vec<Tensor> {
        let taken = self.student.each_ref().map(|t| t.grad().copy());
        ragduet_torch::grad::clear(&self.student.each_ref().map(Tensor::shallow_clone)).unwrap();
        taken.into()
    }
}

/// The loss that was sent backward, as the recipe adds it up.
fn total(d: &Distilled, loss: DistilLoss) -> f64 {
    let value = |t: &Tensor| f64::try_from(t).unwrap();
    (loss.weight * value(&d.divergence) + (1.0 - loss.weight) * value(&d.nll)) / 7.0
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let b = b.to_kind(Kind::Double);
    f64::try_from((a.to_kind(Kind::Double) - &b).norm() / b.norm().clamp_min(1e-12)).unwrap()
}

fn divergences() -> Vec<Divergence> {
    let mut all = Vec::new();
    for temperature in [1.0, 2.0] {
        all.push(Divergence::ForwardKl(KlConfig { temperature }));
        all.push(Divergence::ReverseKl(KlConfig { temperature }));
        all.extend([0.2, 0.5].map(|beta| Divergence::GeneralizedJsd(JsdConfig { beta, temperature })));
    }
    all
}

#[test]
fn values_and_gradients_are_those_of_trl_and_pytorch() {
    let _alone = alone();
    let golden: Value = serde_json::from_str(include_str!("../golden/distil.json")).unwrap();
    let (n, vocab) = (golden["rows"].as_i64().unwrap(), golden["vocab"].as_i64().unwrap());
    let read = |v: &Value| Tensor::from_slice(&serde_json::from_value::<Vec<f64>>(v.clone()).unwrap());
    let logits = |key: &str| read(&golden[key]).view([n, vocab]);
    let targets = Tensor::from_slice(&serde_json::from_value::<Vec<i64>>(golden["targets"].clone()).unwrap());
    // Logits are what an identity makes of them.
    let (eye, said) = (Tensor::eye(vocab, (Kind::Double, Device::Cpu)), logits("teacher"));
    fn of<'a>(hidden: &'a Tensor, eye: &'a Tensor) -> Projection<'a> {
        Projection { hidden, weight: eye, bias: None, scale: 1.0, cap: None, compute: Compute::F32 }
    }
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 14);
    for case in cases {
        let divergence: Divergence = serde_json::from_value(case["config"].clone()).unwrap();
        let student = logits("student").set_requires_grad(true);
        let loss = DistilLoss { divergence, weight: 1.0 };
        for chunk in [CHUNK, 2 * vocab] {
            let d = distil(of(&student, &eye), Taught::Whole(of(&said, &eye)), &targets, loss, 1, chunk);
            let apart =
                |have: &Tensor, want: f64| (f64::try_from(have).unwrap() - want).abs() / (1.0 + want.abs());
            assert!(apart(&d.divergence, case["sum"].as_f64().unwrap()) < 1e-10, "{divergence:?}");
            assert!(apart(&d.nll, golden["nll"].as_f64().unwrap()) < 1e-10);
            d.backward().unwrap();
            let want = read(&case["grad"]).view([n, vocab]);
            assert!(relative(&student.grad(), &want) < 1e-9, "{divergence:?}");
            let _ = student.grad().zero_();
        }
    }
}

#[test]
fn whole_distributions_follow_their_formulas_however_they_are_cut() {
    let _alone = alone();
    rng::seed(1);
    // The last two: rows that only one of them has.
    for vocab in [(23, 23), (23, 31), (31, 23)] {
        for divergence in divergences() {
            for weight in [0.3, 1.0] {
                let loss = DistilLoss { divergence, weight };
                for (kind, tolerance) in [(Kind::Double, 1e-10), (Kind::Float, 1e-5)] {
                    let c = case(11, vocab, kind);
                    let want = c.plain(loss, None);
                    want.backward();
                    let wanted = c.grads();
                    let want = f64::try_from(want).unwrap();
                    for chunk in [CHUNK, 4 * vocab.0, 1] {
                        let d = c.whole(loss, chunk);
                        let have = total(&d, loss);
                        assert!(
                            (have - want).abs() < tolerance * (1.0 + want),
                            "{loss:?} {vocab:?}: {have} {want}"
                        );
                        d.backward().unwrap();
                        for (i, (a, b)) in c.grads().iter().zip(&wanted).enumerate() {
                            let apart = relative(a, b);
                            assert!(apart < tolerance, "{loss:?} {vocab:?} {chunk}: gradient {i}: {apart}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_likeliest_and_the_rest_follow_their_formulas_and_are_a_bound() {
    let _alone = alone();
    rng::seed(2);
    for vocab in [(23, 23), (23, 31), (31, 23)] {
        let c = case(11, vocab, Kind::Double);
        for divergence in divergences() {
            let loss = DistilLoss { divergence, weight: 0.6 };
            let whole = total(&c.whole(loss, CHUNK), loss);
            let mut last = f64::NEG_INFINITY;
            for k in [1, 5, 22] {
                let top = top_k(c.other(), 23, k, divergence.temperature(), 3 * vocab.1);
                assert_eq!((top.tokens.size(), top.log_p.size()), (vec![11, k], vec![11, k + 1]));
                let want = c.plain(loss, Some(k));
                want.backward();
                let wanted = c.grads();
                let want = f64::try_from(want).unwrap();
                for chunk in [CHUNK, 4 * vocab.0] {
                    let d = c.top(&top, loss, chunk);
                    let have = total(&d, loss);
                    // What is kept is kept in f32.
                    assert!((have - want).abs() < 1e-6 * (1.0 + want), "{loss:?} {k}: {have} {want}");
                    d.backward().unwrap();
                    for (i, (a, b)) in c.grads().iter().zip(&wanted).enumerate() {
                        assert!(relative(a, b) < 1e-6, "{loss:?} {vocab:?} {k}: gradient {i}");
                    }
                    assert!(
                        have >= last - 1e-6 && have <= whole + 1e-6,
                        "{loss:?} {k}: {last} {have} {whole}"
                    );
                }
                last = want;
            }
            assert!((last - whole).abs() < 1e-6, "a rest of one token is that token");
        }
    }
}

#[test]
fn gradients_are_the_numerical_ones() {
    let _alone = alone();
    rng::seed(3);
    for (i, divergence) in divergences().into_iter().enumerate() {
        let c = case(4, (9, 9), Kind::Double);
        let loss = DistilLoss { divergence, weight: 0.7 };
        let kept = top_k(c.other(), 9, 3, divergence.temperature(), CHUNK);
        let run = || if i % 2 == 0 { c.whole(loss, 20) } else { c.top(&kept, loss, 20) };
        run().backward().unwrap();
        let (analytic, step) = (c.grads(), 1e-5);
        for (leaf, grad) in c.student.iter().zip(&analytic) {
            for at in 0..leaf.numel() as i64 {
                let cell = leaf.detach().view(-1).narrow(0, at, 1);
                let moved = |by: f64| {
                    let _guard = no_grad();
                    let _ = cell.shallow_clone().g_add_scalar_(by);
                    total(&run(), loss)
                };
                let numeric = (moved(step) - moved(-2.0 * step)) / (2.0 * step);
                let _ = moved(step);
                let exact = f64::try_from(grad.view(-1).get(at)).unwrap();
                assert!((numeric - exact).abs() < 1e-7, "{divergence:?}: {numeric} {exact}");
            }
        }
    }
}

#[test]
fn the_generalised_divergence_has_both_others_at_its_ends() {
    let _alone = alone();
    rng::seed(4);
    let c = case(11, (23, 23), Kind::Double);
    let of = |divergence: Divergence| {
        let loss = DistilLoss { divergence, weight: 1.0 };
        let d = c.whole(loss, CHUNK);
        let value = f64::try_from(&d.divergence).unwrap();
        d.backward().unwrap();
        (value, c.grads())
    };
    let jsd = |beta| of(Divergence::GeneralizedJsd(JsdConfig { beta, temperature: 1.0 }));
    let forward = of(Divergence::ForwardKl(KlConfig::default()));
    let reverse = of(Divergence::ReverseKl(KlConfig::default()));
    for ((at, near, side), want) in [((0.0, 1e-9, 0.0), forward), ((1.0, 1.0 - 1e-9, 1.0), reverse)] {
        let (end, close) = (jsd(at), jsd(near));
        assert!((end.0 - want.0).abs() < 1e-12);
        // Over its distance from the end, the divergence tends to that of the end.
        let distance = (near - side).abs();
        assert!((close.0 / distance / want.0 - 1.0).abs() < 1e-4, "{} {}", close.0 / distance, want.0);
        for ((a, b), c) in end.1.iter().zip(&want.1).zip(&close.1) {
            assert!(relative(a, b) < 1e-12);
            assert!(relative(&(c / distance), b) < 1e-4);
        }
    }
}

#[test]
fn nobody_learns_from_an_equal() {
    let _alone = alone();
    rng::seed(5);
    for kind in [Kind::Double, Kind::Float] {
        let mut c = case(11, (23, 23), kind);
        let [hidden, weight, bias] = &c.student;
        let _ = bias.detach().zero_();
        c.scale = 1.0;
        c.teacher = [hidden.detach().copy(), weight.detach().copy()];
        for divergence in divergences() {
            let loss = DistilLoss { divergence, weight: 1.0 };
            let top = top_k(c.other(), 23, 4, divergence.temperature(), CHUNK);
            for d in [c.whole(loss, 60), c.top(&top, loss, 60)] {
                assert!(f64::try_from(&d.divergence).unwrap().abs() < 1e-6, "{divergence:?}");
                d.backward().unwrap();
                for g in c.grads() {
                    assert!(f64::try_from(g.abs().max()).unwrap() < 1e-6, "{divergence:?}");
                }
            }
        }
    }
}

#[test]
fn bf16_is_close_a_frozen_weight_has_no_gradient_and_no_rows_are_no_loss() {
    let _alone = alone();
    rng::seed(6);
    let mut c = case(64, (200, 200), Kind::Float);
    c.compute = Compute::Bf16;
    let loss = DistilLoss::default();
    let want = c.plain(loss, None);
    want.backward();
    let wanted = c.grads();
    let d = c.whole(loss, CHUNK);
    let want = f64::try_from(want).unwrap();
    assert!((total(&d, loss) / want - 1.0).abs() < 1e-2);
    d.backward().unwrap();
    for (a, b) in c.grads().iter().zip(&wanted) {
        assert!(relative(a, b) < 2e-2);
    }
    let [hidden, weight, bias] = &c.student;
    let (weight, bias) = (weight.detach(), bias.detach());
    let own = Projection { weight: &weight, bias: Some(&bias), ..c.own() };
    distil(own, Taught::Whole(c.other()), &c.targets, loss, 7, CHUNK).backward().unwrap();
    assert!(relative(&hidden.grad(), &wanted[0]) < 2e-2 && !weight.grad().defined());

    let none = |t: &Tensor| t.narrow(0, 0, 0);
    let (own, other) = (none(hidden), none(&c.teacher[0]));
    let own = Projection { hidden: &own, ..c.own() };
    let d = distil(
        own,
        Taught::Whole(Projection { hidden: &other, ..c.other() }),
        &none(&c.targets),
        loss,
        0,
        CHUNK,
    );
    assert_eq!(total(&d, loss), 0.0);
    d.backward().unwrap();
}

#[test]
fn what_cannot_be_is_refused() {
    let _alone = alone();
    for (text, key) in [
        ("weight = 0.0", "weight"),
        ("weight = 1.5", "weight"),
        ("divergence.forward_kl.temperature = 0.0", "temperature"),
        ("divergence.reverse_kl.temperature = -1.0", "temperature"),
        ("divergence.generalized_jsd.beta = 1.1", "beta"),
    ] {
        let loss: DistilLoss = toml::from_str(text).unwrap();
        assert!(loss.check("objective.logits").unwrap_err().to_string().contains(key), "{text}");
    }
    assert!(toml::from_str::<DistilLoss>("divergence.forward_kl.beta = 0.5").is_err());
    DistilLoss::default().check("objective.logits").unwrap();
}
