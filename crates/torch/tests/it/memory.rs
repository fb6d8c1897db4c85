//! Recomputation, and the peak of memory by the allocator's own counters. A process of its own: the counters and the
//! generator are global.

use ragduet_torch::loss::linear_cross_entropy;
use ragduet_torch::{Compute, Device, Kind, Tensor, device, grad, no_grad, rng};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// The most bytes in use while `f` runs, beyond what there was before.
fn peak(f: impl FnOnce()) -> u64 {
    let before = device::cpu_tensor_memory().unwrap().in_use;
    device::reset_peak(Device::Cpu).unwrap();
    f();
    device::cpu_tensor_memory().unwrap().peak - before
}

#[test]
fn memory_stays_far_below_what_is_not_kept_and_the_draws_are_the_same() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    rng::seed(1);
    draws();
    logits();
    layers();
}

/// The same values, gradients and draws with and without keeping, through two parts with dropout and two outputs.
fn draws() {
    let leaf = |shape: &[i64]| Tensor::randn(shape, CPU).set_requires_grad(true);
    let (w, x, z) = (leaf(&[6, 6]), leaf(&[4, 6]), leaf(&[4, 6]));
    let part = || {
        let w = w.shallow_clone();
        move |x: &[Tensor]| {
            let y = x[0].matmul(&w).dropout(0.4, true).tanh();
            vec![&y + &x[1], y * 2.0]
        }
    };
    let start = rng::RngState::get(Device::Cpu).unwrap();
    let run = |kept: bool| {
        start.set().unwrap();
        let mut outs = vec![&x * 1.5, z.shallow_clone()];
        for _ in 0..2 {
            outs = if kept { part()(&outs) } else { grad::checkpoint(Device::Cpu, &outs, part()).unwrap() };
        }
        let value = (&outs[0] * &outs[1]).sum(Kind::Float);
        let after = Tensor::rand([3], CPU);
        value.backward();
        let grads = [&w, &x, &z].map(|t| t.grad().copy());
        grad::clear(&[w.shallow_clone(), x.shallow_clone(), z.shallow_clone()]).unwrap();
        // The generator goes on as it would have.
        (value.detach(), after, Tensor::rand([3], CPU), grads)
    };
    let (a, b) = (run(true), run(false));
    assert!(a.0.equal(&b.0) && a.1.equal(&b.1) && a.2.equal(&b.2));
    for (x, y) in a.3.iter().zip(&b.3) {
        assert!(x.allclose(y, 1e-6, 1e-6, false));
    }
}

/// The logits of 4,096 tokens and a vocabulary of 150,000 would take 2.5 GB; a loss in operators has them and their
/// gradient.
fn logits() {
    let (tokens, vocab, hidden) = (4096, 150_000, 8);
    let h = Tensor::randn([tokens, hidden], CPU).set_requires_grad(true);
    let w = Tensor::randn([vocab, hidden], CPU).set_requires_grad(true);
    let targets = Tensor::randint(vocab, [tokens], (Kind::Int64, Device::Cpu));
    let used = peak(|| {
        let (loss, _) = linear_cross_entropy(&h, &w, &targets, 1.0, Compute::F32);
        loss.sum(Kind::Float).backward();
    });
    assert!(w.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
    let materialised = (tokens * vocab * 4) as u64;
    println!("logits: {} MB instead of {} MB", used >> 20, materialised >> 20);
    assert!(used * 5 < materialised, "{used} of {materialised}");
}

/// Eight layers with wide inner values.
fn layers() {
    let weights: Vec<Tensor> =
        (0..8).map(|_| (Tensor::randn([64, 64], CPU) * 0.1).set_requires_grad(true)).collect();
    let x = Tensor::randn([4096, 64], CPU);
    let layer = |w: &Tensor| {
        let w = w.shallow_clone();
        move |x: &[Tensor]| vec![&x[0] + x[0].matmul(&w).dropout(0.1, true).tanh().matmul(&w).gelu("none")]
    };
    let start = rng::RngState::get(Device::Cpu).unwrap();
    let run = |recompute: bool| {
        start.set().unwrap();
        let used = peak(|| {
            let mut stream = vec![x.shallow_clone()];
            for w in &weights {
                stream = if recompute {
                    grad::checkpoint(Device::Cpu, &stream, layer(w)).unwrap()
                } else {
                    layer(w)(&stream)
                };
            }
            stream[0].square().sum(Kind::Float).backward();
        });
        let _guard = no_grad();
        let grads: Vec<Tensor> = weights.iter().map(|w| w.grad().copy()).collect();
        grad::clear(&weights).unwrap();
        (used, grads)
    };
    let (kept, again) = (run(false), run(true));
    for (a, b) in kept.1.iter().zip(&again.1) {
        assert!(a.allclose(b, 1e-5, 1e-5, false));
    }
    println!("layers: {} MB instead of {} MB", again.0 >> 20, kept.0 >> 20);
    assert!(again.0 * 2 < kept.0, "{} of {}", again.0, kept.0);
}
