//! Cross-entropy over a vocabulary without the logits of the whole batch.

use crate::{Compute, Tensor, ffi};

/// Logits alive at once, in elements: 32 MiB in f32.
const CHUNK: i64 = 8 << 20;

/// Cross-entropy of softmax(scale * hidden weight^T), row by row; the backward pass makes the logits again.
///
/// `hidden` [n, h] and `weight` [vocab, h] in f32 (their products in `compute`), `targets` [n] i64, of which negative
/// ones have loss 0 and no gradient. Returns (losses [n] in f32; [n] without gradient, 1 where the target is the
/// likeliest token, else 0).
///
/// # Panics
/// On shapes that do not fit and targets outside the vocabulary: bugs of the caller.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    scale: f64,
    compute: Compute,
) -> (Tensor, Tensor) {
    let (mut nll, mut hit) = (std::ptr::null_mut(), std::ptr::null_mut());
    let vocab = weight.size().first().copied().unwrap_or(1).max(1);
    // SAFETY: handles are valid for the call; the two results are adopted only on success.
    let status = unsafe {
        ffi::rd_linear_cross_entropy(
            ffi::handle(hidden),
            ffi::handle(weight),
            ffi::handle(targets),
            scale,
            (compute == Compute::Bf16).into(),
            (CHUNK / vocab).max(16),
            &mut nll,
            &mut hit,
        )
    };
    if let Err(e) = ffi::check(status) {
        panic!("{e}");
    }
    (ffi::adopt(nll), ffi::adopt(hit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Kind};

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    struct Case {
        leaves: [Tensor; 2],
        targets: Tensor,
        up: Tensor,
    }

    fn case(n: i64, vocab: i64) -> Case {
        let leaf = |shape: &[i64]| (Tensor::randn(shape, CPU) * 0.7).set_requires_grad(true);
        let targets = Tensor::randint(vocab, [n], (Kind::Int64, Device::Cpu));
        if n > 4 {
            let _ = targets.narrow(0, 3, 2).fill_(-100);
        }
        Case { leaves: [leaf(&[n, 13]), leaf(&[vocab, 13])], targets, up: Tensor::rand([n], CPU) }
    }

    fn plain(c: &Case, scale: f64) -> Tensor {
        let z = c.leaves[0].matmul(&c.leaves[1].tr()) * scale;
        let at = z.gather(1, &c.targets.clamp_min(0).unsqueeze(1), false).squeeze_dim(1);
        (z.logsumexp([1], false) - at) * c.targets.ge(0)
    }

    fn relative(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).norm() / b.norm().clamp_min(1e-12)).unwrap()
    }

    fn grads(loss: &Tensor, c: &Case) -> [Tensor; 2] {
        (loss * &c.up).sum(Kind::Float).backward();
        c.leaves.each_ref().map(|t| {
            let g = t.grad().copy();
            let _ = t.grad().zero_();
            g
        })
    }

    #[test]
    fn equals_its_definition_forward_and_backward() {
        // With 60,001 tokens a chunk is 139 rows: 300 rows are two and a rest.
        for (n, vocab, scale) in [(1, 7, 1.0), (37, 101, 0.3), (300, 60_001, 1.0)] {
            let c = case(n, vocab);
            let want = plain(&c, scale);
            let (ours, hits) =
                linear_cross_entropy(&c.leaves[0], &c.leaves[1], &c.targets, scale, Compute::F32);
            assert!(relative(&ours, &want) < 1e-5, "{n} {vocab}");
            let likeliest = c.leaves[0].matmul(&c.leaves[1].tr()).argmax(1, false);
            assert!(hits.eq(1.0).equal(&likeliest.eq_tensor(&c.targets)));
            let (a, b) = (grads(&ours, &c), grads(&want, &c));
            for i in 0..2 {
                assert!(relative(&a[i], &b[i]) < 1e-5, "{n} {vocab}: gradient {i}");
            }
        }
    }

    #[test]
    fn bf16_is_close_and_no_rows_are_no_loss() {
        let c = case(64, 500);
        let [hidden, weight] = &c.leaves;
        let want = plain(&c, 1.0);
        let (ours, _) = linear_cross_entropy(hidden, weight, &c.targets, 1.0, Compute::Bf16);
        assert!(relative(&ours, &want) < 1e-2);
        for (a, b) in grads(&ours, &c).iter().zip(&grads(&want, &c)) {
            assert!(relative(a, b) < 2e-2);
        }
        let none = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
        let (loss, _) = linear_cross_entropy(&hidden.narrow(0, 0, 0), weight, &none, 1.0, Compute::F32);
        assert_eq!(loss.size(), [0]);
    }

    #[test]
    #[should_panic(expected = "outside the vocabulary")]
    fn a_target_outside_the_vocabulary_is_named() {
        let c = case(3, 5);
        let bad = Tensor::from_slice(&[1i64, 5, 0]);
        let _ = linear_cross_entropy(&c.leaves[0], &c.leaves[1], &bad, 1.0, Compute::F32);
    }
}
