//! Products with few rows, ours beside ATen's: where `kMostRows` of `csrc/skinny.cpp` comes from.
//!
//!     cargo run --release -p ragduet-benches --bin products

use ragduet_torch::{Device, Kind, Tensor, no_grad, ops};
use std::time::Instant;

/// Microseconds of `f`, the median of some runs, over weights that rotate so that no cache holds them all.
fn time(weights: &[Tensor], f: impl Fn(&Tensor)) -> f64 {
    let mut runs: Vec<f64> = (0..9)
        .map(|_| {
            let started = Instant::now();
            weights.iter().for_each(&f);
            started.elapsed().as_secs_f64() * 1e6 / weights.len() as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn main() {
    let _guard = no_grad();
    println!("{:<22}{:>6}{:>12}{:>12}{:>8}", "out x in", "rows", "ours us", "ATen us", "x");
    for kind in [Kind::Float, Kind::BFloat16] {
        for (outputs, inputs) in [(384, 384), (2048, 384), (4096, 1024), (32000, 384)] {
            let count = (64 << 20) / (outputs * inputs * 4) + 1;
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
            let weights: Vec<Tensor> = (0..count).map(|_| random(&[outputs, inputs])).collect();
            for rows in [1, 2, 4, 8, 16, 24, 32, 48, 64] {
                let x = random(&[rows, inputs]);
                let ours = time(&weights, |w| drop(ops::linear(&x, w, None, false)));
                let aten = time(&weights, |w| drop(x.linear(w, None::<&Tensor>)));
                let name = format!("{kind:?} {outputs}x{inputs}");
                println!("{name:<22}{rows:>6}{ours:>12.1}{aten:>12.1}{:>8.2}", aten / ours);
            }
        }
    }
}
