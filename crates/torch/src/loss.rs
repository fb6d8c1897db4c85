//! Cross-entropy over a vocabulary without the logits of the whole batch.
//!
//! Up to 64M logits are kept for the backward pass, which turns them into their gradient in place. Above that the loss
//! goes over the vocabulary part by part with a running log-sum-exp, and again in the backward pass: parts of the
//! vocabulary rather than of the rows, because then the weight's gradient, the largest tensor of all, is written once.

use crate::{Compute, Kind, Tensor, ffi, grad};
use std::cell::RefCell;
use std::rc::Rc;
use tch::Reduction;

/// Logits alive at once, in elements, where they are not kept: 32 MiB in f32.
const CHUNK: i64 = 8 << 20;

/// Logits kept for the backward pass at most, in elements: 256 MiB in f32. More are made twice.
const KEPT: i64 = 64 << 20;

/// What [`linear_cross_entropy_with`] computes besides the product.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy<'a> {
    /// [vocab] in f32.
    pub bias: Option<&'a Tensor>,
    /// Multiplies the logits.
    pub scale: f64,
    /// Logits are then cap * tanh(logit / cap).
    pub cap: Option<f64>,
    /// The share of the target's probability that goes evenly to the whole vocabulary, as in PyTorch.
    pub label_smoothing: f64,
}

impl Default for CrossEntropy<'_> {
    fn default() -> Self {
        Self { bias: None, scale: 1.0, cap: None, label_smoothing: 0.0 }
    }
}

/// [`linear_cross_entropy_with`] a scale alone.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    scale: f64,
    compute: Compute,
) -> (Tensor, Tensor) {
    linear_cross_entropy_with(hidden, weight, targets, CrossEntropy { scale, ..Default::default() }, compute)
}

/// Cross-entropy of softmax(scale * (hidden weight^T + bias)), row by row. Up to 64M logits are kept for the backward
/// pass; of more only those of a part of the vocabulary exist at a time, and the backward pass makes them again.
///
/// `hidden` [n, h] and `weight` [vocab, h] in f32 (their products in `compute`), `targets` [n] i64, of which negative
/// ones have loss 0 and no gradient. Capped logits are made some rows at a time, and again in the backward pass. Returns (losses [n] in f32; [n] without gradient, 1 where the target is the
/// likeliest token, else 0).
///
/// # Panics
/// On shapes that do not fit and targets outside the vocabulary: bugs of the caller.
pub fn linear_cross_entropy_with(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    options: CrossEntropy<'_>,
    compute: Compute,
) -> (Tensor, Tensor) {
    match options.cap {
        None => row_loss(hidden, weight, targets, options, compute, Way { keep: KEPT, plain: false }),
        Some(cap) => capped(hidden, weight, targets, options, (cap, CHUNK), compute),
    }
}

/// The same of capped logits, at most `chunk` of them at a time.
fn capped(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    o: CrossEntropy<'_>,
    (cap, chunk): (f64, i64),
    compute: Compute,
) -> (Tensor, Tensor) {
    let (rows, vocab) = (hidden.size()[0], weight.size()[0]);
    let most = (chunk / vocab.max(1)).max(1);
    let (mut losses, mut hits) = (Vec::new(), Vec::new());
    for first in (0..rows).step_by(most as usize) {
        let n = most.min(rows - first);
        let targets = targets.narrow(0, first, n);
        let (scale, smoothing) = (o.scale, o.label_smoothing);
        let hit = Rc::new(RefCell::new(None));
        let seen = Rc::clone(&hit);
        let forward = move |x: &[Tensor]| {
            let kind = compute.kind();
            let z = x[0].to_kind(kind).matmul(&x[1].to_kind(kind).tr()).to_kind(Kind::Float);
            let z = match x.get(2) {
                Some(bias) => z + bias,
                None => z,
            };
            let z = (z * (scale / cap)).tanh() * cap;
            *seen.borrow_mut() = Some(z.argmax(-1, false).eq_tensor(&targets).to_kind(Kind::Float));
            let nll = z.cross_entropy_loss::<&Tensor>(
                &targets.clamp_min(0),
                None,
                Reduction::None,
                -100,
                smoothing,
            );
            vec![nll * targets.ge(0).to_kind(Kind::Float)]
        };
        let inputs: Vec<Tensor> = std::iter::once(hidden.narrow(0, first, n))
            .chain([weight.shallow_clone()])
            .chain(o.bias.map(Tensor::shallow_clone))
            .collect();
        match grad::checkpoint(hidden.device(), &inputs, forward) {
            Ok(loss) => losses.extend(loss),
            // As every operator in a forward pass does.
            Err(e) => panic!("{e}"),
        }
        hits.extend(hit.take());
    }
    if losses.is_empty() {
        let none = || Tensor::zeros([0], (Kind::Float, hidden.device()));
        return (none(), none());
    }
    (Tensor::cat(&losses, 0), Tensor::cat(&hits, 0))
}

/// How a loss is computed; the result is the same.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// The most logits kept for the backward pass.
    keep: i64,
    /// In ATen operators, as on CUDA.
    plain: bool,
}

fn row_loss(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    o: CrossEntropy<'_>,
    compute: Compute,
    way: Way,
) -> (Tensor, Tensor) {
    let (mut loss, mut hit) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: handles are valid for the call; the two results are adopted only on success.
    let status = unsafe {
        ffi::rd_linear_cross_entropy(
            ffi::handle(hidden),
            ffi::handle(weight),
            o.bias.map_or(std::ptr::null_mut(), ffi::handle),
            ffi::handle(targets),
            o.scale,
            o.label_smoothing,
            (compute == Compute::Bf16).into(),
            CHUNK,
            way.keep,
            way.plain.into(),
            &mut loss,
            &mut hit,
        )
    };
    if let Err(e) = ffi::check(status) {
        panic!("{e}");
    }
    (ffi::adopt(loss), ffi::adopt(hit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    struct Case {
        /// Hidden, weight, bias.
        leaves: [Tensor; 3],
        targets: Tensor,
        up: Tensor,
    }

    fn case(n: i64, vocab: i64) -> Case {
        let leaf = |shape: &[i64]| (Tensor::randn(shape, CPU) * 0.7).set_requires_grad(true);
        let targets = Tensor::randint(vocab, [n], (Kind::Int64, Device::Cpu));
        if n > 4 {
            let _ = targets.narrow(0, 3, 2).fill_(-100);
        }
        let leaves = [leaf(&[n, 13]), leaf(&[vocab, 13]), leaf(&[vocab])];
        Case { leaves, targets, up: Tensor::rand([n], CPU) }
    }

    /// With scale, smoothing and, where asked for, the bias; in f64.
    fn plain(c: &Case, o: (f64, f64, bool)) -> Tensor {
        let (scale, smoothing, bias) = o;
        let [h, w, b] = c.leaves.each_ref().map(|t| t.to_kind(Kind::Double));
        let z = h.matmul(&w.tr());
        let z = (if bias { z + b } else { z }) * scale;
        let log_p = z.log_softmax(-1, Kind::Double);
        let at = log_p.gather(1, &c.targets.clamp_min(0).unsqueeze(1), false).squeeze_dim(1);
        let mean = log_p.mean_dim(-1, false, Kind::Double);
        (at * (smoothing - 1.0) - mean * smoothing) * c.targets.ge(0)
    }

    fn ours(c: &Case, o: (f64, f64, bool), compute: Compute, way: Way) -> (Tensor, Tensor) {
        let (scale, label_smoothing, bias) = o;
        let [hidden, weight, b] = &c.leaves;
        let o = CrossEntropy { bias: bias.then_some(b), scale, cap: None, label_smoothing };
        row_loss(hidden, weight, &c.targets, o, compute, way)
    }

    /// Every way to the same result.
    const WAYS: [Way; 4] = [
        Way { keep: 0, plain: false },
        Way { keep: i64::MAX, plain: false },
        Way { keep: 0, plain: true },
        Way { keep: i64::MAX, plain: true },
    ];

    fn relative(a: &Tensor, b: &Tensor) -> f64 {
        let b = b.to_kind(Kind::Double);
        f64::try_from((a.to_kind(Kind::Double) - &b).norm() / b.norm().clamp_min(1e-12)).unwrap()
    }

    /// Of hidden, weight and, where it took part, bias.
    fn grads(loss: &Tensor, c: &Case) -> Vec<Tensor> {
        (loss * &c.up).sum(loss.kind()).backward();
        let taken = c.leaves.iter().filter(|t| t.grad().defined()).map(|t| {
            let g = t.grad().copy();
            crate::grad::clear(&[t.shallow_clone()]).unwrap();
            g
        });
        taken.collect()
    }

    #[test]
    fn equals_its_definition_forward_and_backward() {
        crate::rng::seed(11);
        let settings = [(1.0, 0.0, false), (0.3, 0.0, true), (1.0, 0.1, false), (0.5, 0.3, true)];
        // 300 rows see 27,936 tokens at a time: 60,001 are two parts and a rest. 4,500 rows are two blocks.
        for (n, vocab) in [(1, 7), (37, 101), (300, 60_001), (4500, 2500)] {
            let c = case(n, vocab);
            // The large case takes its time: once is enough.
            let count = if vocab > 1000 { 1 } else { settings.len() };
            for o in settings.into_iter().rev().take(count) {
                let want = plain(&c, o);
                let wanted = grads(&want, &c);
                assert_eq!(wanted.len(), if o.2 { 3 } else { 2 });
                for way in WAYS {
                    let (loss, hits) = ours(&c, o, Compute::F32, way);
                    assert!(relative(&loss, &want) < 1e-5, "{n} {vocab} {o:?}");
                    if !o.2 {
                        let likeliest = c.leaves[0].matmul(&c.leaves[1].tr()).argmax(1, false);
                        assert!(hits.eq(1.0).equal(&likeliest.eq_tensor(&c.targets)));
                    }
                    for (i, (a, b)) in grads(&loss, &c).iter().zip(&wanted).enumerate() {
                        assert!(relative(a, b) < 1e-5, "{n} {vocab} {o:?} {way:?}: gradient {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn capped_logits_equal_their_definition_in_any_number_of_parts() {
        crate::rng::seed(14);
        let c = case(37, 101);
        let [h, w, b] = c.leaves.each_ref().map(|t| t.to_kind(Kind::Double));
        let (cap, scale, smoothing) = (1.5, 0.8, 0.1);
        let z = (((h.matmul(&w.tr()) + b) * scale) / cap).tanh() * cap;
        let log_p = z.log_softmax(-1, Kind::Double);
        let at = log_p.gather(1, &c.targets.clamp_min(0).unsqueeze(1), false).squeeze_dim(1);
        let mean = log_p.mean_dim(-1, false, Kind::Double);
        let want = (at * (smoothing - 1.0) - mean * smoothing) * c.targets.ge(0);
        let wanted = grads(&want, &c);
        let [hidden, weight, bias] = &c.leaves;
        let o = CrossEntropy { bias: Some(bias), scale, cap: Some(cap), label_smoothing: smoothing };
        for chunk in [1, 500, CHUNK] {
            let (loss, hits) = capped(hidden, weight, &c.targets, o, (cap, chunk), Compute::F32);
            assert!(relative(&loss, &want) < 1e-5, "{chunk}");
            assert!(hits.eq(1.0).equal(&z.argmax(1, false).eq_tensor(&c.targets)), "{chunk}");
            for (i, (a, b)) in grads(&loss, &c).iter().zip(&wanted).enumerate() {
                assert!(relative(a, b) < 1e-5, "{chunk}: gradient {i}");
            }
        }
    }

    #[test]
    fn the_gradient_is_the_numerical_one() {
        crate::rng::seed(12);
        let c = case(6, 9);
        let o = (0.8, 0.15, true);
        let value = || {
            let _guard = crate::no_grad();
            f64::try_from((ours(&c, o, Compute::F32, WAYS[0]).0 * &c.up).sum(Kind::Double)).unwrap()
        };
        let analytic = grads(&ours(&c, o, Compute::F32, WAYS[0]).0, &c);
        let step = 1e-2;
        for (leaf, grad) in c.leaves.iter().zip(&analytic) {
            for at in 0..leaf.numel().min(20) as i64 {
                let cell = leaf.detach().view(-1).narrow(0, at, 1);
                let change = |by: f64| {
                    let _guard = crate::no_grad();
                    let _ = cell.shallow_clone().g_add_scalar_(by);
                };
                change(step);
                let above = value();
                change(-2.0 * step);
                let below = value();
                change(step);
                let numeric = (above - below) / (2.0 * step);
                let a = f64::try_from(grad.view(-1).get(at)).unwrap();
                assert!((numeric - a).abs() < 1e-3, "{numeric} {a}");
            }
        }
    }

    #[test]
    fn a_frozen_vocabulary_costs_no_gradient() {
        crate::rng::seed(15);
        for (n, vocab) in [(37, 101), (300, 60_001)] {
            let c = case(n, vocab);
            let o = (0.7, 0.1, true);
            for way in WAYS {
                let of = |frozen: bool| {
                    for leaf in &c.leaves[1..] {
                        let _ = leaf.shallow_clone().set_requires_grad(!frozen);
                    }
                    grads(&ours(&c, o, Compute::F32, way).0, &c)
                };
                let (alone, all) = (of(true), of(false));
                assert_eq!((alone.len(), all.len()), (1, 3), "{way:?}");
                assert!(alone[0].equal(&all[0]), "{n} {vocab} {way:?}");
            }
        }
    }

    #[test]
    fn a_graph_that_is_kept_can_be_walked_twice() {
        crate::rng::seed(13);
        let c = case(5, 11);
        let loss = ours(&c, (1.0, 0.0, false), Compute::F32, WAYS[1]).0.sum(Kind::Float);
        let run = || {
            let keep = true;
            Tensor::run_backward(&[&loss], &[&c.leaves[0], &c.leaves[1]], keep, false)
        };
        let (first, second) = (run(), run());
        for (a, b) in first.iter().zip(&second) {
            assert!(relative(a, b) < 1e-6);
        }
    }

    #[test]
    fn bf16_is_close_and_no_rows_are_no_loss() {
        crate::rng::seed(14);
        let c = case(64, 500);
        for way in WAYS {
            let o = (1.0, 0.1, true);
            let want = plain(&c, o);
            let (loss, _) = ours(&c, o, Compute::Bf16, way);
            assert!(relative(&loss, &want) < 1e-2);
            for (a, b) in grads(&loss, &c).iter().zip(&grads(&want, &c)) {
                assert!(relative(a, b) < 2e-2);
            }
            let none = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
            let [hidden, weight, _] = &c.leaves;
            let empty = hidden.narrow(0, 0, 0);
            let (loss, _) = row_loss(&empty, weight, &none, CrossEntropy::default(), Compute::F32, way);
            assert_eq!(loss.size(), [0]);
            loss.sum(Kind::Float).backward();
            assert_eq!(f64::try_from(weight.grad().abs().max()).unwrap(), 0.0);
            crate::grad::clear(&[hidden.shallow_clone(), weight.shallow_clone()]).unwrap();
        }
    }

    #[test]
    #[should_panic(expected = "outside the vocabulary")]
    fn a_target_outside_the_vocabulary_is_named() {
        let c = case(3, 5);
        let bad = Tensor::from_slice(&[1i64, 5, 0]);
        let _ = linear_cross_entropy(&c.leaves[0], &c.leaves[1], &bad, 1.0, Compute::F32);
    }
}
