//! The peak of memory of the loss of distillation, by the allocator's own counters. A process of its own: these are
//! global.

use ragduet_generator::loss::DistilLoss;
use ragduet_generator::loss::distil::{CHUNK, Projection, Taught, distil};
use ragduet_torch::{Compute, Device, Kind, Tensor, device, rng};

/// The logits of 1,024 tokens over a vocabulary of 150,000 would take 614 MB, of student and teacher twice as much, and
/// autograd keeps more.
#[test]
fn two_matrices_of_logits_never_exist() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    rng::seed(1);
    let (n, vocab) = (1024, 150_000);
    let new = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let (hidden, weight) = (new(&[n, 8]).set_requires_grad(true), new(&[vocab, 8]).set_requires_grad(true));
    let (taught, of_teacher) = (new(&[n, 16]), new(&[vocab, 16]));
    let targets = Tensor::randint(vocab, [n], (Kind::Int64, Device::Cpu));
    let before = device::cpu_tensor_memory().unwrap().in_use;
    device::reset_peak(Device::Cpu).unwrap();
    let own = Projection {
        hidden: &hidden,
        weight: &weight,
        bias: None,
        scale: 1.0,
        cap: None,
        compute: Compute::F32,
    };
    let other = Projection { hidden: &taught, weight: &of_teacher, ..own };
    let d = distil(own, Taught::Whole(other), &targets, DistilLoss::default(), n as u64, CHUNK);
    d.backward().unwrap();
    let used = device::cpu_tensor_memory().unwrap().peak - before;
    let materialised = (2 * n * vocab * 4) as u64;
    println!("{} MB instead of {} MB and more", used >> 20, materialised >> 20);
    assert!(weight.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
    assert!(used * 4 < materialised, "{used} of {materialised}");
}
