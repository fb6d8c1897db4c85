//! MaxSim against its definition over padded rows, in values, gradients and memory.

use super::*;
use crate::{Device, rng};

fn segments(lengths: &[usize]) -> Segments {
    Segments::new(lengths, Device::Cpu)
}

fn rows(lengths: &[usize], dim: i64, kind: Kind) -> Tensor {
    Tensor::randn([lengths.iter().sum::<usize>() as i64, dim], (kind, Device::Cpu))
}

/// The materialised form, text by text.
fn plain(q: &Tensor, qs: &[usize], d: &Tensor, ds: &[usize], wanted: Option<&[bool]>) -> Tensor {
    let cut = |t: &Tensor, lengths: &[usize]| -> Vec<Tensor> {
        t.split_with_sizes(lengths.iter().map(|&l| l as i64).collect::<Vec<_>>(), 0)
    };
    let mut scores = Vec::new();
    for (i, a) in cut(q, qs).iter().enumerate() {
        for (j, b) in cut(d, ds).iter().enumerate() {
            let skip = wanted.is_some_and(|w| !w[i * ds.len() + j]);
            scores.push(if skip || a.size()[0] == 0 || b.size()[0] == 0 {
                Tensor::zeros([], (q.kind(), Device::Cpu))
            } else {
                a.matmul(&b.tr()).max_dim(1, false).0.sum(q.kind())
            });
        }
    }
    Tensor::stack(&scores, 0).view([qs.len() as i64, ds.len() as i64])
}

/// Relative to the largest number: a score of 600 rows is in the thousands.
fn near(a: &Tensor, b: &Tensor, tolerance: f64) {
    let most = |t: &Tensor| f64::try_from(t.abs().max()).unwrap();
    let (off, scale) = (most(&(a - b)), most(b));
    assert!(off <= tolerance * (1.0 + scale), "off by {off:.2e} of {scale:.2e}");
}

#[test]
fn scores_and_gradients_equal_the_materialised_form() {
    rng::seed(3);
    let wanted: Vec<bool> = (0..4 * 5).map(|i| i % 3 != 1).collect();
    for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
        // An empty text on either side, and queries that do not fit one block of 512 rows.
        for (qs, ds) in [([3, 1, 0, 7], [5, 1, 9, 0, 2]), ([300, 250, 600, 1], [40, 3, 1, 17, 180])] {
            for mask in [None, Some(wanted.as_slice())] {
                let (q, d) = (rows(&qs, 16, kind), rows(&ds, 16, kind));
                let up = Tensor::randn([4, 5], (kind, Device::Cpu));
                let leaves = |q: &Tensor, d: &Tensor| {
                    (q.copy().set_requires_grad(true), d.copy().set_requires_grad(true))
                };
                let (a, b) = leaves(&q, &d);
                let got = maxsim(&a, &segments(&qs), &b, &segments(&ds), mask);
                (&got * &up).sum(kind).backward();
                let (x, y) = leaves(&q, &d);
                let want = plain(&x, &qs, &y, &ds, mask);
                (&want * &up).sum(kind).backward();
                near(&got, &want, tolerance);
                near(&a.grad(), &x.grad(), tolerance);
                near(&b.grad(), &y.grad(), tolerance);
            }
        }
    }
}

#[test]
fn one_side_may_be_without_a_gradient() {
    let (q, d) = (rows(&[2, 3], 4, Kind::Float), rows(&[5], 4, Kind::Float).set_requires_grad(true));
    maxsim(&q, &segments(&[2, 3]), &d, &segments(&[5]), None).sum(Kind::Float).backward();
    assert!(d.grad().defined() && !q.requires_grad());
}
