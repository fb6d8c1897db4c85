//! What MaxSim over a training batch needs beside the materialised form. In a file of its own: the figures are of the
//! whole process.

use ragduet_torch::ops::{Segments, maxsim};
use ragduet_torch::{Device, Kind, Tensor, device};

const QUERIES: [usize; 64] = [32; 64];
const PASSAGES: [usize; 64] = [180; 64];
const DIM: i64 = 128;

/// Bytes that the scores and their gradient need beyond the rows and the rows' gradients.
fn peak(scores: impl Fn(&Tensor, &Tensor) -> Tensor) -> u64 {
    let rows = |lengths: &[usize]| {
        let n = lengths.iter().sum::<usize>() as i64;
        Tensor::randn([n, DIM], (Kind::Float, Device::Cpu)).set_requires_grad(true)
    };
    let (q, d) = (rows(&QUERIES), rows(&PASSAGES));
    device::reset_peak(Device::Cpu).unwrap();
    let before = device::cpu_tensor_memory().unwrap().in_use;
    scores(&q, &d).sum(Kind::Float).backward();
    let own = (q.numel() + d.numel()) as u64 * 4;
    device::cpu_tensor_memory().unwrap().peak.saturating_sub(before + own)
}

#[test]
fn memory_is_a_small_part_of_the_materialised_form() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    let segments = |lengths: &[usize]| Segments::new(lengths, Device::Cpu);
    let ours = peak(|q, d| maxsim(q, &segments(&QUERIES), d, &segments(&PASSAGES), None));
    // As PyLate has it: all products at once, [queries, passages, rows, rows].
    let theirs = peak(|q, d| {
        let (q, d) = (q.view([64, 32, DIM]), d.view([64, 180, DIM]));
        let products = Tensor::einsum("ash,bth->abst", &[q, d], None::<i64>);
        products.max_dim(-1, false).0.sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
    });
    println!("peak: ours {:.1} MB, materialised {:.1} MB", ours as f64 / 1e6, theirs as f64 / 1e6);
    assert!(theirs > 90_000_000, "the materialised form holds every product: {theirs}");
    assert!(ours * 5 <= theirs, "{ours} against {theirs} bytes");
}
